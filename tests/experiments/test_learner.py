"""Settings to optimizer, mesh and first state."""

import dataclasses
from types import SimpleNamespace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from experiments.config import (
    AlgoConfig,
    EnvConfig,
    ExperimentConfig,
    MeshConfig,
    OptimizerConfig,
    PolicyConfig,
    WarmStartConfig,
)
from experiments.errors import UsageError
from experiments.learner import check_mesh, make_learner, make_optimizer
from experiments.loop import train
from experiments.run_folder import RunFolder
from experiments.saves import open_saves
from stepjax.types import StepBatch
from tests.experiments.lever_world import (
    POLICY,
    LeverBackend,
    lever_config,
    start_params,
)

SMALL = OptimizerConfig(learning_rate=0.05, moments_dtype="bfloat16")


# --- Moments --------------------------------------------------------------------------


def test_moments_have_the_type_that_was_asked_for():
    kinds = {}
    for optim in (OptimizerConfig(), SMALL):
        state = make_optimizer(optim).init(start_params())
        moments = [leaf for leaf in jax.tree.leaves(state) if leaf.ndim]
        kinds[optim.moments_dtype] = {str(leaf.dtype) for leaf in moments}
    assert kinds == {"float32": {"float32"}, "bfloat16": {"bfloat16"}}
    with pytest.raises(ValueError, match=r"optim\.moments_dtype.*'int8'") as error:
        OptimizerConfig(moments_dtype="int8")
    assert "\n" not in str(error.value)


def test_states_are_named_as_they_were():
    """Checkpoints from before the setting go on."""
    before = optax.chain(optax.clip_by_global_norm(1.0), optax.adamw(3e-4))
    names = [
        [path for path, _ in jax.tree_util.tree_leaves_with_path(tx.init({"a": 1.0}))]
        for tx in (before, make_optimizer(OptimizerConfig()))
    ]
    assert names[0] == names[1]


@pytest.mark.slow
def test_a_run_with_small_moments_goes_on_with_them_only(tmp_path):
    def run(folder, rounds, optim=SMALL):
        config = lever_config(tmp_path / folder, rounds=rounds, optim=optim)
        return train(
            config, backend=LeverBackend(), policy=POLICY, start_params=start_params()
        )

    class Broken(LeverBackend):
        def collect(self, *args, **kwargs):
            if len(self.calls) == 4:  # two evaluations and rounds 1 to 3
                raise ConnectionError("environment gone")
            return super().collect(*args, **kwargs)

    whole = run("whole", 4)
    config = lever_config(tmp_path / "broken", rounds=4, optim=SMALL)
    with pytest.raises(ConnectionError):
        train(config, backend=Broken(), policy=POLICY, start_params=start_params())
    other = dataclasses.replace(config, optim=OptimizerConfig(learning_rate=0.05))
    with pytest.raises(UsageError) as error:
        RunFolder(other)
    assert "optim.moments_dtype: bfloat16 -> float32" in str(error.value)
    assert run("broken", 4).params_digest == whole.params_digest
    plain = run("plain", 4, OptimizerConfig(learning_rate=0.05))
    assert plain.params_digest != whole.params_digest
    np.testing.assert_allclose(
        plain.params["table"], whole.params["table"], atol=0.1, rtol=0.1
    )


# --- The first state ------------------------------------------------------------------


@pytest.fixture(scope="module")
def policy(tmp_path_factory):
    pytest.importorskip("safetensors", reason="needs the extra vlm")
    pytest.importorskip("tokenizers", reason="needs the extra vlm")
    from experiments.model_setup import make_model_policy
    from tests.models.qwen_vl.tiny import make_tiny_checkpoint

    folder = tmp_path_factory.mktemp("tiny")
    make_tiny_checkpoint(folder, "qwen2_vl")
    return make_model_policy(
        PolicyConfig(name="qwen-vl", checkpoint=folder, dtype="float32"), EnvConfig()
    )


def config_of(folder, **mesh):
    return ExperimentConfig(
        run_dir=folder,
        mesh=MeshConfig(**mesh),
        algo=AlgoConfig(tasks_per_round=2, group_size=4, rows_per_update=8),
        warm_start=WarmStartConfig(steps=0),
    )


