"""How many programs jax has compiled: the test of every promise about fixed shapes."""

from typing import Any

import jax

__all__ = ["CompileCounter"]

_COMPILE_EVENT = "/jax/core/compile/backend_compile_duration"


class CompileCounter:
    """Counts the programs jax compiles from its construction on, in the whole process.

    Programs found in the persistent compilation cache count too: the number tells how
    many shapes a run met, on a first start and on a tenth alike.

    Example:
      >>> counter = CompileCounter()
      >>> _ = jax.jit(lambda x: x * 3 + 1)(jax.numpy.ones(3))
      >>> counter.count >= 1
      True
    """

    _total = 0
    _listening = False

    def __init__(self):
        if not CompileCounter._listening:
            jax.monitoring.register_event_duration_secs_listener(CompileCounter._note)
            CompileCounter._listening = True
        self._start = CompileCounter._total

    @staticmethod
    def _note(event: str, duration_secs: float, **kwargs: Any) -> None:
        del duration_secs, kwargs
        if event == _COMPILE_EVENT:
            CompileCounter._total += 1

    @property
    def count(self) -> int:
        """Compilations since this counter was made."""
        return CompileCounter._total - self._start
