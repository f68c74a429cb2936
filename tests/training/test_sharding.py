import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.sharding import AxisType
from jax.sharding import PartitionSpec as P

from stepjax.training.sharding import (
    batch_sharding,
    infer_param_sharding,
    infer_state_sharding,
    make_mesh,
    replicated,
    shard_batch,
    shard_state,
)
from tests.training.toy import assert_identical, make_optimizer, make_rows, make_state


@pytest.mark.parametrize(
    ("asked", "expected"),
    [
        ((-1, 1, 1), (8, 1, 1)),
        ((2, -1, 2), (2, 2, 2)),
        ((1, 2, -1), (1, 2, 4)),
        ((2, 2, 2), (2, 2, 2)),
        ((8, -1, 1), (8, 1, 1)),
    ],
    ids=str,
)
def test_one_axis_fills(asked, expected):
    mesh = make_mesh(*asked)
    assert tuple(mesh.shape.items()) == tuple(
        zip(("data", "fsdp", "tensor"), expected, strict=True)
    )
    assert set(mesh.axis_types) == {AxisType.Auto}


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        (
            (3, 1, 1),
            r"data=3, fsdp=1, tensor=1\) does not fit: .* = 3 is not .* 8; set",
        ),
        ((-1, 3, 1), r"fsdp times tensor = 3 does not divide .* devices, 8; choose"),
        ((16, 1, 1), r"= 16 is not the number of devices, 8"),
        ((-1, 16, 1), r"= 16 does not divide"),
        ((-1, -1, 1), r"only one axis may be -1, got data and fsdp; set fsdp to 1"),
        ((0, 1, 1), r"data must be a positive number or -1"),
        ((-1, 1, -2), r"tensor must be a positive number or -1"),
    ],
    ids=str,
)
def test_mesh_that_does_not_fit(asked, message):
    with pytest.raises(ValueError, match=message) as caught:
        make_mesh(*asked)
    assert "\n" not in str(caught.value)


def test_a_slice_without_an_axis_of_that_size(monkeypatch):
    """Some TPU slices have sides of 8 only; a side is then split."""

    def refuse(*args, **options):
        raise NotImplementedError("Failed to find assignment")

    expected = make_mesh(2, 2, 2)
    monkeypatch.setattr(jax, "make_mesh", refuse)
    assert make_mesh(2, 2, 2) == expected


def test_mesh_of_some_devices():
    assert make_mesh(devices=jax.devices()[:2]).devices.size == 2


def specs(tree):
    return jax.tree.map(lambda s: s.spec, tree)


def test_parameters_by_default_and_by_rule():
    mesh = make_mesh(2, 2, 2)
    shapes = {
        "wide": jax.ShapeDtypeStruct((6, 32), jnp.float32),
        "square": jax.ShapeDtypeStruct((8, 8), jnp.float32),
        "odd": jax.ShapeDtypeStruct((3, 7), jnp.float32),
        "half_odd": jax.ShapeDtypeStruct((9, 4), jnp.float32),
        "scalar": jax.ShapeDtypeStruct((), jnp.float32),
        "deep": {"kernel": jax.ShapeDtypeStruct((4, 4), jnp.float32)},
    }
    assert specs(infer_param_sharding(shapes, mesh)) == {
        "wide": P(None, "fsdp"),
        "square": P("fsdp"),
        "odd": P(),
        "half_odd": P(None, "fsdp"),
        "scalar": P(),
        "deep": {"kernel": P("fsdp")},
    }
    rules = [("deep/kernel$", P("fsdp", "tensor")), ("deep|wide", P())]
    ruled = specs(infer_param_sharding(shapes, mesh, rules))
    assert ruled["deep"]["kernel"] == P("fsdp", "tensor")
    assert ruled["wide"] == P()
    assert ruled["square"] == P("fsdp")
    assert set(jax.tree.leaves(specs(infer_param_sharding(shapes, make_mesh(8))))) == {
        P()
    }


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        (P("model"), "names axis 'model'; the mesh has"),
        (P(None, None, "fsdp"), r"3 entries, but the parameter has shape \(6, 32\)"),
        (P(("data", "fsdp")), r"splits a dimension of size 6 .* over 4 devices"),
    ],
    ids=str,
)
def test_rules_that_cannot_hold(spec, message):
    shapes = {"w": jax.ShapeDtypeStruct((6, 32), jnp.float32)}
    with pytest.raises(ValueError, match=message):
        infer_param_sharding(shapes, make_mesh(2, 2, 2), [("w", spec)])


@pytest.mark.parametrize(
    "tx",
    [make_optimizer(), optax.adamw(1e-3), optax.sgd(1e-2, momentum=0.9)],
    ids=["clip_adam", "adamw", "momentum"],
)
def test_optimizer_state_follows_parameters(tx):
    mesh = make_mesh(2, 2, 2)
    state = jax.eval_shape(lambda: make_state(tx))
    rules = [("head/kernel", P("fsdp", "tensor"))]
    sharding = infer_state_sharding(state, mesh, rules)
    assert jax.tree.structure(sharding) == jax.tree.structure(state)
    assert sharding.params["head"]["kernel"].spec == P("fsdp", "tensor")
    followed = optax.tree_utils.tree_map_params(
        tx,
        lambda leaf, expected: leaf == expected,
        sharding.opt_state,
        sharding.params,
        transform_non_params=lambda leaf: leaf == replicated(mesh),
    )
    assert all(jax.tree.leaves(followed))
    others = (sharding.success_rate, sharding.sampler, sharding.key, sharding.step)
    assert set(jax.tree.leaves(others)) == {replicated(mesh)}


def test_factored_optimizer_state_is_replicated():
    tx = optax.adafactor(1e-3, min_dim_size_to_factor=4)
    mesh = make_mesh(1, 8, 1)
    state = make_state(tx)
    assert_identical(shard_state(state, infer_state_sharding(state, mesh)), state)


def test_shard_batch():
    sharding = batch_sharding(make_mesh(2, 2, 2))
    batch = shard_batch(make_rows(16), sharding)
    assert batch.prompt["x"].addressable_shards[0].data.shape == (4, 6)
    np.testing.assert_array_equal(batch.weight, make_rows(16).weight)
    with pytest.raises(ValueError, match="18 rows, not divisible by the 4 devices"):
        shard_batch(make_rows(18), sharding)
