import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.sharding import PartitionSpec as P

import stepjax
from stepjax.models.qwen_vl.config import PRESETS
from stepjax.models.qwen_vl.model import make_qwen_vl
from stepjax.models.qwen_vl.packed import make_packed_evaluate
from stepjax.models.qwen_vl.sharding import (
    PARAM_RULES,
    SEQUENCE_RULES,
    Constraint,
    activation_constraint,
    check_model_mesh,
    param_rules,
    param_sharding,
)
from stepjax.training.sharding import (
    batch_sharding,
    infer_state_sharding,
    make_mesh,
    shard_batch,
    shard_state,
)
from stepjax.training.state import init_train_state
from stepjax.training.step import jit_train_step, make_train_step
from tests.models.qwen_vl.test_packed import (
    PROMPT,
    make_actions,
    make_batches,
    make_prompts,
    shaken_params,
)

TINY = "tiny-qwen2.5-vl"


def make_model(**options):
    options = {"dtype": jnp.float32, "attention": "plain"} | options
    return make_qwen_vl(PRESETS[TINY], **options)


@pytest.mark.parametrize("name", sorted(PRESETS))
def test_every_axis_has_a_rule(name):
    names = jax.tree.leaves(
        make_qwen_vl(PRESETS[name]).logical_axes(),
        is_leaf=lambda leaf: isinstance(leaf, tuple),
    )
    assert {axis for axes in names for axis in axes} <= set(PARAM_RULES)


@pytest.mark.parametrize(
    ("sizes", "message"),
    [
        ((1, 1, 8), "tensor = 8 does not divide kv_heads = 4 .* is 4"),
        ((1, 3, 1), "fsdp = 3 does not divide .* is 2 or 4"),
        ((1, 1, 3), "tensor = 3 does not divide .* is 2 or 4"),
    ],
)
def test_a_mesh_that_does_not_divide_is_named(sizes, message):
    devices = jax.devices()[: np.prod(sizes)]
    mesh = make_mesh(*sizes, devices=devices)
    with pytest.raises(ValueError, match=message) as error:
        check_model_mesh(make_qwen_vl(PRESETS["qwen2.5-vl-7b"]), mesh)
    assert "\n" not in str(error.value)


def test_rules_reach_the_optimizer():
    model, mesh = make_model(), make_mesh(1, 4, 2)
    tx = optax.adamw(1e-3)

    def init():
        return init_train_state(
            jax.random.key(0),
            {"base": model.init(jax.random.key(0))},
            tx,
            success_rate=stepjax.init_success_rate(2),
            task_ids=jnp.arange(2),
        )

    state = jax.eval_shape(init)
    found = infer_state_sharding(state, mesh, param_rules(model, mesh))
    kernel = found.params["base"]["decoder"]["layers"]["query"]["kernel"]
    assert kernel.spec == P(None, "fsdp", "tensor", None)
    moments = found.opt_state[0].mu["base"]["decoder"]["layers"]["query"]["kernel"]
    assert moments.spec == kernel.spec
    expected = jax.tree.map(lambda s: s.spec, param_sharding(model, mesh))
    assert jax.tree.map(lambda s: s.spec, found.params["base"]) == expected


def test_unknown_axis_names_are_errors():
    rules = {name: axis for name, axis in PARAM_RULES.items() if name != "mlp"}
    with pytest.raises(ValueError, match="'mlp'"):
        param_sharding(make_model(), make_mesh(8, 1, 1), rules)


def test_axes_without_a_name_are_left_whole():
    constraint = activation_constraint(make_mesh(2, 2, 2), PARAM_RULES)
    names = ("layers", "embed", None)
    assert constraint.spec((2, 64, 2), names) == P(None, "fsdp", None)


def test_constraints_leave_whole_what_does_not_divide():
    mesh = make_mesh(2, 2, 2)
    pin = activation_constraint(mesh, SEQUENCE_RULES)
    shardings = {}

    @jax.jit
    def f(x, y):
        x, y = pin(x, ("batch", "length", "heads", "head_dim")), pin(y, ("batch",) * 1)
        return x, y

    x, y = f(jnp.ones((4, 6, 2, 3)), jnp.ones(3))
    shardings = (x.sharding.spec, y.sharding.spec)
    assert shardings[0] == P(("data", "fsdp"), None, "tensor")
    assert y.sharding.is_fully_replicated
    z = jax.jit(lambda z: pin(z, ("batch", "length", "embed")))(jnp.ones((4, 6, 2)))
    assert z.sharding.spec == P(("data", "fsdp"), "tensor")


