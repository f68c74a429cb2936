"""The process that reads widgets, seen from the server: it may hang, we may not."""

import json
import select
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

__all__ = ["Pending", "Reader"]

_MARGIN = 0.25
_MOST_WIDGETS = 400
_MOST_BYTES = 64 << 20
_START_SECONDS = 10.0


class Pending:
    """A reading under way.

    Args:
      thread: What waits for it.
      results: Where its result will be.
    """

    def __init__(self, thread: threading.Thread, results: list[dict[str, Any]]):
        self._thread = thread
        self._results = results

    def result(self) -> dict[str, Any]:
        """Wait for the reading; what is known when its time is up."""
        self._thread.join()
        return self._results[0]


class Reader:
    """Asks the reading process, and replaces it when it does not answer in time.

    Args:
      env: Environment of the process.
    """

    def __init__(self, env: dict[str, str]):
        self._env = {**env, "PYTHONPATH": str(Path(__file__).resolve().parent.parent)}
        self._lock = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None
        self._fresh = True

    def warm_up(self) -> None:
        """Start the process before it is needed; returns at once."""
        threading.Thread(target=self._ask, args=({"kind": "ping"}, 0.0)).start()

    def start_widgets(self, size: tuple[int, int], seconds: float) -> Pending:
        """Begin to read widgets.

        Args:
          size: Width and height of the screen.
          seconds: When they have passed, what is known then is the result.
        """
        results: list[dict[str, Any]] = []
        question = {"kind": "widgets", "size": size, "most": _MOST_WIDGETS}

        def work() -> None:
            answer = self._ask(question, seconds)
            results.append(answer or {"widgets": [], "complete": False})

        thread = threading.Thread(target=work, daemon=True)
        thread.start()
        return Pending(thread, results)

    def tree(self, size: tuple[int, int], seconds: float) -> dict[str, Any]:
        """The whole tree as `xml`.

        Args:
          size: Width and height of the screen.
          seconds: Most time it may take.

        Raises:
          TimeoutError: If the reading process does not answer.
        """
        return self._must({"kind": "tree", "size": size}, seconds)

    def terminal(self, seconds: float) -> dict[str, Any]:
        """The `text` of the terminal that has the focus, or None.

        Args:
          seconds: Most time it may take.

        Raises:
          TimeoutError: If the reading process does not answer.
        """
        return self._must({"kind": "terminal"}, seconds)

    def _must(self, question: dict[str, Any], seconds: float) -> dict[str, Any]:
        answer = self._ask(question, seconds)
        if answer is None:
            raise TimeoutError("the widgets could not be read in time")
        return answer

    def _ask(self, question: dict[str, Any], seconds: float) -> dict[str, Any] | None:
        """The process's answer, or None if it had to be given up."""
        began = time.monotonic()
        with self._lock:
            process = self._running()
            wait = seconds + _MARGIN
            if self._fresh:
                wait += _START_SECONDS
            # Waiting for another reading is part of this one's time.
            end = max(began + wait, time.monotonic() + 0.1)
            question = {**question, "seconds": seconds}
            try:
                process.stdin.write(json.dumps(question).encode() + b"\n")
                process.stdin.flush()
                answer = json.loads(_line(process.stdout, end))
                self._fresh = False
            except (OSError, ValueError, TimeoutError):
                process.kill()
                process.wait()
                self._process = None
                return None
            return answer

    def _running(self) -> Any:
        if self._process is None or self._process.poll() is not None:
            self._fresh = True
            self._process = subprocess.Popen(
                [sys.executable, "-s", "-m", "inside.reader"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                env=self._env,
                cwd="/",
                start_new_session=True,
                bufsize=0,
            )
        return self._process


def _line(pipe: Any, end: float) -> bytes:
    """A line from a pipe, by a time."""
    parts: list[bytes] = []
    size = 0
    while True:
        left = end - time.monotonic()
        if left <= 0 or not select.select([pipe], [], [], left)[0]:
            raise TimeoutError
        part = pipe.read(1 << 20)
        parts.append(part)
        size += len(part)
        if not part or size > _MOST_BYTES:
            raise ValueError("no line")
        if part.endswith(b"\n"):
            return b"".join(parts)
