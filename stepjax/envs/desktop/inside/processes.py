"""Programs on the desktop: started detached, or waited for until a deadline."""

import os
import shlex
import signal
import subprocess
import tempfile
import time
from typing import Any

__all__ = ["Finished", "Programs", "command_line"]

_MOST_OUTPUT = 8 << 20


class Finished:
    """How a program ended.

    Attributes:
      returncode: Its exit status, negative for a signal.
      output: What it wrote to standard output.
      error: What it wrote to standard error.
      timed_out: Ended by us because its time was up.
    """

    def __init__(self, returncode: int, output: str, error: str, timed_out: bool):
        self.returncode = returncode
        self.output = output
        self.error = error
        self.timed_out = timed_out


def command_line(command: Any, shell: Any = False) -> list[str]:
    """Arguments of a program from what a request says.

    Args:
      command: A list of words, or one string.
      shell: The string is for the shell; else it is only split at blanks and quotes.

    Raises:
      ValueError: If it is neither, or empty.
    """
    if isinstance(command, list) and all(isinstance(word, str) for word in command):
        # What `sh -c` makes of a list is its first word as script; so did upstream.
        words = ["/bin/sh", "-c", *command] if shell else list(command)
    elif isinstance(command, str):
        words = ["/bin/sh", "-c", command] if shell else shlex.split(command)
    else:
        raise ValueError("command must be a list of strings, or a string")
    if not words or (shell and len(words) < 3):
        raise ValueError("command must not be empty")
    if any("\0" in word for word in words):
        raise ValueError("command must not hold a zero character")
    start = 2 if shell else 0
    return words[:start] + [
        os.path.expanduser(word) if word.startswith("~/") else word
        for word in words[start:]
    ]


class Programs:
    """Starts programs as the desktop's user.

    Args:
      env: Environment of every program.
    """

    def __init__(self, env: dict[str, str]):
        self._env = env

    def launch(self, words: list[str]) -> "subprocess.Popen[bytes]":
        """Start a program and let it run, in a session of its own, without output.

        Args:
          words: The program and its arguments.

        Raises:
          OSError: If it cannot be started.
        """
        return self._start(words, subprocess.DEVNULL, subprocess.DEVNULL, None)

    def run(
        self, words: list[str], *, timeout: float, cwd: str | None = None
    ) -> Finished:
        """Start a program and wait for it, but not for what it leaves running.

        Output goes into files, not pipes: a program left in the background with our
        standard output would keep a pipe open for as long as it runs, and would die of
        a closed one.

        Args:
          words: The program and its arguments.
          timeout: Seconds until it and its children are ended.
          cwd: Folder to start it in; None for the home folder.

        Raises:
          OSError: If it cannot be started.
        """
        with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
            process = self._start(words, out, err, cwd)
            timed_out = False
            try:
                process.wait(timeout)
            except subprocess.TimeoutExpired:
                timed_out = True
                self.end_group(process)
            return Finished(process.returncode, _text(out), _text(err), timed_out)

    def end_group(
        self, process: "subprocess.Popen[bytes]", sign: int = signal.SIGKILL
    ) -> None:
        """End a program and its children that stayed in its group."""
        try:
            os.killpg(process.pid, sign)
        except ProcessLookupError:
            return
        finally:
            # One that the kernel holds on to must not hold us.
            end = time.monotonic() + 5
            while process.poll() is None and time.monotonic() < end:
                time.sleep(0.01)

    def _start(
        self, words: list[str], out: Any, err: Any, cwd: str | None
    ) -> "subprocess.Popen[bytes]":
        return subprocess.Popen(
            words,
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=err,
            env=self._env,
            cwd=cwd or self._env["HOME"],
            start_new_session=True,
        )


def _text(file: Any) -> str:
    """The start of a file as text, with line ends as Python's text mode makes them."""
    file.seek(0)
    text = file.read(_MOST_OUTPUT).decode("utf-8", "replace")
    return text.replace("\r\n", "\n").replace("\r", "\n")
