"""Digests of parameters: the same wherever they lie, and read in pieces."""

import hashlib
from typing import Any

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest
from jax.sharding import NamedSharding, SingleDeviceSharding
from jax.sharding import PartitionSpec as P

from experiments import placement
from experiments.placement import tree_digest
from stepjax.training.sharding import make_mesh


def plain_digest(tree):
    """What the digest is, said in the shortest way."""
    digest = hashlib.sha256()
    for path, leaf in jax.tree_util.tree_leaves_with_path(tree):
        array = np.ascontiguousarray(leaf)
        name = jax.tree_util.keystr(path)
        digest.update(f"{name} {array.dtype} {array.shape};".encode())
        digest.update(array.tobytes())
    return digest.hexdigest()


def host_tree():
    rng = np.random.default_rng(0)
    kernel = rng.normal(size=(6, 8, 16)).astype(np.float32)
    kernel[3, 2] = -0.0
    kernel[4, 1, 0], kernel[4, 1, 1] = np.nan, -np.inf
    return {
        "layers": {"kernel": kernel, "small": kernel.astype(ml_dtypes.bfloat16)},
        "table": rng.normal(size=(16, 8)).astype(np.float32),
        "count": np.int32(7),
        "mask": rng.random((8, 3)) < 0.5,
        "odd": rng.normal(size=(13,)).astype(np.float16),
        "none": np.zeros((0, 4), np.float32),
    }


SPECS = {
    "kernel": [P(), P(None, "fsdp", "tensor"), P(None, ("data", "fsdp"))],
    "small": [P(), P(None, "tensor"), P(None, None, ("data", "tensor"))],
    "table": [P("fsdp"), P(("fsdp", "tensor"), "data"), P(("data", "fsdp", "tensor"))],
    "mask": [P("tensor"), P(("data", "tensor")), P("fsdp")],
}


def placed(tree, mesh, which):
    def put(path, leaf):
        spec = SPECS.get(path[-1].key, [P()] * 3)[which]
        return jax.device_put(leaf, NamedSharding(mesh, spec))

    return jax.tree_util.tree_map_with_path(put, tree)


@pytest.mark.parametrize("piece", [1, 300, 2500, 1 << 26])
def test_a_digest_does_not_depend_on_where_arrays_lie(piece, monkeypatch):
    monkeypatch.setattr(placement, "_PIECE_BYTES", piece)
    tree = host_tree()
    wanted = plain_digest(tree)
    assert tree_digest(tree) == wanted
    assert tree_digest(jax.tree.map(jnp.asarray, tree)) == wanted
    for which, shape in enumerate([(2, 2, 2), (1, 2, 4), (8, 1, 1)]):
        assert tree_digest(placed(tree, make_mesh(*shape), which)) == wanted
    tree["layers"]["kernel"][3, 2, 5] = 0.0  # no longer -0.0: other bits
    assert tree_digest(tree) != wanted


def test_a_large_leaf_is_whole_nowhere(monkeypatch):
    monkeypatch.setattr(placement, "_PIECE_BYTES", 1024)
    mesh, host = make_mesh(2, 2, 2), np.arange(64 * 32 * 8, dtype=np.float32)
    specs: list[Any] = [P(None, "fsdp", "tensor"), P(("fsdp", "tensor")), P("data")]
    for spec in specs:
        where = NamedSharding(mesh, spec)
        leaf = jax.device_put(host.reshape(64, 32, 8), where)
        pieces = list(placement._pieces(leaf))
        assert max(piece.nbytes for piece in pieces) <= 1024
        assert b"".join(piece.tobytes() for piece in pieces) == host.tobytes()
        program = placement._read_rows(where, 3, 1).lower(leaf, np.int32(0)).compile()
        # Beside the arguments, which are in parts, there is room for a few rows.
        memory = program.memory_analysis()
        assert memory.temp_size_in_bytes + memory.output_size_in_bytes < host.nbytes / 4
    single = jax.device_put(host, SingleDeviceSharding(jax.devices()[1]))
    assert max(piece.nbytes for piece in placement._pieces(single)) <= 1024
