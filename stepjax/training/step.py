"""One optimizer update: micro-batches, global normalization, guards."""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax

from stepjax.training.freezing import merge_params, split_params
from stepjax.training.sharding import batch_parts, check_rows
from stepjax.training.state import TrainState
from stepjax.types import LossOutput, PolicyOutput, StepBatch, WeightedSum

__all__ = [
    "Batch",
    "LossFn",
    "Metrics",
    "PolicyFn",
    "ShardedTrainStep",
    "TrainStep",
    "cast_floating",
    "jit_train_step",
    "make_train_step",
]

PolicyFn = Callable[[Any, Any, jax.Array, jax.Array], PolicyOutput]
LossFn = Callable[..., LossOutput]
Metrics = dict[str, jax.Array]
Batch = StepBatch | tuple[StepBatch, ...]
TrainStep = Callable[..., tuple[TrainState, Metrics]]

_OWN_METRICS = ("loss", "grad_norm", "param_norm", "rows", "updates", "nonfinite")


def cast_floating(tree: Any, dtype: Any) -> Any:
    """A copy of `tree` with every floating-point leaf in `dtype`; others untouched.

    Args:
      tree: Pytree of arrays.
      dtype: Floating dtype, or None to return the tree as it is.

    Returns:
      A pytree of the same structure.
    """
    if dtype is None:
        return tree

    def cast(leaf: Any) -> Any:
        floating = jnp.issubdtype(jnp.asarray(leaf).dtype, jnp.floating)
        return jnp.asarray(leaf).astype(dtype) if floating else leaf

    return jax.tree.map(cast, tree)


