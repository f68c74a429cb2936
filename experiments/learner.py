"""Settings to optimizer, loss, mesh and train step: the one place they meet."""

import dataclasses
import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import numpy as np
import optax

import stepjax
from experiments.config import AlgoConfig, ExperimentConfig, OptimizerConfig
from experiments.errors import UsageError, as_usage_error
from experiments.placement import place
from stepjax.batching import rows_of_a_pass
from stepjax.models.policy import Policy
from stepjax.training.freezing import trainable_mask
from stepjax.training.optimizer import make_adamw
from stepjax.training.sharding import (
    batch_sharding,
    infer_state_sharding,
    make_mesh,
)
from stepjax.training.state import TrainState, init_train_state
from stepjax.training.step import (
    Batch,
    ShardedTrainStep,
    jit_train_step,
    make_train_step,
)
from stepjax.types import LossOutput, PolicyOutput, StepBatch

__all__ = [
    "Learner",
    "check_mesh",
    "make_learner",
    "make_optimizer",
    "mean_metrics",
]


_ROWS_PER_PASS = 64  # of a small policy; more do not make a pass faster


@dataclasses.dataclass(frozen=True, kw_only=True)
class Learner:
    """What a run trains with.

    Attributes:
      train_step: `(state, batch) -> (state, metrics)`, compiled; donates the state.
      begin: Makes the state before round 1, on the mesh.
      like: Shapes, types and places of a state: what to restore into.
      state_sharding: Where each leaf of a state lives.
      batch_sharding: Where the rows of a batch live.
      micro_batch_size: Rows of one forward and backward pass.
    """

    train_step: ShardedTrainStep
    begin: Callable[[], TrainState]
    like: TrainState
    state_sharding: TrainState
    batch_sharding: jax.sharding.NamedSharding
    micro_batch_size: int


def check_mesh(
    config: ExperimentConfig, policy: Policy | None = None
) -> jax.sharding.Mesh:
    """The mesh of a run, found fit before anything slow begins.

    Args:
      config: The run's settings.
      policy: The policy to train. Devices that share a large model are put together in
        one process, where they sample.

    Raises:
      UsageError: If it does not fit the devices or the model, the rows of an update
        cannot be cut into passes on it, or the model has no parameters to freeze as
        asked for.
    """
    with as_usage_error(ValueError):
        mesh = make_mesh(config.mesh.data, config.mesh.fsdp, config.mesh.tensor)
        _micro_batch_size(config.algo, policy, mesh)
    model = getattr(policy, "model", None)
    if policy is not None and model is not None and _frozen(config):
        _trainable(config, _param_shapes(policy, None))
    if model is None or mesh.size == 1:
        return mesh
    from stepjax.models.qwen_vl.acting import groups_in_processes
    from stepjax.models.qwen_vl.sharding import check_model_mesh

    with as_usage_error(ValueError):
        check_model_mesh(model, mesh)
        return groups_in_processes(mesh)


def make_learner(
    config: ExperimentConfig,
    policy: Policy,
    start_params: Any,
    *,
    num_tasks: int,
    train_ids: np.ndarray,
) -> Learner:
    """The train step and the first state of a run.

    Args:
      config: The run's settings.
      policy: The policy to train.
      start_params: Parameters to start from, whole; None for those that the policy
        loads, each device its part.
      num_tasks: Tasks in the pool, T.
      train_ids: [T_train] int. Tasks to draw from.

    Returns:
      The learner.

    Raises:
      UsageError: As `check_mesh`, if `policy.freeze` finds nothing or leaves nothing,
        or if a round draws more tasks than there are.
    """
    algo = config.algo
    mesh = check_mesh(config, policy)
    on_mesh = getattr(policy, "on_mesh", None)
    policy = on_mesh(mesh) if on_mesh else policy
    if algo.tasks_per_round > len(train_ids):
        raise UsageError(
            f"algo.tasks_per_round = {algo.tasks_per_round} is more than the "
            f"{len(train_ids)} training tasks; choose at most that many."
        )
    micro = _micro_batch_size(algo, policy, mesh)
    ids: Any = np.asarray(train_ids, np.int32)
    param_shapes = _param_shapes(policy, start_params)
    trainable = _trainable(config, param_shapes)

    def init(params: Any) -> TrainState:
        return init_train_state(
            jax.random.key(config.seed),
            params,
            make_optimizer(config.optim),
            success_rate=stepjax.init_success_rate(num_tasks),
            task_ids=ids,
            trainable=trainable,
        )

    shapes = jax.eval_shape(init, param_shapes)
    where = infer_state_sharding(shapes, mesh, _rules(policy, mesh))

    def params_in_place() -> Any:
        if start_params is not None:
            return place(start_params, where.params)
        if policy.load is None:
            raise UsageError("the policy has no parameters of its own to start from.")
        with as_usage_error(ValueError, OSError):
            return policy.load(shardings=where.params)

    step, rows = _train_step(policy, config, micro), batch_sharding(mesh)
    reference = None
    if algo.kl_coef > 0.0:
        reference = _in_used_types(policy, params_in_place(), where.params)
    return Learner(
        train_step=jit_train_step(
            step, state_sharding=where, batch_sharding=rows, reference=reference
        ),
        # Every device makes its part: the state is nowhere whole.
        begin=lambda: jax.jit(init, out_shardings=where)(params_in_place()),
        like=jax.tree.map(
            lambda leaf, sharding: jax.ShapeDtypeStruct(
                leaf.shape, leaf.dtype, sharding=sharding
            ),
            shapes,
            where,
        ),
        state_sharding=where,
        batch_sharding=rows,
        micro_batch_size=micro,
    )


