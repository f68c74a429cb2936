"""SIGTERM and SIGINT: at once while nothing is lost, else when the state is whole."""

import contextlib
import signal
import sys
import threading
from collections.abc import Iterator
from types import FrameType

__all__ = ["StopWish", "stop_on_signals"]


class StopWish:
    """Whether somebody asked the run to stop.

    Attributes:
      asked: True from the first signal on.
      at_once: Whether a signal ends the process there and then, with code 0. True
        before the first round and after the last.
    """

    def __init__(self):
        """Nobody has asked yet."""
        self.asked = False
        self.at_once = True


@contextlib.contextmanager
def stop_on_signals() -> Iterator[StopWish]:
    """A block in which SIGTERM and SIGINT are granted when it does no harm.

    A second signal interrupts as usual. Outside the main thread, where Python takes no
    signals, nobody ever asks.

    Yields:
      The wish.

    Raises:
      SystemExit: With code 0, on a signal while `at_once` is True.
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
        if wish.at_once:
            sys.exit(0)

    for kind in kinds:
        signal.signal(kind, note)
    try:
        yield wish
    finally:
        for kind in kinds:
            signal.signal(kind, before[kind])
