"""How phones are driven: patience, pace, and what is looked at."""

import dataclasses

from stepjax.envs.pool import Deadlines

__all__ = ["DEADLINES", "AndroidWorldSettings", "CallSeconds"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class CallSeconds:
    """Most seconds of a call to AndroidWorld's server.

    Attributes:
      quick: Questions it answers from memory; it may be busy with something else.
      suite: Making a suite.
      initialize: Setting a task up.
      tear_down: Clearing it away.
      reset: Going home.
      action: One action.
      score: Judging.
      screenshot: The screen; at 1080 x 2400 the server alone needs half a minute.

    Raises:
      ValueError: If one is not positive.
    """

    quick: float = 60.0
    suite: float = 120.0
    initialize: float = 300.0
    tear_down: float = 180.0
    reset: float = 120.0
    action: float = 90.0
    score: float = 180.0
    screenshot: float = 400.0

    def __post_init__(self):
        """Check the fields."""
        for field in dataclasses.fields(self):
            if not getattr(self, field.name) > 0:
                raise ValueError(
                    f"CallSeconds.{field.name} must be > 0 seconds, got "
                    f"{getattr(self, field.name)}."
                )


@dataclasses.dataclass(frozen=True, kw_only=True)
class AndroidWorldSettings:
    """How phones are driven.

    Attributes:
      family: Of tasks, as the server names them: "android_world", "android",
        "information_retrieval", "miniwob", "miniwob_subset".
      suite_seed: Seed of every episode's parameters, as AndroidWorld's own runs have
        (theirs is 30); None for each episode's own.
      max_steps: Most steps of an episode, whatever a task's own budget allows.
      shrink: Every how many pixels of the screen make one of the picture.
      screen: Width and height in pixels that phones must have; None for whatever the
        first shows.
      settle_seconds: Pause between an action and the look at its outcome.
      stable: Have the server wait until nothing moves before a screenshot.
      widgets: Read what is on the screen through adb; takes a second or two.
      patience: Seconds to wait for a server that was there and has gone.
      seconds: Most seconds of each call.

    Raises:
      ValueError: If a number is out of range.
    """

    family: str = "android_world"
    suite_seed: int | None = None
    max_steps: int = 60
    shrink: int = 1
    screen: tuple[int, int] | None = None
    settle_seconds: float = 1.0
    stable: bool = True
    widgets: bool = False
    patience: float = 900.0
    seconds: CallSeconds = CallSeconds()

    def __post_init__(self):
        """Check the fields."""
        if not self.family:
            raise ValueError("AndroidWorldSettings.family must not be empty.")
        for name, least in (("max_steps", 1), ("shrink", 1)):
            if getattr(self, name) < least:
                raise ValueError(
                    f"AndroidWorldSettings.{name} must be >= {least}, got "
                    f"{getattr(self, name)}."
                )
        for name in ("settle_seconds", "patience"):
            if not getattr(self, name) >= 0:
                raise ValueError(
                    f"AndroidWorldSettings.{name} must be >= 0 seconds, got "
                    f"{getattr(self, name)}."
                )
        seed = self.suite_seed
        if seed is not None and not 0 <= seed < 2**32:
            raise ValueError(
                f"AndroidWorldSettings.suite_seed must be in [0, 2**32), got {seed}."
            )
        if self.screen is not None and min(self.screen) < 1:
            raise ValueError(
                "AndroidWorldSettings.screen must be a width and a height >= 1, got "
                f"{self.screen}."
            )


DEADLINES = Deadlines(
    create=1500.0, reset=1200.0, step=600.0, evaluate=600.0, close=240.0
)
"""Seconds a pool should allow; each is longer than the calls it consists of."""