@pytest.mark.parametrize("grouped", [False, True], ids=["rows", "groups"])
def test_layers_of_any_number_of_entries_are_split_by_length(grouped):
    """What a layer keeps is the largest thing in training, beside the state."""
    mesh, seen = make_mesh(1, 2, 4), set()

    class Spy(Constraint):
        def __call__(self, array, names):
            if names == ("batch", "length", "embed") and array.shape[1] > PROMPT:
                seen.add((array.shape[1], self.spec(array.shape, names)))
            return super().__call__(array, names)

    model = make_model(constrain=Spy(mesh, SEQUENCE_RULES))
    tokens, mask = make_actions(length=6)
    if not grouped:
        tokens, mask = tokens[:, 0], mask[:, 0]
    params = jax.eval_shape(model.init, jax.random.key(0))
    jax.eval_shape(make_packed_evaluate(model), params, make_prompts(), tokens, mask)
    entries = 40 if grouped else 32  # instead of 24 + 3 * 5 and 24 + 5
    assert seen == {(entries, P(("data", "fsdp"), "tensor", None))}


@pytest.mark.slow
def test_padding_for_a_split_by_length_changes_nothing():
    class Padding:
        def __call__(self, array, names):
            return array

        def parts(self, name):
            return 8

    prompt, (tokens, mask) = make_prompts(), make_actions(length=6)
    tokens, mask = tokens[:, 0], mask[:, 0]  # 24 + 5 entries, and three of padding
    one, padded = (
        jax.jit(make_packed_evaluate(make_model(**options), entropy=False))(
            shaken_params(TINY), prompt, tokens, mask
        ).log_prob
        for options in ({}, {"constrain": Padding()})
    )
    np.testing.assert_allclose(padded, one, rtol=1e-6, atol=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize("sizes", [(2, 1, 1), (1, 2, 2)], ids=["data", "fsdp-tensor"])
def test_sharded_step_equals_one_device(sizes):
    devices = jax.devices()[: np.prod(sizes)]
    mesh = make_mesh(*sizes, devices=devices)
    tx = optax.sgd(0.1)
    grouped, _ = make_batches()

    def loss_fn(output, batch):
        return stepjax.step_grpo_loss(output.log_prob, batch)

    def update(model, wrap):
        state = init_train_state(
            jax.random.key(0),
            shaken_params(TINY),
            tx,
            success_rate=stepjax.init_success_rate(2),
            task_ids=jnp.arange(2),
        )
        return wrap(make_train_step(make_packed_evaluate(model), tx, loss_fn), state)

    def on_mesh(step, state):
        sharding = infer_state_sharding(state, mesh, param_rules(make_model(), mesh))
        jitted = jit_train_step(
            step, state_sharding=sharding, batch_sharding=batch_sharding(mesh)
        )
        batch = shard_batch(grouped, batch_sharding(mesh))
        return jitted(shard_state(state, sharding), batch)

    one, _ = update(make_model(), lambda step, state: jax.jit(step)(state, grouped))
    constrain = activation_constraint(mesh, SEQUENCE_RULES)
    many, metrics = update(make_model(constrain=constrain), on_mesh)
    norm = float(metrics["grad_norm"])
    for left, right in zip(
        jax.tree.leaves(one.params), jax.tree.leaves(many.params), strict=True
    ):
        np.testing.assert_allclose(left, right, rtol=1e-5, atol=1e-6 * norm)
    kernel = many.params["decoder"]["layers"]["up"]["kernel"]
    shard = kernel.addressable_shards[0].data
    assert shard.size * sizes[1] * sizes[2] == kernel.size


def test_models_differ_by_their_setup_only():
    constrain = activation_constraint(make_mesh(8, 1, 1))
    one, other = make_model(), make_model(constrain=constrain)
    assert dataclasses.replace(other.setup, constrain=one.setup.constrain) == one.setup
