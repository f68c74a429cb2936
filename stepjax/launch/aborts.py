"""What a process says when CPU collectives abort it.

Between CPUs, jax sends through gloo. If a process dies in the middle of a collective,
gloo may end the others by `abort()` in a thread of its own before Python hears of any
error: they would end without a word of what happened.
"""

import contextlib
import ctypes
import os
import signal
import sys
from collections.abc import Callable, Iterator

__all__ = ["explained_aborts"]

_Handler = ctypes.CFUNCTYPE(None, ctypes.c_int)


@contextlib.contextmanager
def explained_aborts(explain: Callable[[], str | None]) -> Iterator[None]:
    """A block in which an abort prints a line and ends the process with code 1.

    A handler of `signal.signal` would wait for the main thread, which an abort does
    not; this one runs in the thread that aborts.

    Args:
      explain: The line, or None if it cannot tell; the abort then is what it always is.

    Yields:
      Nothing.

    Example:
      >>> with explained_aborts(lambda: None):
      ...     pass
    """

    def on_abort(number: int) -> None:
        del number
        line = explain()
        if line is not None:
            print(line, file=sys.stderr, flush=True)
            os._exit(1)

    handler = _Handler(on_abort)
    install = ctypes.CDLL(None).signal
    install.restype, install.argtypes = ctypes.c_void_p, [ctypes.c_int, ctypes.c_void_p]
    before = install(signal.SIGABRT, ctypes.cast(handler, ctypes.c_void_p))
    try:
        yield
    finally:
        install(signal.SIGABRT, before)