def make_train_step(
    policy_fn: PolicyFn,
    tx: optax.GradientTransformation,
    loss_fn: LossFn,
    *,
    micro_batch_size: int | None = None,
    compute_dtype: Any = None,
    remat: bool = False,
    trainable: Any = None,
) -> TrainStep:
    """A pure function that applies one optimizer update; wrap it in `jit_train_step`.

    The objective is (sum of `loss.total`) / (sum of `loss.weight`) over all rows of the
    batch. Sums of losses, weights, metrics and gradients are added over micro-batches
    and divided once, so the cut into micro-batches changes rounding only. The weight is
    a constant of the batch: no gradient flows through it. A loss that relates rows to
    each other (a mean per trajectory, say) must have that put into the weights before
    the batch is cut, as `stepjax.trajectory_weights` does.

    Micro-batch k holds rows k, k + n, k + 2n, ... of a batch of n micro-batches, so
    that a batch sharded by rows needs no communication to be cut. Micro-batches without
    a row of non-zero weight are skipped at run time; their number does not recompile.
    `stepjax.batching` places rows so that as many as possible are skipped.

    A batch may be grouped (`stepjax.batching.group_rows`): its prompts lead with [Q],
    everything else with [Q, G]. The policy then gets `action_tokens` [Q, G, A] and
    answers in that shape, and the loss gets the Q * G rows. A batch may also be a tuple
    of batches, added up as micro-batches are.

    Given the parameters of a reference policy, the step reads each micro-batch with
    them too, groups as groups, and the loss gets what that says of the tokens. No
    gradient is taken of it.

    A batch without weight leaves the state as it was. So does one whose loss, gradient
    or updated parameters are not finite: `metrics["nonfinite"]` is then 1, and the
    caller still holds the last good state.

    Args:
      policy_fn: `(params, prompt, action_tokens [S, A], token_mask [S, A])` to
        `PolicyOutput`.
      tx: Optimizer; clip gradients there.
      loss_fn: `(policy_output, batch)` to `LossOutput`, un-divided sums over the rows
        it is given. With a reference `(policy_output, batch, ref_log_prob)`, the last
        [S, A] float32.
      micro_batch_size: Rows in one forward and backward pass; None takes the whole
        batch. It must divide the rows of every batch.
      compute_dtype: Dtype parameters are cast to for the forward pass, for example
        `jnp.bfloat16`; None keeps theirs. Gradients, sums and the loss are float32.
      remat: Recompute the policy's activations in the backward pass instead of
        holding them (`jax.checkpoint`).
      trainable: Pytree of bools, which parameters learn (`trainable_mask`); None for
        all. The others get no gradient. `init_train_state` needs the same.

    Returns:
      `train_step(state, batch, reference=None) -> (state, metrics)`, `reference` being
      parameters as in `state`, of any dtype. Metrics are [] float32: `loss`,
      `grad_norm` (before the optimizer), `param_norm` (after, of parameters that
      learn), `rows` (with weight),
      `updates` (1 if applied), `nonfinite`, and the means of the loss's own sums.

    Raises:
      ValueError: If `micro_batch_size` is below 1; at trace time, if it does not divide
        the rows of the batch, or if `loss_fn` returns a metric under one of the names
        above.
    """
    if micro_batch_size is not None and micro_batch_size < 1:
        raise ValueError(
            f"micro_batch_size must be at least 1, got {micro_batch_size}; "
            "pass None for the whole batch in one pass."
        )
    forward = jax.checkpoint(policy_fn) if remat else policy_fn

    def evaluate(run: PolicyFn, params: Any, batch: StepBatch) -> PolicyOutput:
        params = cast_floating(params, compute_dtype)
        output = run(params, batch.prompt, batch.action_tokens, batch.token_mask)
        rows = (batch.weight.size, batch.token_mask.shape[-1])
        output = jax.tree.map(lambda x: x.reshape(rows), output)
        return cast_floating(output, jnp.float32)

    def objective(trained: Any, frozen: Any, batch: StepBatch, *from_reference) -> Any:
        output = evaluate(forward, merge_params(trained, frozen), batch)
        result = loss_fn(output, _as_rows(batch), *from_reference)
        return result.loss.total, result

    def sums(params: Any, batch: StepBatch) -> tuple[Any, LossOutput]:
        trained, frozen, reference = params
        said = ()
        if reference is not None:
            said = (evaluate(policy_fn, reference, batch).log_prob,)
        grads, result = jax.grad(objective, has_aux=True)(trained, frozen, batch, *said)
        return cast_floating((grads, result), jnp.float32)

    def train_step(
        state: TrainState, batch: Batch, reference: Any = None
    ) -> tuple[TrainState, Metrics]:
        old, frozen = split_params(state.params, trainable)
        params = (old, frozen, reference)
        grads, result = _sum_parts(sums, params, batch, micro_batch_size)
        clashes = sorted(set(result.metrics) & set(_OWN_METRICS))
        if clashes:
            raise ValueError(
                f"loss_fn returned metrics named {clashes}, which the train step logs "
                "itself; rename them."
            )
        weight = result.loss.weight
        live = weight > 0
        safe = jnp.where(live, weight, 1.0)
        loss = jnp.where(live, result.loss.total / safe, 0.0)
        grads = jax.tree.map(
            lambda g, p: jnp.where(live, g / safe, 0.0).astype(p.dtype),
            grads,
            old,
        )
        updates, opt_state = tx.update(grads, state.opt_state, old)
        params = optax.apply_updates(old, updates)
        grad_norm = optax.tree.norm(cast_floating(grads, jnp.float32))
        param_norm = optax.tree.norm(cast_floating(params, jnp.float32))
        finite = jnp.all(jnp.isfinite(jnp.stack([weight, loss, grad_norm, param_norm])))
        applied = live & finite
        params, opt_state = jax.tree.map(
            lambda new, old: jnp.where(applied, new, old),
            (params, opt_state),
            (old, state.opt_state),
        )
        new_state = dataclasses.replace(
            state,
            step=state.step + applied,
            params=merge_params(params, frozen),
            opt_state=opt_state,
        )
        metrics = {
            "loss": loss,
            "grad_norm": grad_norm,
            "param_norm": param_norm,
            "rows": sum(jnp.sum(part.weight != 0) for part in batch_parts(batch)),
            "updates": applied,
            "nonfinite": ~finite,
        } | {name: _mean(value) for name, value in result.metrics.items()}
        return new_state, {k: v.astype(jnp.float32) for k, v in metrics.items()}

    return train_step


def _mean(value: WeightedSum) -> jax.Array:
    has_weight = value.weight > 0
    return jnp.where(
        has_weight, value.total / jnp.where(has_weight, value.weight, 1.0), 0.0
    )


def _as_rows(batch: StepBatch) -> StepBatch:
    """A grouped batch [Q, G] as Q * G rows; the repeated prompts cost only if used."""
    if batch.weight.ndim == 1:
        return batch
    size = batch.weight.shape[1]
    rows = jax.tree.map(
        lambda x: x.reshape(-1, *x.shape[2:]), dataclasses.replace(batch, prompt=None)
    )
    prompt = jax.tree.map(lambda x: jnp.repeat(x, size, axis=0), batch.prompt)
    return dataclasses.replace(rows, prompt=prompt)