@pytest.mark.slow
def test_the_first_state_is_nowhere_whole(policy, tmp_path, monkeypatch):
    from stepjax.models.qwen_vl.tensor_files import Checkpoint

    read = []

    class Spied(Checkpoint):
        def read(self, entry, layer, index):
            found = super().read(entry, layer, index)
            read.append(("/".join(entry.path), found.size))
            return found

    monkeypatch.setattr("stepjax.models.qwen_vl.weights.Checkpoint", Spied)
    learner = make_learner(
        config_of(tmp_path, data=2, fsdp=2, tensor=2),
        policy,
        None,
        num_tasks=4,
        train_ids=np.arange(4),
    )
    assert not read, "nothing is read before it is known that nothing is restored"
    before = {id(array) for array in jax.live_arrays()}
    state = learner.begin()
    made = [array for array in jax.live_arrays() if id(array) not in before]
    for leaf, where, like in zip(
        *map(jax.tree.leaves, (state, learner.state_sharding, learner.like)),
        strict=True,
    ):
        assert leaf.sharding.is_equivalent_to(where, leaf.ndim)
        assert (leaf.shape, leaf.dtype) == (like.shape, like.dtype)
    for tree in (state.params, state.opt_state[1][0].mu, state.opt_state[1][0].nu):
        kernel = tree["decoder"]["layers"]["up"]["kernel"]
        assert kernel.addressable_shards[0].data.size * 4 == kernel.size
    largest = max(leaf.size for leaf in jax.tree.leaves(state.params))
    for array in made:
        assert max(part.data.size for part in array.addressable_shards) <= largest / 2
    sizes = {name: size for name, size in read if name.endswith("up/kernel")}
    layers = state.params["decoder"]["layers"]["up"]["kernel"]
    assert sizes["decoder/layers/up/kernel"] * 4 * layers.shape[0] == layers.size
    # And it is what a single device reads.
    whole = policy.load()
    jax.tree.map(np.testing.assert_array_equal, state.params, whole)


@pytest.mark.slow
def test_the_reference_of_a_model_is_in_parts_and_in_used_types(policy, tmp_path):
    from stepjax.models.qwen_vl.casting import used_types

    setup = dataclasses.replace(policy.model.setup, dtype=jnp.bfloat16)
    model = dataclasses.replace(policy.model, setup=setup)
    config = config_of(tmp_path, data=2, fsdp=2, tensor=2)
    algo = dataclasses.replace(config.algo, kl_coef=0.1)
    learner: Any = make_learner(
        dataclasses.replace(config, algo=algo),
        dataclasses.replace(policy, model=model),
        None,
        num_tasks=4,
        train_ids=np.arange(4),
    )
    assert learner.micro_batch_size == 8
    reference = learner.train_step.reference
    types, places = used_types(model, reference), learner.state_sharding.params
    for leaf, dtype, where in zip(
        *map(jax.tree.leaves, (reference, types, places)), strict=True
    ):
        assert leaf.sharding.is_equivalent_to(where, leaf.ndim)
        assert leaf.dtype == dtype
    assert reference["decoder"]["layers"]["up"]["kernel"].dtype == jnp.bfloat16
    assert {leaf.dtype for leaf in jax.tree.leaves(learner.like.params)} == {
        jnp.dtype("float32")
    }


def lever_rows(count):
    rng = np.random.default_rng(0)
    leaves: dict[str, Any] = {
        "action_tokens": rng.integers(0, 4, (count, 1)).astype(np.int32),
        "token_mask": np.ones((count, 1), bool),
        "old_log_prob": np.full((count, 1), -1.0, np.float32),
        "advantage": rng.normal(size=count).astype(np.float32),
        "weight": np.ones(count, np.float32),
        "task_id": np.zeros(count, np.int32),
        "trajectory_id": np.arange(count, dtype=np.int32),
    }
    task, step = rng.integers(0, 20, count), rng.integers(0, 3, count)
    return StepBatch(prompt={"task": task, "step": step}, **leaves)


def test_the_reference_is_an_argument_and_stays_that_of_the_start(tmp_path):
    config = lever_config(tmp_path)

    def learner_of(kl_coef) -> Any:
        algo = dataclasses.replace(config.algo, kl_coef=kl_coef)
        return make_learner(
            dataclasses.replace(config, algo=algo),
            POLICY,
            start_params(),
            num_tasks=20,
            train_ids=np.arange(12),
        )

    learner, batch = learner_of(0.5), lever_rows(32)
    traced = learner.train_step.jitted.trace(
        learner.like, batch, learner.train_step.reference
    )
    size = start_params()["table"].size
    assert all(np.size(const) < size for const in traced.jaxpr.consts)
    state, first = learner.train_step(learner.begin(), batch)
    for _ in range(3):
        state, later = learner.train_step(state, batch)
    assert abs(first["kl"]) < 1e-6 < later["kl"]  # the start from itself, then away
    np.testing.assert_array_equal(
        learner.train_step.reference["table"], start_params()["table"]
    )
    plain = learner_of(0.0)
    free = plain.begin()
    for _ in range(4):
        free, _ = plain.train_step(free, batch)
    away = [
        np.abs(np.asarray(one.params["table"]) - start_params()["table"]).sum()
        for one in (free, state)
    ]
    assert away[1] < away[0]


