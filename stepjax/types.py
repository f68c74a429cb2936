"""The pytrees that cross module borders.

Shape letters: T tasks in the pool, B tasks in a round, N trajectories per task,
M = B * N trajectories, L steps of a trajectory (padded), S step samples of a batch,
A action tokens of a step (padded), G members of a group, W widgets on a screen,
K words of a widget, I words of an instruction, H remembered actions.

Every mask is True for real entries. Every class is a frozen dataclass registered as
a pytree: field names are part of the checkpoint format.
"""

import dataclasses
from typing import Any

import jax

__all__ = [
    "LossOutput",
    "PolicyOutput",
    "ScreenPrompt",
    "ScreenshotPrompt",
    "StepBatch",
    "SuccessRateRecord",
    "Trajectories",
    "WeightedSum",
]


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True, kw_only=True)
class SuccessRateRecord:
    """Smoothed success rate of every task, kept across rounds and checkpoints.

    Attributes:
      rate: [T] float32. Smoothed success rate, a probability.
      visits: [T] int32. Valid trajectories counted so far; for logs only.
    """

    rate: jax.Array  # [T] float32
    visits: jax.Array  # [T] int32


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True, kw_only=True)
class StepBatch:
    """Step samples for one optimizer update, padded to a fixed number of rows.

    Attributes:
      prompt: Pytree with leading axis S: what the policy saw at the step.
      action_tokens: [S, A] int32. Tokens of the action taken.
      token_mask: [S, A] bool. True for tokens the policy chose.
      old_log_prob: [S, A] float32. Log-probability of each token when it was sampled.
      advantage: [S] float32. Advantage of the step.
      weight: [S] float32. Multiplier of the row in the loss; 0 marks padding.
      task_id: [S] int32. Task the step belongs to.
      trajectory_id: [S] int32. Trajectory the step belongs to, unique in the batch's
        round; rows of one trajectory share it.
      sampler_log_prob: [S, A] float32, or None. What an outside sampler reported, where
        `old_log_prob` is the trainer's own.
    """

    prompt: Any
    action_tokens: jax.Array  # [S, A] int32
    token_mask: jax.Array  # [S, A] bool
    old_log_prob: jax.Array  # [S, A] float32
    advantage: jax.Array  # [S] float32
    weight: jax.Array  # [S] float32
    task_id: jax.Array  # [S] int32
    trajectory_id: jax.Array  # [S] int32
    sampler_log_prob: jax.Array | None = None  # [S, A] float32


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True, kw_only=True)
class Trajectories:
    """One round of trajectories padded to L steps, whatever backend they come from.

    Attributes:
      task_id: [M] int32. Task actually run.
      prompt: Pytree with leading axes [M, L]: what the policy saw at each step.
      action_tokens: [M, L, A] int32.
      token_mask: [M, L, A] bool.
      log_prob: [M, L, A] float32. Under the sampling distribution, at sampling time.
      step_mask: [M, L] bool. True for steps that happened.
      state_hash: [M, L] uint32. Equal hashes mean equal environment states.
      reward: [M] float32, in [0, 1]. Given once, at the end.
      valid: [M] bool. False if the environment failed: the trajectory counts nowhere.
    """

    task_id: jax.Array  # [M] int32
    prompt: Any
    action_tokens: jax.Array  # [M, L, A] int32
    token_mask: jax.Array  # [M, L, A] bool
    log_prob: jax.Array  # [M, L, A] float32
    step_mask: jax.Array  # [M, L] bool
    state_hash: jax.Array  # [M, L] uint32
    reward: jax.Array  # [M] float32
    valid: jax.Array  # [M] bool


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True, kw_only=True)
class ScreenPrompt:
    """A screen and an instruction as small arrays: the pointer policy's input.

    Words are hashed ids (`stepjax.envs.words.word_id`); 0 is padding.

    Attributes:
      words: [I] int32. Words of the instruction, in order.
      clause: [I] int32. Which clause of the instruction each word stands in, from 0.
      widget_words: [W, K] int32. Label of each widget, then its value.
      widget_role: [W] int32. A `stepjax.envs.words.ROLES` index.
      widget_state: [W] int32. Bits: 1 on or selected, 2 focused, 4 disabled.
      widget_box: [W, 4] float32. Left, top, right, bottom as shares of the screen.
      widget_mask: [W] bool. True for real widgets.
      history_kind: [H] int32. Kind of the latest actions, newest first; -1 for none.
      history_words: [H, K] int32. Label of what each was aimed at, then text typed.
    """

    words: jax.Array  # [I] int32
    clause: jax.Array  # [I] int32
    widget_words: jax.Array  # [W, K] int32
    widget_role: jax.Array  # [W] int32
    widget_state: jax.Array  # [W] int32
    widget_box: jax.Array  # [W, 4] float32
    widget_mask: jax.Array  # [W] bool
    history_kind: jax.Array  # [H] int32
    history_words: jax.Array  # [H, K] int32


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True, kw_only=True)
class ScreenshotPrompt:
    """A picture of a screen and an instruction: the screenshot policy's input.

    Words are hashed ids (`stepjax.envs.words.word_id`); 0 is padding.

    Attributes:
      screenshot: [height, width, 3] uint8. The screen, scaled down.
      words: [I] int32. Words of the instruction, in order.
      clause: [I] int32. Which clause of the instruction each word stands in, from 0.
      history_kind: [H] int32. Kind of the latest actions, newest first; -1 for none.
      history_place: [H, 2] float32. Where each was done, as shares of the screen from
        the left and from the top; -1 for nowhere.
      history_word: [H] int32. What each typed or pressed, as one word; 0 for nothing.
    """

    screenshot: jax.Array  # [height, width, 3] uint8
    words: jax.Array  # [I] int32
    clause: jax.Array  # [I] int32
    history_kind: jax.Array  # [H] int32
    history_place: jax.Array  # [H, 2] float32
    history_word: jax.Array  # [H] int32


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True, kw_only=True)
class PolicyOutput:
    """What a policy says about the action tokens of a batch of steps.

    Attributes:
      log_prob: [S, A] float32. Log-probability of each token; 0 where masked.
      entropy: [S, A] float32. Entropy of each token's distribution, in nats; 0 where
        masked.
    """

    log_prob: jax.Array  # [S, A] float32
    entropy: jax.Array  # [S, A] float32


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True, kw_only=True)
class WeightedSum:
    """A sum and its weight: means that combine exactly over parts of a batch.

    Attributes:
      total: [] float32. Weighted sum.
      weight: [] float32. Sum of the weights.
    """

    total: jax.Array  # [] float32
    weight: jax.Array  # [] float32


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True, kw_only=True)
class LossOutput:
    """What a loss returns: the objective and what to log, all still un-divided.

    Attributes:
      loss: Sum of token losses and sum of token weights.
      metrics: Further sums by name.
    """

    loss: WeightedSum
    metrics: dict[str, WeightedSum]
