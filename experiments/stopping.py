"""SIGTERM and SIGINT as a wish that the loop grants when its state is whole."""

import contextlib
import signal
import threading
from collections.abc import Iterator
from types import FrameType

__all__ = ["StopWish", "stop_on_signals"]


class StopWish:
    """Whether somebody asked the run to stop.

    Attributes:
      asked: True from the first signal on.
    """

    def __init__(self):
        """Nobody has asked yet."""
        self.asked = False


@contextlib.contextmanager
def stop_on_signals() -> Iterator[StopWish]:
    """A block in which the first SIGTERM or SIGINT only raises a flag.

    A second one interrupts as usual. Outside the main thread, where Python takes no
    signals, the flag stays down.

    Yields:
      The flag.
    """
    wish = StopWish()
    if threading.current_thread() is not threading.main_thread():
        yield wish
        return
    kinds = (signal.SIGTERM, signal.SIGINT)
    before = {kind: signal.getsignal(kind) for kind in kinds}

    def note(kind: int, frame: FrameType | None) -> None:
        del kind, frame
        wish.asked = True
        for each in kinds:
            signal.signal(each, before[each])

    for kind in kinds:
        signal.signal(kind, note)
    try:
        yield wish
    finally:
        for kind in kinds:
            signal.signal(kind, before[kind])
