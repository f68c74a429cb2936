"""The host's side of a desktop: one HTTP client over its Unix socket.

Whatever goes wrong, a slow, dead, foreign or garbled server, is a `DesktopError` with
one line, and no call takes longer than its timeout.
"""

import dataclasses
import http.client
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from stepjax.envs.desktop.unix_http import UnixHttp, form_body
from stepjax.envs.desktop.view import (
    DesktopError,
    View,
    decode,
    read_view,
    split_answer,
)

__all__ = ["DesktopClient", "Finished"]

_VERSION = "1"
_MAX_ANSWER = 256 << 20
_MAX_REASON = 2000


@dataclasses.dataclass(frozen=True, kw_only=True)
class Finished:
    """How a program ended.

    Attributes:
      returncode: Its exit status, negative for a signal.
      output: What it wrote to standard output.
      error: What it wrote to standard error.
    """

    returncode: int
    output: str
    error: str


class DesktopClient:
    """Talks to the server in one desktop. Calls from several threads are fine.

    Args:
      socket: Path of the server's Unix socket.
      token: What the server asks for.
      timeout: Most seconds of a call, unless it says otherwise.

    Attributes:
      socket: Path of the server's Unix socket.
      token: What the server asks for.

    Raises:
      DesktopError: From every method, if it fails.

    Example:
      >>> from stepjax.envs.desktop.client import DesktopClient
      >>> client = DesktopClient("/tmp/desktop/socket", "secret")
      >>> client.close()
    """

    def __init__(self, socket: Path | str, token: str, *, timeout: float = 20.0):
        if timeout <= 0:
            raise ValueError(f"timeout must be > 0 seconds, got {timeout}.")
        self.socket, self.token = Path(socket), token
        self._timeout = timeout
        self._http = UnixHttp(str(socket), {"Authorization": f"Bearer {token}"})

    def act(
        self,
        operations: Sequence[Mapping[str, Any]],
        *,
        settle_ms: int = 100,
        size: tuple[int, int] | None = None,
        widgets: bool = False,
        timeout: float | None = None,
    ) -> View:
        """Carry out input operations, let the desktop settle, and look.

        Args:
          operations: See `stepjax.envs.desktop.input_plan`; if one of them is unsound,
            none is carried out.
          settle_ms: Pause between the last of them and the picture, milliseconds.
          size: Width and height to scale the picture to; None for the screen's own.
          widgets: Read the widgets too; takes up to 0.3 s more.
          timeout: Most seconds, None for the client's own.
        """
        image: dict[str, Any] = {"format": "raw", "size": size and list(size)}
        data = {
            "operations": [dict(one) for one in operations],
            "settle_ms": settle_ms,
            "image": image,
            "widgets": widgets,
        }
        return read_view(self._json("/act", data, timeout), widgets)

    def view(
        self,
        *,
        settle_ms: int = 0,
        size: tuple[int, int] | None = None,
        widgets: bool = False,
    ) -> View:
        """Look, without doing anything; arguments as of `act`."""
        return self.act((), settle_ms=settle_ms, size=size, widgets=widgets)

    def screenshot(self, kind: str = "png", *, quality: int = 90) -> bytes:
        """The screen as a PNG or JPEG file.

        Args:
          kind: "png" or "jpeg".
          quality: Of JPEG, 1 to 95.
        """
        data = {"image": {"format": kind, "quality": quality}}
        head, body = split_answer(self._json("/act", data))
        if head.get("image", {}).get("format") != kind or not body:
            raise DesktopError("/act: the answer holds no picture")
        return body

    def execute(
        self,
        command: Sequence[str],
        *,
        timeout: float = 10.0,
        cwd: str | None = None,
    ) -> Finished:
        """Run a program on the desktop and wait for it.

        Args:
          command: The program and its arguments; no shell reads them.
          timeout: Seconds until it is ended, which is an error.
          cwd: Folder to start it in; None for the home folder.
        """
        data = {"command": list(command), "timeout": timeout}
        if cwd is not None:
            data["cwd"] = cwd
        answer = self._object("/execute", data, timeout + self._timeout)
        try:
            return Finished(
                returncode=int(answer["returncode"]),
                output=str(answer["output"]),
                error=str(answer["error"]),
            )
        except (KeyError, TypeError, ValueError):
            raise DesktopError("/execute: the answer lacks how it ended") from None

    def rest(self, *, timeout: float = 20.0) -> bool:
        """Wait until no program computes any more: it has loaded, or saved.

        Args:
          timeout: Seconds after which it is given up.

        Returns:
          Whether they came to rest; a video that plays never does.
        """
        answer = self._object("/rest", {"timeout": timeout}, timeout + self._timeout)
        return answer.get("rested") is True

    def launch(self, command: Sequence[str]) -> None:
        """Start a program and let it run; its output goes nowhere."""
        self._json("/setup/launch", {"command": list(command)})

    def open_file(self, path: str, *, timeout: float = 60.0) -> None:
        """Open a file in its application and wait for the window.

        Args:
          path: The file on the desktop.
          timeout: Seconds until it is an error.
        """
        data = {"path": path, "timeout": timeout}
        self._json("/setup/open_file", data, timeout + self._timeout)

    def activate_window(self, name: str) -> None:
        """Bring the first window to the front whose title holds `name`."""
        data = {"window_name": name, "must_exist": True}
        self._json("/setup/activate_window", data)

    def close_window(self, name: str) -> None:
        """Ask the first window to close whose title holds `name`."""
        data = {"window_name": name, "must_exist": True}
        self._json("/setup/close_window", data)

    def windows(self) -> tuple[str, ...]:
        """Titles of the open windows, oldest first."""
        answer = decode("/windows", self._call("GET", "/windows"))
        if not isinstance(answer, list) or not all(isinstance(w, dict) for w in answer):
            raise DesktopError("/windows: the answer is no list of windows")
        return tuple(str(window.get("title", "")) for window in answer)

    def read_file(self, path: str, *, max_bytes: int = 64 << 20) -> bytes:
        """Content of a file on the desktop.

        Args:
          path: Absolute, or below the home folder.
          max_bytes: A larger file is an error.
        """
        body, kind = form_body({"file_path": path.encode()})
        return self._call("POST", "/file", body, kind, max_bytes=max_bytes)

    def write_file(self, path: str, data: bytes) -> None:
        """Write a file on the desktop, whole or not at all, and the folders above it.

        Args:
          path: Absolute, or below the home folder.
          data: Its content.
        """
        body, kind = form_body({"file_path": path.encode(), "file_data": data})
        self._call("POST", "/setup/upload", body, kind)

    def accessibility_xml(self) -> str:
        """All that accessibility tells, in the form of OSWorld's `/accessibility`."""
        answer = self._object("/accessibility", None, self._timeout + 30)
        if not isinstance(answer.get("AT"), str):
            raise DesktopError("/accessibility: the answer holds no tree")
        return answer["AT"]

    def terminal(self) -> str | None:
        """Text of the terminal that has the focus, or None."""
        text = self._object("/terminal", None).get("output")
        return None if text is None else str(text)

    def list_directory(self, path: str) -> dict[str, Any]:
        """A folder and all below it, in the form of OSWorld's `/list_directory`."""
        answer = self._object("/list_directory", {"path": path})
        tree = answer.get("directory_tree")
        if not isinstance(tree, dict):
            raise DesktopError("/list_directory: the answer holds no tree")
        return tree

    def start_recording(self) -> None:
        """Begin a video of the screen."""
        self._json("/start_recording", {})

    def end_recording(self) -> bytes:
        """End the video; an MP4 file."""
        return self._json("/end_recording", {}, self._timeout + 20)

    def close(self) -> None:
        """Let go of the connection."""
        self._http.close()

    def _json(self, path: str, data: Any, timeout: float | None = None) -> bytes:
        return self._call("POST", path, json.dumps(data).encode(), timeout=timeout)

    def _object(
        self, path: str, data: Any, timeout: float | None = None
    ) -> dict[str, Any]:
        if data is None:
            body = self._call("GET", path, timeout=timeout)
        else:
            body = self._json(path, data, timeout)
        answer = decode(path, body)
        if not isinstance(answer, dict):
            raise DesktopError(f"{path}: the answer is no JSON object")
        return answer

    def _call(
        self,
        method: str,
        path: str,
        body: bytes = b"",
        content_type: str = "application/json",
        *,
        timeout: float | None = None,
        max_bytes: int = _MAX_ANSWER,
    ) -> bytes:
        """The answer's body, if it came whole, in time, and says that all went well."""
        timeout = self._timeout if timeout is None else timeout
        try:
            reply = self._http.request(
                method, path, body, content_type, timeout=timeout, max_bytes=max_bytes
            )
        except TimeoutError:
            raise DesktopError(f"{path}: no whole answer in {timeout:g} s") from None
        except (FileNotFoundError, ConnectionRefusedError):
            raise DesktopError(f"{path}: the desktop has gone") from None
        except (OSError, http.client.HTTPException, ValueError) as error:
            kind = type(error).__name__
            raise DesktopError(f"{path}: no proper answer: {kind}: {error}") from error
        version = reply.headers.get("X-Stepjax-Version")
        if version != _VERSION:
            raise DesktopError(
                f"{path}: the desktop's server has version {version}, this client "
                f"needs {_VERSION}; start desktops from this installation"
            )
        if reply.status != 200:
            reason = _reason(reply.body)
            raise DesktopError(f"{path}: {reply.status}: {reason}", reply.status)
        return reply.body


def _reason(body: bytes) -> str:
    """What an error's body says, in JSON or plain."""
    text = body[:_MAX_REASON].decode("utf-8", "replace")
    try:
        data = json.loads(text)
    except (ValueError, RecursionError):
        return text
    if isinstance(data, dict):
        return str(data.get("message") or data.get("error") or text)
    return text
