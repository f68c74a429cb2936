"""One of two processes of four devices that copy parameters to act; for a test.

Arguments: coordinator, process id.
"""

import sys

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from stepjax.models.qwen_vl.acting import acting_copy, groups_in_processes, mesh_of
from stepjax.models.qwen_vl.config import PRESETS
from stepjax.models.qwen_vl.model import make_qwen_vl
from stepjax.models.qwen_vl.sharding import param_sharding

ORDERS = {
    "fsdp": ((2, 4, 1), range(8)),
    "tensor": ((2, 2, 2), range(8)),
    # Where neighbors in the mesh belong to different processes, as on TPU pods.
    "mixed": ((2, 4, 1), (0, 4, 1, 5, 2, 6, 3, 7)),
    "mixed-tensor": ((2, 2, 2), (0, 4, 1, 5, 2, 6, 3, 7)),
}


def main(coordinator: str, index: str) -> None:
    jax.distributed.initialize(
        coordinator_address=coordinator, num_processes=2, process_id=int(index)
    )
    model = make_qwen_vl(PRESETS["tiny-qwen2-vl"], dtype=jnp.bfloat16)
    shapes = jax.eval_shape(model.init, jax.random.key(0))
    rng = np.random.default_rng(0)
    masters = jax.tree.map(
        lambda leaf: rng.standard_normal(leaf.shape, np.float32), shapes
    )
    for sizes, order in ORDERS.values():
        grid = np.array(jax.devices())[list(order)].reshape(sizes)
        mesh = groups_in_processes(Mesh(grid, ("data", "fsdp", "tensor")))
        params = jax.tree.map(
            lambda host, where: jax.make_array_from_callback(
                host.shape, where, lambda at: host[at]
            ),
            masters,
            param_sharding(model, mesh),
        )
        copy = acting_copy(model, params, mesh)
        own = mesh_of(copy)
        assert own is not None and own.shape["tensor"] == 2, own
        assert set(own.devices.flat) == set(jax.local_devices())
        for found, host in zip(
            jax.tree.leaves(copy), jax.tree.leaves(masters), strict=True
        ):
            assert found.is_fully_addressable
            np.testing.assert_array_equal(found, host.astype(found.dtype))
        kernel = copy["decoder"]["layers"]["up"]["kernel"]
        assert kernel.dtype == jnp.bfloat16
        assert kernel.addressable_shards[0].data.size * 2 == kernel.size


if __name__ == "__main__":
    main(*sys.argv[1:])
