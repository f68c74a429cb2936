"""How an environment looks at a desktop, and how patient everyone is with it."""

import dataclasses

from stepjax.envs.pool import Deadlines

__all__ = ["DEADLINES", "DesktopSettings"]

DEADLINES = Deadlines(create=60.0, reset=180.0, step=60.0, evaluate=120.0, close=20.0)
"""Seconds for calls of desktops: applications take their time on a busy machine."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class DesktopSettings:
    """How an environment looks at a desktop, and how patient it is.

    Attributes:
      image_size: Width and height of screenshots, or None for the screen's own.
      widgets: Read the widgets too; costs up to 0.3 s a step.
      settle_ms: Milliseconds between an action and the look at what it did.
      quiet_seconds: Most seconds to wait for the programs to come to rest, after a task
        is set up and before it is judged, when one may still be loading or saving.
      take_seconds: Most seconds to wait for a desktop.

    Raises:
      ValueError: If a number is out of range.
    """

    image_size: tuple[int, int] | None = None
    widgets: bool = False
    settle_ms: int = 100
    quiet_seconds: float = 10.0
    take_seconds: float = 120.0

    def __post_init__(self):
        size = self.image_size
        if size is not None and (len(size) != 2 or min(size) < 1):
            raise ValueError(f"image_size must be (width, height) >= 1, got {size}.")
        if self.settle_ms < 0 or self.quiet_seconds < 0:
            raise ValueError(
                "settle_ms and quiet_seconds must be >= 0, got "
                f"{self.settle_ms} and {self.quiet_seconds}."
            )
        if not self.take_seconds > 0:
            raise ValueError(f"take_seconds must be > 0, got {self.take_seconds}.")
