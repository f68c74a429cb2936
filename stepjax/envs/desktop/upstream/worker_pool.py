"""Worker processes, started when calls need them and kept."""

import contextlib
import threading
from collections.abc import Callable, Iterator

from stepjax.envs.desktop.upstream.errors import UpstreamError
from stepjax.envs.desktop.upstream.process import WorkerProcess

__all__ = ["WorkerPool"]


class WorkerPool:
    """Workers to borrow, one call each at a time.

    Args:
      start: Starts one worker.
      size: Most workers.

    Raises:
      ValueError: If `size` is below 1.
    """

    def __init__(self, start: Callable[[], WorkerProcess], *, size: int):
        if size < 1:
            raise ValueError(f"workers must be >= 1, got {size}.")
        self._start, self._size = start, size
        self._changed = threading.Condition()
        self._idle: list[WorkerProcess] = []
        self._busy: set[WorkerProcess] = set()
        self._starting = 0
        self._closed = False

    @contextlib.contextmanager
    def borrow(self, timeout: float) -> Iterator[WorkerProcess]:
        """A worker for one call; it comes back if it is still alive.

        Args:
          timeout: Seconds to wait for a free one; starting one is not counted.

        Raises:
          UpstreamError: If none is free in time, or a new one does not start.
        """
        worker = self._take(timeout)
        try:
            yield worker
        finally:
            with self._changed:
                self._busy.discard(worker)
                if worker.alive() and not self._closed:
                    self._idle.append(worker)
                self._changed.notify()

    def close(self) -> None:
        """End every worker, also those that are busy; never raises."""
        with self._changed:
            self._closed = True
            workers = [*self._idle, *self._busy]
            self._idle.clear()
            self._changed.notify_all()
        for worker in workers:
            worker.close()

    def _take(self, timeout: float) -> WorkerProcess:
        with self._changed:
            ready = self._changed.wait_for(
                lambda: self._closed or self._idle or self._room() > 0, timeout
            )
            if self._closed:
                raise UpstreamError("the evaluators are closed")
            if not ready:
                raise UpstreamError(
                    f"no evaluator was free within {timeout:g} s ({self._size} in all)"
                )
            if self._idle:
                worker = self._idle.pop()
                self._busy.add(worker)
                return worker
            self._starting += 1
        return self._add()

    def _add(self) -> WorkerProcess:
        try:
            worker = self._start()
        except BaseException:
            with self._changed:
                self._starting -= 1
                self._changed.notify()
            raise
        with self._changed:
            self._starting -= 1
            self._busy.add(worker)
            closed = self._closed
        if closed:
            worker.close()
            raise UpstreamError("the evaluators are closed")
        return worker

    def _room(self) -> int:
        return self._size - len(self._idle) - len(self._busy) - self._starting
