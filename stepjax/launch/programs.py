"""The programs a run is made of, lowered for shapes and never run: train and sample."""

import dataclasses
import functools
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from stepjax.kernels.success_rate import init_success_rate
from stepjax.launch.work import Workload
from stepjax.losses.step_grpo import step_grpo_loss
from stepjax.models.qwen_vl.acting import ACTING_RULES, acting_mesh
from stepjax.models.qwen_vl.casting import used_types
from stepjax.models.qwen_vl.dimensions import QwenVLConfig
from stepjax.models.qwen_vl.engine_programs import make_programs
from stepjax.models.qwen_vl.engine_sizes import EngineSizes
from stepjax.models.qwen_vl.generate import generate
from stepjax.models.qwen_vl.model import QwenVL, make_qwen_vl
from stepjax.models.qwen_vl.packed import make_packed_evaluate
from stepjax.models.qwen_vl.prompt import VLPrompt
from stepjax.models.qwen_vl.sharding import (
    ACTIVATION_RULES,
    PARAM_RULES,
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
    "SAMPLING_RULES",
    "ProgramSettings",
    "lower_acting",
    "lower_sampling",
    "lower_train_step",
]

SAMPLING_RULES = PARAM_RULES | {"embed": None, "vision_embed": None}
"""While sampling, weights lie whole on each `tensor` group: nothing is gathered."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class ProgramSettings:
    """What decides the programs, besides model and mesh.

    Attributes:
      work: Shapes of a step.
      group: Responses that share a prompt, G.
      prompts: Prompts of an update, Q.
      single_rows: Rows of an update with a prompt of their own, beside the groups.
      micro_batch: Prompts of one forward and backward pass, over all devices.
      sample_rows: Prompts sampled from at once, over all devices.
      sample_group: Responses sampled from each.
      slots: Responses that grow at the same time in a process, in episodes.
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
    sample_rows: int = 64
    sample_group: int = 1
    slots: int = 16
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
    rules = SEQUENCE_RULES if settings.sequence else ACTIVATION_RULES
    model = make_qwen_vl(
        config,
        remat=settings.remat,
        attention=settings.attention,
        constrain=activation_constraint(mesh, rules),
        mesh=mesh,
    )
    shapes = jax.eval_shape(model.init, jax.random.key(0))
    trainable = trainable_mask(shapes, settings.frozen) if settings.frozen else None
    tx = make_adamw(1e-6, max_grad_norm=1.0, moments_dtype=settings.moments)
    state = jax.eval_shape(
        functools.partial(_init_state, model, tx, trainable, settings.num_tasks)
    )
    step = make_train_step(
        functools.partial(make_packed_evaluate(model), temperature=0.7),
        tx,
        _loss,
        micro_batch_size=settings.micro_batch,
        trainable=trainable,
    )
    jitted = jit_train_step(
        step,
        state_sharding=infer_state_sharding(state, mesh, param_rules(model, mesh)),
        batch_sharding=batch_sharding(mesh),
    )
    batch = _batch(settings, (settings.prompts, settings.group))
    if settings.single_rows:
        batch = (_batch(settings, (settings.single_rows,)), batch)
    return jitted.jitted.lower(state, batch)


def lower_sampling(config: QwenVLConfig, mesh: Mesh, settings: ProgramSettings) -> Any:
    """The sampler of a run, prefill and all decoding, lowered for a mesh.

    Args:
      config: The model.
      mesh: Of described or real devices.
      settings: The rest.

    Returns:
      What `jax.jit(...).lower` returns.

    Raises:
      ValueError: If the mesh does not divide the model.
    """
    model = make_qwen_vl(
        config,
        param_dtype=jnp.bfloat16,
        attention=settings.attention,
        constrain=activation_constraint(mesh),
        mesh=mesh,
    )
    work = settings.work
    sample = functools.partial(
        generate,
        model,
        temperature=0.7,
        max_new_tokens=work.response,
        stop_tokens=(config.eos_token_id or 0,),
    )
    params = jax.eval_shape(model.init, jax.random.key(0))
    rows = NamedSharding(mesh, P(("data", "fsdp")))
    jitted = jax.jit(
        sample,
        in_shardings=(param_sharding(model, mesh, SAMPLING_RULES), rows, rows),
        out_shardings=rows,
    )
    keys = jax.eval_shape(
        lambda: jax.random.split(
            jax.random.key(0), (settings.sample_rows, settings.sample_group)
        )
    )
    return jitted.lower(params, _prompts(settings.sample_rows, work), keys)


def lower_acting(
    config: QwenVLConfig, mesh: Mesh, settings: ProgramSettings
) -> dict[str, Any]:
    """What a process acts with while episodes run, lowered for its own devices.

    Args:
      config: The model.
      mesh: Of training; the devices of its first process are taken.
      settings: The rest.

    Returns:
      Two programs of an engine: "join", which reads prompts, and "advance", which
      decodes; each what `jax.jit(...).lower` returns.

    Raises:
      ValueError: If a `tensor` group does not lie within a process.
    """
    model = make_qwen_vl(config, attention=settings.attention)
    own = acting_mesh(model, mesh)
    work, rows = settings.work, min(4, settings.slots)
    programs = make_programs(
        model,
        own,
        sizes=EngineSizes(
            slots=settings.slots, prompt_buckets=(work.prompt,), prefill_rows=rows
        ),
        most=work.response,
        stop_tokens=(config.eos_token_id or 0,),
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
    slots = jax.tree.map(
        lambda leaf, where: jax.ShapeDtypeStruct(
            leaf.shape, leaf.dtype, sharding=where
        ),
        jax.eval_shape(programs.empty, params),
        programs.where,
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
    }


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
