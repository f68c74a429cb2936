"""The worker process: started, asked with a deadline, ended."""

import collections
import json
import os
import queue
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from stepjax.envs.desktop.upstream.errors import UpstreamError

__all__ = ["WorkerProcess"]

MAX_ANSWER_BYTES = 64 << 20
"""Longest answer: a screenshot in base64 fits many times over."""

_KILL_SECONDS = 10.0
_TAIL_LINES = 20


class WorkerProcess:
    """One worker that answers one call at a time.

    Args:
      command: Its command line.
      environment: Its environment; None to inherit this process's.
      start_timeout: Seconds until it must be ready; importing takes several.

    Attributes:
      version: Of upstream's package.

    Raises:
      UpstreamError: If it does not start. Nothing is left running.
    """

    def __init__(
        self,
        command: Sequence[str],
        *,
        environment: Mapping[str, str] | None = None,
        start_timeout: float = 120.0,
    ):
        self._lines: queue.Queue[bytes | None] = queue.Queue()
        self._tail: collections.deque[str] = collections.deque(maxlen=_TAIL_LINES)
        self._started: queue.Queue[BaseException | None] = queue.Queue()
        self._process: subprocess.Popen[bytes] | None = None
        self._calls = 0
        self._dead = ""
        # The kernel takes a sandbox down with the *thread* that started it, so that
        # must be one which lives as long as the process.
        threading.Thread(
            target=self._run,
            args=(list(command), dict(environment) if environment else None),
            name="evaluators",
            daemon=True,
        ).start()
        error = self._started.get()
        if error is not None:
            raise UpstreamError(f"cannot start the evaluators: {error}") from error
        self.version = self._greet(start_timeout)

    def alive(self) -> bool:
        """True while it can be asked."""
        return not self._dead and self._process is not None

    def call(
        self,
        name: str,
        request: Mapping[str, Any],
        *,
        timeout: float = 120.0,
        on_pause: Callable[[], Any] | None = None,
    ) -> Any:
        """Answer to one request.

        Args:
          name: What is asked.
          request: Its arguments, JSON.
          timeout: Seconds until an answer must be there.
          on_pause: What to do whenever the worker pauses; if it raises, so does the
            call. None if the worker may not pause.

        Raises:
          UpstreamError: If it answers with an error (the worker lives on), or not in
            time, or with anything but an answer (the worker is ended).
        """
        self._calls += 1
        deadline = time.monotonic() + timeout
        self._send(name, {**request, "id": self._calls, "call": name})
        answer = self._next(name, deadline, timeout)
        while on_pause is not None and answer == {"id": self._calls, "pause": True}:
            goes_on = False
            try:
                on_pause()
                goes_on = True
            finally:
                self._send(name, {"go": goes_on})
                answer = self._next(name, deadline, timeout)
        if answer.get("id") != self._calls or not {"value", "error"} & answer.keys():
            raise self._give_up(f"'{name}' got an answer to something else")
        if "error" in answer:
            raise UpstreamError(f"{name}: {_clean(str(answer['error']))}")
        return answer["value"]

    def close(self) -> None:
        """End it, whatever it is doing; never raises, may be called twice."""
        process, self._process = self._process, None
        self._dead = self._dead or "closed"
        if process is None:
            return
        try:
            os.killpg(process.pid, signal.SIGKILL)
        except ProcessLookupError:
            pass  # it ended by itself
        try:
            process.wait(_KILL_SECONDS)
        except subprocess.TimeoutExpired:
            return  # in the kernel's hands; nothing more can be done from here
        for stream in (process.stdin, process.stdout, process.stderr):
            if stream is not None:
                try:
                    stream.close()
                except OSError:
                    pass  # a request it never read is lost with it

    def _greet(self, timeout: float) -> str:
        hello = self._next("starting", time.monotonic() + timeout, timeout)
        if hello.get("ready") is True:
            return str(hello.get("upstream", ""))
        raise self._give_up(f"not ready: {_clean(str(hello.get('why', hello)))}")

    def _send(self, name: str, message: dict[str, Any]) -> None:
        stream = self._process.stdin if self._process is not None else None
        if self._dead or stream is None:
            raise UpstreamError(f"the evaluators have ended: {self._dead}")
        try:
            stream.write((json.dumps(message) + "\n").encode())
            stream.flush()
        except (OSError, ValueError) as error:  # ended, or closed by another thread
            raise self._give_up(f"'{name}' could not be asked: {error}") from error

    def _next(self, name: str, deadline: float, timeout: float) -> dict[str, Any]:
        try:
            line = self._lines.get(timeout=max(deadline - time.monotonic(), 0.0))
        except queue.Empty:
            raise self._give_up(f"'{name}' took longer than {timeout:g} s") from None
        if line is None:
            raise self._give_up(f"it ended during '{name}'")
        try:
            answer = json.loads(line)
        except (ValueError, RecursionError):
            answer = None
        if not isinstance(answer, dict):
            shown = _clean(line[:80].decode(errors="replace"))
            raise self._give_up(f"'{name}' got something that is no answer: {shown!r}")
        return answer

    def _give_up(self, why: str) -> UpstreamError:
        """End the worker; the error that says why, with its last words."""
        words = _clean(self._tail[-1]) if self._tail else ""
        self._dead = why
        self.close()
        return UpstreamError(
            f"evaluators: {why}" + (f" (last words: {words})" if words else "")
        )

    def _run(self, command: list[str], environment: dict[str, str] | None) -> None:
        try:
            process = subprocess.Popen(
                command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                env=environment,
                start_new_session=True,
            )
        except OSError as error:
            self._started.put(error)
            return
        self._process = process
        words = threading.Thread(target=self._listen, args=(process,), daemon=True)
        words.start()
        self._started.put(None)
        self._collect(process)

    def _collect(self, process: subprocess.Popen[bytes]) -> None:
        stream = process.stdout
        try:
            while stream is not None:
                line = stream.readline(MAX_ANSWER_BYTES)
                if not line:
                    break
                self._lines.put(line)
        except (OSError, ValueError) as error:  # closed under the reader by `close`
            self._tail.append(str(error))
        self._lines.put(None)

    def _listen(self, process: subprocess.Popen[bytes]) -> None:
        try:
            while process.stderr is not None:
                line = process.stderr.readline(4096)
                if not line:
                    return
                if line.strip():
                    self._tail.append(line.decode(errors="replace"))
        except (OSError, ValueError) as error:  # closed under the reader by `close`
            self._tail.append(str(error))


def _clean(text: str) -> str:
    """One printable line; what a worker writes may come from the agent's files."""
    line = " ".join(text.split())
    return "".join(c if c.isprintable() else "?" for c in line)[:300]