def _micro_batch_size(
    algo: AlgoConfig, policy: Policy | None, mesh: jax.sharding.Mesh
) -> int:
    most = getattr(policy, "rows_per_pass", _ROWS_PER_PASS)
    shards = mesh.shape["data"] * mesh.shape["fsdp"]
    return rows_of_a_pass(algo.rows_per_update, most, shards)


def _param_shapes(policy: Policy, start_params: Any) -> Any:
    if start_params is None:
        return jax.eval_shape(lambda: policy.init(jax.random.key(0), None))
    return jax.eval_shape(lambda params: params, start_params)


def _trainable(config: ExperimentConfig, param_shapes: Any) -> Any:
    """Which parameters learn, as in `make_train_step`; None for all."""
    if not _frozen(config):
        return None
    try:
        return trainable_mask(param_shapes, _frozen(config))
    except ValueError as error:
        said = str(error).removeprefix("frozen: ")
        # Of all patterns, people know those that they gave.
        said = said.replace(str(list(_frozen(config))), str(list(config.policy.freeze)))
        if config.policy.lora_rank is not None:
            said += " With policy.lora_rank only lora_a and lora_b learn."
        raise UsageError(f"policy.freeze: {said}") from error


def _frozen(config: ExperimentConfig) -> tuple[str, ...]:
    """Patterns of parameters that do not learn: with LoRA, all but adapters."""
    if config.policy.lora_rank is None:
        return config.policy.freeze
    from stepjax.models.qwen_vl.lora import ALL_BUT_ADAPTERS

    return (ALL_BUT_ADAPTERS, *config.policy.freeze)


def _in_used_types(policy: Policy, params: Any, where: Any) -> Any:
    """Parameters that only are read: of a model, in the types that it reads."""
    model = getattr(policy, "model", None)
    if model is None:
        return params
    from stepjax.models.qwen_vl.casting import cast_params

    cast = jax.jit(functools.partial(cast_params, model), out_shardings=where)
    return cast(params)


def _rules(policy: Policy, mesh: jax.sharding.Mesh) -> list:
    """Where parameters go by name; none for small policies, where shapes decide."""
    model = getattr(policy, "model", None)
    if model is None or mesh.size == 1:
        return []
    from stepjax.models.qwen_vl.sharding import param_rules

    with as_usage_error(ValueError):
        return param_rules(model, mesh)


@functools.cache
def make_optimizer(optim: OptimizerConfig) -> optax.GradientTransformation:
    """AdamW after clipping by global norm."""
    rate, rising = optim.learning_rate, optim.warmup_updates
    schedule = optax.linear_schedule(rate / (rising + 1), rate, rising)
    return make_adamw(
        schedule if rising else rate,
        b1=optim.b1,
        b2=optim.b2,
        weight_decay=optim.weight_decay,
        max_grad_norm=optim.max_grad_norm,
        moments_dtype=optim.moments_dtype,
    )


def _train_step(
    policy: Policy, config: ExperimentConfig, micro: int
) -> Callable[..., Any]:
    """The train step; the same object if the settings that matter are the same."""
    algo = config.algo
    matters = AlgoConfig(
        temperature=algo.temperature,
        clip_eps_low=algo.clip_eps_low,
        clip_eps_high=algo.clip_eps_high,
        dual_clip=algo.dual_clip,
        kl_coef=algo.kl_coef,
        entropy_coef=algo.entropy_coef,
    )
    frozen = _frozen(config)
    return _cached_train_step(policy, matters, config.optim, micro, frozen)


@functools.cache
def _cached_train_step(
    policy: Policy,
    algo: AlgoConfig,
    optim: OptimizerConfig,
    micro: int,
    frozen: tuple[str, ...],
) -> Callable[..., Any]:
    # The objective is about the distribution that acted, hence its temperature.
    policy_fn = functools.partial(policy.evaluate, temperature=algo.temperature)

    max_importance = getattr(policy, "max_importance", 2.0)

    def loss_fn(
        output: PolicyOutput, batch: StepBatch, reference: Any = None
    ) -> LossOutput:
        correction = None
        if batch.sampler_log_prob is not None:  # an outside sampler acted
            correction = stepjax.truncated_importance_weight(
                batch.old_log_prob, batch.sampler_log_prob, max_weight=max_importance
            )
        return stepjax.step_grpo_loss(
            output.log_prob,
            batch,
            sampler_weight=correction,
            clip_eps_low=algo.clip_eps_low,
            clip_eps_high=algo.clip_eps_high,
            dual_clip=algo.dual_clip,
            kl_coef=algo.kl_coef,
            ref_log_prob=reference,
            entropy=output.entropy,
            entropy_coef=algo.entropy_coef,
        )

    def train_step(state: TrainState, batch: Batch, reference: Any = None) -> Any:
        step = make_train_step(
            policy_fn,
            make_optimizer(optim),
            loss_fn,
            micro_batch_size=micro,
            trainable=trainable_mask(state.params, frozen) if frozen else None,
        )
        return step(state, batch, reference)

    return train_step


def mean_metrics(updates: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    """`update/...` metrics of a round: counts summed, the rest averaged over updates.

    Args:
      updates: Metrics of each update, on device or host.

    Returns:
      Python numbers; only `update/count` and `update/rows` if there was no update.
    """
    host = jax.device_get(list(updates))
    summed: dict[str, float] = {"update/count": len(host), "update/rows": 0}
    if not host:
        return summed
    columns = {name: np.array([row[name] for row in host]) for name in host[0]}
    summed["update/rows"] = int(columns.pop("rows").sum())
    summed["update/count"] = int(columns.pop("updates").sum())
    return summed | {
        f"update/{name}": float(np.mean(values, dtype=np.float64))
        for name, values in columns.items()
    }
