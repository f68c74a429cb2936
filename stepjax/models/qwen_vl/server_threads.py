"""Calls in threads that nobody waits for: a process ends while they still listen."""

import queue
import threading
import weakref
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any

__all__ = ["Threads"]


class Threads:
    """Like an executor of the standard library, whose threads a process waits for."""

    def __init__(self, most: int):
        """No thread yet; each call starts one while there are fewer than `most`."""
        self._most, self._started = most, 0
        self._calls: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self._end = weakref.finalize(self, self._calls.put, None)

    def submit(self, call: Callable[..., Any], *args: Any) -> Future[Any]:
        """What `call(*args)` will have returned or raised."""
        future: Future[Any] = Future()
        self._calls.put((future, call, args))
        if self._started < self._most:
            self._started += 1
            threading.Thread(
                target=_work,
                args=(self._calls,),
                name=f"stepjax-server-{self._started}",
                daemon=True,
            ).start()
        return future

    def close(self) -> None:
        """End the threads, each after the call that it is at."""
        self._end()


def _work(calls: "queue.SimpleQueue[Any]") -> None:
    while (job := calls.get()) is not None:
        future, call, args = job
        if future.set_running_or_notify_cancel():
            try:
                future.set_result(call(*args))
            except BaseException as error:  # noqa: BLE001 (it is raised by `result`)
                future.set_exception(error)
        del job, future, call, args  # what they hold is free while nothing is asked
    calls.put(None)  # to the next thread
