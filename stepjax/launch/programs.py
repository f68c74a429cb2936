"""The programs a run is made of, lowered for shapes and never run: train and act."""

import dataclasses
import functools
import math
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import Mesh

from stepjax.kernels.success_rate import init_success_rate
from stepjax.launch.work import Workload
from stepjax.losses.step_grpo import step_grpo_loss
from stepjax.models.qwen_vl.acting import ACTING_RULES, acting_mesh, model_on_mesh
from stepjax.models.qwen_vl.casting import used_types
from stepjax.models.qwen_vl.dimensions import QwenVLConfig
from stepjax.models.qwen_vl.engine_programs import make_programs
from stepjax.models.qwen_vl.engine_sizes import EngineSizes
from stepjax.models.qwen_vl.model import QwenVL, make_qwen_vl
from stepjax.models.qwen_vl.packed import make_packed_evaluate
from stepjax.models.qwen_vl.policy import make_qwen_vl_policy
from stepjax.models.qwen_vl.prompt import VLPrompt
from stepjax.models.qwen_vl.sharding import (
    ACTIVATION_RULES,
    SEQUENCE_RULES,
    activation_constraint,
    param_rules,
    param_sharding,
)
from stepjax.training.freezing import trainable_mask
from stepjax.training.optimizer import make_adamw
from stepjax.training.sharding import batch_sharding, infer_state_sharding
from stepjax.training.state import init_train_state
from stepjax.training.step import jit_train_step, make_train_step
from stepjax.types import PolicyOutput, StepBatch

__all__ = [
    "GROUP_PASS",
    "SINGLE_PASS",
    "ProgramSettings",
    "device_bytes",
    "lower_acting",
    "lower_train_step",
    "train_state_shapes",
]

