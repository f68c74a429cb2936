"""Routes that run programs: `/execute`, launching, opening files, recording."""

import os
import shutil
import signal
import subprocess
import threading
import time
from pathlib import Path
from typing import Any

from inside.filing import read_regular_file, user_path
from inside.forms import FormError, read_json
from inside.processes import Finished, Programs, command_line
from inside.resting import await_rest
from inside.serving import Answer, Request, Route, json_answer
from inside.windows import Windows

__all__ = ["Running"]

_EXECUTE_SECONDS = 30.0
_MOST_SECONDS = 120.0
_OPEN_SECONDS = 60.0
_POLL = 0.05
_RECORDING = Path("/tmp/recording.mp4")


class Running:
    """What setups and evaluators run on a desktop.

    Args:
      programs: Starts them.
      windows: The open windows.
    """

    def __init__(self, programs: Programs, windows: Windows):
        self._programs = programs
        self._windows = windows
        self._recording: subprocess.Popen[bytes] | None = None
        self._lock = threading.Lock()

    def routes(self) -> dict[tuple[str, str], Route]:
        """The routes by method and path."""
        most = _MOST_SECONDS + 10.0
        routes = {
            ("POST", "/execute"): Route(self.execute, most),
            ("POST", "/execute_with_verification"): Route(self.verified, 2 * most),
            ("POST", "/run_python"): Route(self.run_python, most),
            ("POST", "/run_python_script"): Route(self.run_python, most),
            ("POST", "/run_bash_script"): Route(self.run_bash, most),
            ("POST", "/setup/launch"): Route(self.launch, 5.0),
            ("POST", "/setup/open_file"): Route(self.open_file, most),
            ("POST", "/rest"): Route(self.rest, most),
            ("POST", "/start_recording"): Route(self.start_recording, 10.0),
            ("POST", "/end_recording"): Route(self.end_recording, 30.0),
        }
        for name in ("execute", "execute_with_verification"):
            routes["POST", f"/setup/{name}"] = routes["POST", f"/{name}"]
        return routes

    def execute(self, request: Request) -> Answer:
        """Run a program and answer with its output."""
        data = read_json(request.body)
        try:
            done = self._execute(data)
        except OSError as error:
            return json_answer({"status": "error", "message": str(error)}, 500)
        if done.timed_out:
            message = f"the command was ended after {_seconds(data):g} s"
            return json_answer({"status": "error", "message": message}, 500)
        return json_answer({"status": "success", **_outcome(done)})

    def rest(self, request: Request) -> Answer:
        """Wait until the programs have come to rest, or it has been long enough."""
        seconds = _seconds(read_json(request.body))
        return json_answer({"status": "success", "rested": await_rest(seconds)})

    def verified(self, request: Request) -> Answer:
        """Run a program, then wait until windows and checks are as wished."""
        data = read_json(request.body)
        wished = data.get("verification") or {}
        try:
            outcome = _outcome(self._execute(data))
        except OSError as error:
            return json_answer({"status": "error", "message": str(error)}, 500)
        if not wished:
            return json_answer({"status": "success", **outcome})
        began = time.monotonic()
        most = min(float(data.get("max_wait_time", 10)), _MOST_SECONDS)
        while time.monotonic() - began < most:
            if self._as_wished(wished):
                waited = {"verification": "passed", "wait_time": _since(began)}
                return json_answer({"status": "success", **outcome, **waited})
            time.sleep(min(5.0, max(_POLL, float(data.get("check_interval", 1)))))
        waited = {"verification": "failed", "wait_time": most}
        return json_answer({"status": "verification_failed", **outcome, **waited}, 500)

    def _as_wished(self, wished: dict[str, Any]) -> bool:
        name = wished.get("window_exists")
        if name is not None and self._windows.find(str(name)) is None:
            return False
        check = wished.get("command_success")
        if check is None:
            return True
        words = command_line(check, isinstance(check, str))
        return self._programs.run(words, timeout=5.0).returncode == 0

    def _execute(self, data: dict[str, Any]) -> Finished:
        cwd = data.get("cwd")
        folder = None if cwd is None else str(user_path(str(cwd)))
        return self._programs.run(_words(data), timeout=_seconds(data), cwd=folder)

    def run_python(self, request: Request) -> Answer:
        """Run a text as a Python program."""
        data = read_json(request.body)
        return self._script(data, "code", ["python", "-c"], 90.0, "message")

    def run_bash(self, request: Request) -> Answer:
        """Run a text as a shell script."""
        data = read_json(request.body)
        return self._script(data, "script", ["/bin/bash", "-lc"], 30.0, None)

    def _script(
        self,
        data: dict[str, Any],
        key: str,
        interpreter: list[str],
        usual: float,
        message: str | None,
    ) -> Answer:
        text = data.get(key)
        if not isinstance(text, str) or not text.strip() or "\0" in text:
            raise FormError(f"{key} must be a non-empty string")
        folder = data.get("working_dir")
        seconds = _seconds(data, usual)
        began = time.monotonic()
        try:
            done = self._programs.run(
                [*interpreter, text],
                timeout=seconds,
                cwd=str(user_path(folder)) if isinstance(folder, str) else None,
            )
        except OSError as error:
            done = Finished(-1, "", str(error), False)
        outcome = _outcome(done)
        if done.timed_out:
            outcome.update(
                error=f"Script execution timed out after {seconds:g} seconds",
                returncode=-1,
            )
        status = "success" if done.returncode == 0 else "error"
        said = {message: f"Script: {status}"} if message else {}
        took = {"duration": _since(began)}
        return json_answer({"status": status, **said, **outcome, **took})

    def launch(self, request: Request) -> Answer:
        """Start a program and leave it alone."""
        words = _words(read_json(request.body))
        try:
            self._programs.launch(words)
        except OSError as error:
            return json_answer({"status": "error", "message": str(error)}, 500)
        text = f"{' '.join(words)} launched successfully"
        return Answer(200, "text/plain", text.encode("utf-8", "replace"))

    def open_file(self, request: Request) -> Answer:
        """Open a file in its application, or an application; wait for its window."""
        data = read_json(request.body)
        text = data.get("path")
        if not isinstance(text, str) or not text:
            return Answer(400, "text/plain", b"Path not supplied!")
        path = user_path(text)
        if path.exists():
            self._programs.launch(["xdg-open", str(path)])
            names = (path.name, path.stem)
        elif shutil.which(text):
            self._programs.launch([text])
            names = (text, text)
        else:
            missing = f"Application/file not found: {text}"
            return Answer(404, "text/plain", missing.encode("utf-8", "replace"))
        end = time.monotonic() + _seconds(data, _OPEN_SECONDS)
        while time.monotonic() < end:
            for name in names:
                window = self._windows.find(name)
                if window is not None:
                    self._windows.activate(window)
                    return Answer(200, "text/plain", b"File opened successfully")
            time.sleep(_POLL)
        late = f"Failed to find window for {text} in time."
        return Answer(500, "text/plain", late.encode("utf-8", "replace"))

    def start_recording(self, request: Request) -> Answer:
        """Begin a video of the screen."""
        with self._lock:
            if self._recording is not None and self._recording.poll() is None:
                return _failed("Recording is already in progress.", 400)
            _RECORDING.unlink(missing_ok=True)
            width, height = self._windows.screen_size()
            self._recording = self._programs.launch(
                ["ffmpeg", "-y", "-loglevel", "quiet", "-f", "x11grab",
                 "-draw_mouse", "1", "-s", f"{width}x{height}", "-i",
                 os.environ.get("DISPLAY", ":0"), "-c:v", "libx264", "-preset",
                 "ultrafast", "-pix_fmt", "yuv420p", "-r", "30", str(_RECORDING)]
            )  # fmt: skip
            end = time.monotonic() + 2.0
            while time.monotonic() < end:
                code = self._recording.poll()
                if code is not None:
                    return _failed(f"ffmpeg ended with status {code}.", 500)
                time.sleep(_POLL)
        said = {"status": "success", "message": "Started recording successfully."}
        return json_answer(said)

    def end_recording(self, request: Request) -> Answer:
        """End the video and answer with it."""
        with self._lock:
            process, self._recording = self._recording, None
            if process is not None and process.poll() is None:
                process.send_signal(signal.SIGINT)  # ffmpeg then finishes the file
                try:
                    process.wait(15.0)
                except subprocess.TimeoutExpired:
                    self._programs.end_group(process)
                    return _failed("The recording had to be cut off.", 500)
            if not _RECORDING.exists() or _RECORDING.stat().st_size == 0:
                return _failed("No recording in progress to stop.", 400)
            return Answer(200, "video/mp4", read_regular_file(_RECORDING))


def _words(data: dict[str, Any]) -> list[str]:
    try:
        return command_line(data.get("command"), data.get("shell", False))
    except ValueError as error:
        raise FormError(str(error)) from None


def _seconds(data: dict[str, Any], usual: float = _EXECUTE_SECONDS) -> float:
    value = data.get("timeout", usual)
    if type(value) not in (int, float) or not 0 < value <= _MOST_SECONDS:
        raise FormError(f"timeout must be in (0, {_MOST_SECONDS:g}] s, got {value!r}")
    return float(value)


def _outcome(done: Finished) -> dict[str, Any]:
    return {"output": done.output, "error": done.error, "returncode": done.returncode}


def _since(began: float) -> float:
    return round(time.monotonic() - began, 3)


def _failed(message: str, status: int) -> Answer:
    return json_answer({"status": "error", "message": message}, status)
