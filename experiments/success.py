"""What counts as success, everywhere in a run: the whole reward."""

from typing import TypeVar

__all__ = ["solved"]

_WHOLE = 1.0 - 1e-6  # scores are float32 sums of shares in some benchmarks

Rewards = TypeVar("Rewards")


def solved(reward: Rewards) -> Rewards:
    """Whether each reward is a success: 1, not a share of it.

    OSWorld and AndroidWorld give shares for some tasks. A share is a reward, so that it
    counts in advantages and in mean scores, but it does not count as solved.

    Args:
      reward: [...] float, in [0, 1]. An array of numpy or jax.

    Returns:
      [...] bool.
    """
    return reward >= _WHOLE  # pyright: ignore[reportOperatorIssue]