def test_a_reference_that_was_overwritten_is_refused(tmp_path):
    """With a KL term the weights of the start are read again at every start."""
    weights = tmp_path / "model" / "model.safetensors"
    weights.parent.mkdir()
    weights.write_bytes(bytes(10_000))
    config = dataclasses.replace(
        lever_config(tmp_path / "run"),
        policy=PolicyConfig(name="qwen-vl", checkpoint=weights.parent),
    )
    sizes: Any = {"num_tasks": 20, "train_ids": np.arange(12)}
    learner = make_learner(lever_config(tmp_path), POLICY, start_params(), **sizes)
    folder: Any = SimpleNamespace(checkpoints=tmp_path / "checkpoints")

    def restored(kl_coef):
        algo = dataclasses.replace(config.algo, kl_coef=kl_coef)
        with open_saves(folder, dataclasses.replace(config, algo=algo)) as saves:
            found = saves.restore(learner.like, lambda *said: None)
            if found is None:
                saves.save(learner.begin())
        return found

    assert restored(0.1) is None
    assert restored(0.1) is not None
    weights.write_bytes(bytes(5_000) + b"1" + bytes(4_999))
    with pytest.raises(UsageError, match=r"model holds other weights") as error:
        restored(0.1)
    assert "\n" not in str(error.value)


def test_a_mesh_that_does_not_divide_the_model_is_refused_at_once(policy, tmp_path):
    with pytest.raises(UsageError, match="mesh tensor = 8 does not divide") as error:
        check_mesh(config_of(tmp_path, data=1, tensor=8), policy)
    assert "\n" not in str(error.value)
    assert check_mesh(config_of(tmp_path, data=4, tensor=2), policy).size == 8
    assert check_mesh(config_of(tmp_path, data=1, fsdp=-1), policy).shape["fsdp"] == 8
    assert check_mesh(config_of(tmp_path, data=1, tensor=8)).size == 8


def test_rows_of_a_pass_follow_the_setting_where_halving_fails(tmp_path):
    config = lever_config(tmp_path)

    def passes(rows, most=None) -> Any:
        algo = dataclasses.replace(config.algo, rows_per_update=rows)
        fields = {f.name: getattr(POLICY, f.name) for f in dataclasses.fields(POLICY)}
        learner = make_learner(
            dataclasses.replace(config, algo=algo),
            POLICY if most is None else WithPasses(**fields, rows_per_pass=most),
            start_params(),
            num_tasks=20,
            train_ids=np.arange(12),
        )
        return learner.micro_batch_size

    assert (passes(200), passes(200, 16), passes(32, 16)) == (40, 8, 16)
    with pytest.raises(UsageError, match="choose 256, a multiple of 64"):
        passes(248)


@dataclasses.dataclass(frozen=True, kw_only=True)
class WithPasses(type(POLICY)):
    rows_per_pass: int


def test_a_given_start_is_copied(tmp_path):
    """The train step donates its state, and the caller's arrays must survive that."""
    given = jax.tree.map(jnp.asarray, start_params())
    learner = make_learner(
        lever_config(tmp_path), POLICY, given, num_tasks=20, train_ids=np.arange(12)
    )
    state = learner.begin()
    state.params["table"].delete()
    np.testing.assert_array_equal(given["table"], start_params()["table"])


def test_patterns_that_find_nothing_in_a_model_are_refused_at_once(policy, tmp_path):
    frozen = PolicyConfig(freeze=("^visoin/",))
    config = dataclasses.replace(config_of(tmp_path), policy=frozen)
    with pytest.raises(UsageError, match="'.visoin/' is found in no parameter"):
        check_mesh(config, policy)


@pytest.mark.slow
def test_a_model_learns_without_its_vision_tower(policy, tmp_path):
    from tests.models.qwen_vl.test_packed import make_batches

    frozen = PolicyConfig(freeze=("^vision/", "^embed/"))
    config = dataclasses.replace(
        config_of(tmp_path, data=1, fsdp=8),
        policy=frozen,
        optim=OptimizerConfig(learning_rate=1e-2),
    )
    learner = make_learner(config, policy, None, num_tasks=4, train_ids=np.arange(4))
    mu: Any = learner.like.opt_state[1][0].mu
    names = {path[0].key for path, _ in jax.tree_util.tree_leaves_with_path(mu)}
    assert names == set(learner.like.params) - {"vision", "embed"}
    grouped, _ = make_batches()
    eight = jax.tree.map(lambda leaf: np.resize(leaf, (8, *leaf.shape[1:])), grouped)
    before = jax.device_get(learner.begin().params)
    state, metrics = learner.train_step(learner.begin(), eight)
    assert float(metrics["updates"]) == 1
    for name, part in jax.device_get(state.params).items():
        same = jax.tree.map(np.array_equal, part, before[name])
        assert all(jax.tree.leaves(same)) == (name in ("vision", "embed")), name
