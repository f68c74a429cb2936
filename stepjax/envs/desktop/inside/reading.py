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
_MARGIN_OF_MUCH = 10.0
_PATIENCE = 5.0
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
        self._half = bytearray()
        self._number = 0
        self._owed: float | None = None  # since when an answer is due

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
        answer = self._ask(question, seconds, _MARGIN_OF_MUCH)
        if answer is None:
            raise TimeoutError("the widgets could not be read in time")
        return answer

    def _ask(
        self, question: dict[str, Any], seconds: float, margin: float = _MARGIN
    ) -> dict[str, Any] | None:
        """The process's answer, or None if it does not come in time."""
        end = time.monotonic() + seconds + margin
        if not self._lock.acquire(timeout=seconds + margin):
            return None
        try:
            process = self._running()
            if self._fresh:
                end += _START_SECONDS
            self._number += 1
            self._owed = self._owed or time.monotonic()
            question = {**question, "seconds": seconds, "number": self._number}
            process.stdin.write(json.dumps(question).encode() + b"\n")
            while True:
                answer = json.loads(self._line(process.stdout, end))
                self._fresh, self._owed = False, None
                if answer["number"] == self._number:
                    return answer
        except TimeoutError:
            # A busy machine's late answer is thrown away next time; a process that
            # has hung is replaced.
            if time.monotonic() - (self._owed or end) > _PATIENCE + seconds:
                self._end()
            return None
        except (OSError, ValueError, KeyError):
            self._end()
            return None
        finally:
            self._lock.release()

    def _end(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()
        self._process = None

    def _line(self, pipe: Any, end: float) -> bytes:
        """A line from the process, by a time; half a line is kept for the next call."""
        while b"\n" not in self._half:
            left = end - time.monotonic()
            if left <= 0 or not select.select([pipe], [], [], left)[0]:
                raise TimeoutError
            part = pipe.read(1 << 20)
            self._half += part
            if not part or len(self._half) > _MOST_BYTES:
                raise ValueError("the reading process has ended")
        line, _, rest = bytes(self._half).partition(b"\n")
        self._half = bytearray(rest)
        return line

    def _running(self) -> Any:
        if self._process is None or self._process.poll() is not None:
            self._fresh, self._half, self._owed = True, bytearray(), None
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