def _sum_parts(
    sums: Callable[[Any, StepBatch], Any],
    params: Any,
    batch: Batch,
    micro_batch_size: int | None,
) -> Any:
    """`sums(params, part)`, added up over the parts of a batch."""
    parts = batch_parts(batch)
    if len(parts) == 1:
        return _accumulate(sums, params, parts[0], micro_batch_size)
    totals = [
        _accumulate(sums, params, part, micro_batch_size, skip=True) for part in parts
    ]
    return jax.tree.map(lambda *leaves: sum(leaves[1:], leaves[0]), *totals)


def _accumulate(
    sums: Callable[[Any, StepBatch], Any],
    params: Any,
    batch: StepBatch,
    micro_batch_size: int | None,
    skip: bool = False,
) -> Any:
    """`sums(params, batch)`, added up over the micro-batches that hold weight."""
    rows = batch.weight.shape[0]
    size = rows if micro_batch_size is None else micro_batch_size
    if rows % size:
        raise ValueError(
            f"batch has {rows} rows, not divisible by micro_batch_size {size}; "
            "pad batches to a multiple of it."
        )
    count = rows // size
    if count == 1 and not skip:
        return sums(params, batch)
    parts = jax.tree.map(lambda x: x.reshape(size, count, *x.shape[1:]), batch)
    live = parts.weight != 0  # [size, count], with a third axis in groups
    occupied = jnp.any(live, axis=(0, *range(2, live.ndim)))
    order = jnp.argsort(~occupied, stable=True)

    def part(index: jax.Array) -> StepBatch:
        return jax.tree.map(
            lambda x: jax.lax.dynamic_index_in_dim(x, index, axis=1, keepdims=False),
            parts,
        )

    def add(i: jax.Array, total: Any) -> Any:
        return jax.tree.map(jnp.add, total, sums(params, part(order[i])))

    zero = jax.tree.map(
        lambda x: jnp.zeros(x.shape, x.dtype),
        jax.eval_shape(lambda: sums(params, part(order[0]))),
    )
    return jax.lax.fori_loop(0, jnp.sum(occupied), add, zero)


class ShardedTrainStep:
    """A compiled train step that donates its state; made by `jit_train_step`.

    Attributes:
      jitted: The `jax.jit` object, for `.lower(...)` and ahead-of-time compilation. A
        reference, if there is one, is its third argument.
      reference: Parameters of the reference policy, or None.
    """

    def __init__(
        self,
        jitted: Any,
        batch_sharding: jax.sharding.NamedSharding,
        reference: Any = None,
    ):
        self.jitted = jitted
        self.reference = reference
        self._batch_sharding = batch_sharding

    def __call__(self, state: TrainState, batch: Batch) -> tuple[TrainState, Metrics]:
        """The state after one update, and metrics; `state` must not be used again."""
        for part in batch_parts(batch):
            check_rows(part.weight.shape[0], self._batch_sharding)
        more = () if self.reference is None else (self.reference,)
        return self.jitted(state, batch, *more)


def jit_train_step(
    train_step: TrainStep,
    *,
    state_sharding: Any,
    batch_sharding: jax.sharding.NamedSharding,
    reference: Any = None,
) -> ShardedTrainStep:
    """`train_step`, compiled for a mesh, with its state donated.

    Args:
      train_step: From `make_train_step`.
      state_sharding: `TrainState` of `NamedSharding`s (`infer_state_sharding`).
      batch_sharding: Sharding of the leading axis of every batch leaf
        (`stepjax.training.sharding.batch_sharding`).
      reference: Parameters of a reference policy, where those of the state are, or
        None. An argument of the program, each device its part: constants of a program
        are whole on all.

    Returns:
      A callable `(state, batch) -> (state, metrics)`. The state passed in is donated
      and must not be used afterwards. Batches may be numpy; on several hosts place
      them first with `shard_batch`. It raises ValueError for a batch whose rows the
      devices of the batch axes do not divide.
    """
    more = () if reference is None else (state_sharding.params,)
    everywhere = jax.sharding.NamedSharding(
        batch_sharding.mesh, jax.sharding.PartitionSpec()
    )
    jitted = jax.jit(
        train_step,
        in_shardings=(state_sharding, batch_sharding, *more),
        out_shardings=(state_sharding, everywhere),
        donate_argnums=0,
    )
    return ShardedTrainStep(jitted, batch_sharding, reference)