GROUP_PASS, SINGLE_PASS = "pass_of_groups", "pass_of_single_rows"
"""Scopes of the two loops of a train step, over groups and over rows alone."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class ProgramSettings:
    """What decides the programs, besides model and mesh.

    Attributes:
      work: Shapes of a step.
      group: Responses that share a prompt, G.
      prompts: Places for groups in an update, Q.
      single_rows: Places for rows with a prompt of their own, beside the groups.
      micro_batch: Prompts of one forward and backward pass, over all devices.
      slots: Responses that grow at the same time in a process, in episodes.
      prefill_rows: Prompts that a process reads at once for them.
      group_prompts: Prompts whose groups a process samples at once.
      remat: "none", "full" or "dots".
      moments: Type of Adam's moments, "float32" or "bfloat16".
      frozen: Regular expressions of parameters that do not learn.
      sequence: Whether what layers keep is split over `tensor` too.
      attention: "plain" or "tpu_flash"; decoding from a cache is always plain.
      num_tasks: Tasks in the pool.
    """

    work: Workload
    group: int = 8
    prompts: int = 64
    single_rows: int = 0
    micro_batch: int = 16
    slots: int = 16
    prefill_rows: int = 4
    group_prompts: int = 8
    remat: str = "full"
    moments: str = "float32"
    frozen: Sequence[str] = ()
    sequence: bool = False
    attention: str = "tpu_flash"
    num_tasks: int = 369


def lower_train_step(
    config: QwenVLConfig, mesh: Mesh, settings: ProgramSettings
) -> Any:
    """The train step of a run, lowered for a mesh: the real one, without arrays.

    Args:
      config: The model.
      mesh: Of described or real devices.
      settings: The rest.

    Returns:
      What `jax.jit(...).lower` returns.

    Raises:
      ValueError: If the mesh does not divide the model or the batch.
    """
    model, trainable, tx = _trained(config, mesh, settings)
    evaluate = make_packed_evaluate(model)

    def policy(params: Any, prompt: Any, tokens: jax.Array, mask: jax.Array) -> Any:
        with jax.named_scope(GROUP_PASS if tokens.ndim == 3 else SINGLE_PASS):
            return evaluate(params, prompt, tokens, mask, temperature=0.7)

    step = make_train_step(
        policy,
        tx,
        _loss,
        micro_batch_size=settings.micro_batch,
        trainable=trainable,
    )
    state = train_state_shapes(config, mesh, settings)
    jitted = jit_train_step(
        step,
        state_sharding=jax.tree.map(lambda leaf: leaf.sharding, state),
        batch_sharding=batch_sharding(mesh),
    )
    batch = _batch(settings, (settings.prompts, settings.group))
    if settings.single_rows:
        batch = (_batch(settings, (settings.single_rows,)), batch)
    return jitted.jitted.lower(state, batch)


def train_state_shapes(
    config: QwenVLConfig, mesh: Mesh, settings: ProgramSettings
) -> Any:
    """What is trained, with its optimizer: shapes, types and places.

    Args:
      config: The model.
      mesh: Of described or real devices.
      settings: The rest.

    Returns:
      A `TrainState` of `jax.ShapeDtypeStruct`s with shardings.

    Raises:
      ValueError: If the mesh does not divide the model.
    """
    model, trainable, tx = _trained(config, mesh, settings)
    state = jax.eval_shape(
        functools.partial(_init_state, model, tx, trainable, settings.num_tasks)
    )
    return _placed(state, infer_state_sharding(state, mesh, param_rules(model, mesh)))


def device_bytes(shapes: Any) -> int:
    """Bytes on each device of arrays that are described with shardings.

    Args:
      shapes: Pytree of `jax.ShapeDtypeStruct`s with shardings.
    """
    return sum(
        math.prod(leaf.sharding.shard_shape(leaf.shape)) * leaf.dtype.itemsize
        for leaf in jax.tree.leaves(shapes)
    )


def lower_acting(
    config: QwenVLConfig, mesh: Mesh, settings: ProgramSettings
) -> tuple[dict[str, Any], int]:
    """What a process acts with in a round, lowered for its own devices.

    Args:
      config: The model.
      mesh: Of training; the devices of its first process are taken.
      settings: The rest.

    Returns:
      Three programs: an engine's "join", which reads prompts, and "advance", which
      decodes, while episodes run; and "groups", which samples the other members of
      step-level groups after them. Each is what `jax.jit(...).lower` returns. And the
      bytes on a device of the engine's slots, which stay while groups are sampled.

    Raises:
      ValueError: If a `tensor` group does not lie within a process.
    """
    model = make_qwen_vl(config, attention=settings.attention)
    own = acting_mesh(model, mesh)
    work, rows = settings.work, settings.prefill_rows
    stops = (config.eos_token_id or 0,)
    programs = make_programs(
        model,
        own,
        sizes=EngineSizes(
            slots=settings.slots, prompt_buckets=(work.prompt,), prefill_rows=rows
        ),
        most=work.response,
        stop_tokens=stops,
        top_p=1.0,
    )
    shapes = jax.eval_shape(model.init, jax.random.key(0))
    params = jax.tree.map(
        lambda leaf, dtype, where: jax.ShapeDtypeStruct(
            leaf.shape, dtype, sharding=where
        ),
        shapes,
        used_types(model, shapes),
        param_sharding(model, own, ACTING_RULES),
    )
    slots = _placed(jax.eval_shape(programs.empty, params), programs.where)
    policy = make_qwen_vl_policy(
        model_on_mesh(model, own), max_new_tokens=work.response, stop_tokens=stops
    )
    heat = jax.ShapeDtypeStruct((), jnp.float32)
    return {
        "join": programs.join.lower(
            params,
            _prompts(rows, work),
            slots=slots,
            rows=jax.ShapeDtypeStruct((rows,), jnp.int32),
            key=jax.eval_shape(lambda: jax.random.key(0)),
            whose=jax.ShapeDtypeStruct((rows, 2), jnp.int32),
            temperature=heat,
        ),
        "advance": programs.advance.lower(params, slots=slots, temperature=heat),
        "groups": jax.jit(policy.sample_group).lower(
            params,
            _prompts(settings.group_prompts, work),
            _keys(settings.group_prompts, settings.group - 1),
            temperature=heat,
        ),
    }, device_bytes(slots)


def _trained(
    config: QwenVLConfig, mesh: Mesh, settings: ProgramSettings
) -> tuple[QwenVL, Any, Any]:
    """The model, which of its parameters learn (None for all), and the optimizer."""
    rules = SEQUENCE_RULES if settings.sequence else ACTIVATION_RULES
    model = make_qwen_vl(
        config,
        remat=settings.remat,
        attention=settings.attention,
        constrain=activation_constraint(mesh, rules),
        mesh=mesh,
    )
    trainable = None
    if settings.frozen:
        shapes = jax.eval_shape(model.init, jax.random.key(0))
        trainable = trainable_mask(shapes, settings.frozen)
    tx = make_adamw(1e-6, max_grad_norm=1.0, moments_dtype=settings.moments)
    return model, trainable, tx


def _placed(shapes: Any, where: Any) -> Any:
    return jax.tree.map(
        lambda leaf, sharding: jax.ShapeDtypeStruct(
            leaf.shape, leaf.dtype, sharding=sharding
        ),
        shapes,
        where,
    )


def _init_state(model: QwenVL, tx: Any, trainable: Any, num_tasks: int) -> Any:
    return init_train_state(
        jax.random.key(0),
        model.init(jax.random.key(0)),
        tx,
        success_rate=init_success_rate(num_tasks),
        task_ids=jnp.arange(num_tasks),
        trainable=trainable,
    )


def _loss(output: PolicyOutput, batch: StepBatch) -> Any:
    return step_grpo_loss(output.log_prob, batch, entropy=output.entropy)


def _keys(*shape: int) -> Any:
    return jax.eval_shape(lambda: jax.random.split(jax.random.key(0), shape))


def _prompts(rows: int, work: Workload) -> VLPrompt:
    shape = jax.ShapeDtypeStruct
    leaves: dict[str, Any] = {
        "tokens": shape((rows, work.prompt), jnp.int32),
        "positions": shape((rows, 3, work.prompt), jnp.int32),
        "segments": shape((rows, work.prompt), jnp.int32),
        "next_position": shape((rows,), jnp.int32),
        "images": shape((rows, work.images, work.height, work.width, 3), jnp.uint8),
        "image_index": shape((rows, work.prompt), jnp.int32),
    }
    return VLPrompt(**leaves)


def _batch(settings: ProgramSettings, rows: tuple[int, ...]) -> StepBatch:
    shape = jax.ShapeDtypeStruct
    tokens = (*rows, settings.work.response)
    leaves: dict[str, Any] = {
        "prompt": _prompts(rows[0], settings.work),
        "action_tokens": shape(tokens, jnp.int32),
        "token_mask": shape(tokens, jnp.bool_),
        "old_log_prob": shape(tokens, jnp.float32),
        "advantage": shape(rows, jnp.float32),
        "weight": shape(rows, jnp.float32),
        "task_id": shape(rows, jnp.int32),
        "trajectory_id": shape(rows, jnp.int32),
    }
    return StepBatch(**leaves)
