"""Machines that others run: a server at an address, or a provider of desktop-env's.

Both were tested against stand-ins and against this project's own desktop server only,
never against a real virtual machine.
"""

import base64
import binascii
import json
import time
import urllib.parse
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

from stepjax.envs.actions import ActionKind
from stepjax.envs.desktop.tasks.schema import TaskSpec
from stepjax.envs.desktop.upstream.bridge import ServerAddress
from stepjax.envs.desktop.upstream.errors import UpstreamError
from stepjax.envs.desktop.upstream.evaluators import Evaluators, read_verdict
from stepjax.envs.desktop.upstream.install import find_interpreter
from stepjax.envs.desktop.upstream.jail import open_command
from stepjax.envs.desktop.upstream.process import WorkerProcess

__all__ = ["PROVIDERS", "Machine", "ProviderMachine", "UrlMachine", "parse_url"]

PROVIDERS = ("vmware", "virtualbox", "docker", "aws", "azure", "aliyun", "volcengine")
"""Names that desktop-env's DesktopEnv accepts as provider_name."""

MAX_SCREENSHOT_BYTES = 64 << 20
"""Largest picture read from a server."""

_IMPORTS = "import pyautogui; import time; pyautogui.FAILSAFE = False; "


class Machine(Protocol):
    """A machine that takes pyautogui programs and shows PNG pictures."""

    def reset(self, spec: TaskSpec) -> bytes:
        """Set a task up; the picture of the screen."""
        ...

    def act(self, program: str) -> bytes:
        """Carry a program out, or WAIT, DONE, FAIL; the picture of the screen."""
        ...

    def evaluate(self, spec: TaskSpec, ended_by: ActionKind | None) -> float:
        """Score of what was left."""
        ...

    def close(self) -> None:
        """Let go of the machine; may be called twice."""
        ...


def parse_url(url: str) -> ServerAddress:
    """Host and port of a server.

    Args:
      url: Such as http://192.168.1.20:5000; without a port it is 5000.

    Raises:
      ValueError: If it is anything else.
    """
    try:
        parts = urllib.parse.urlsplit(url)
        port = parts.port
    except ValueError:
        parts, port = urllib.parse.urlsplit(""), None
    if parts.scheme != "http" or not parts.hostname or parts.path not in ("", "/"):
        raise ValueError(f"url must be like http://host:5000, got {url!r}.")
    return ServerAddress(host=parts.hostname, port=port or 5000)


class UrlMachine:
    """A machine whose server runs somewhere already.

    It is never reverted: what one episode leaves, the next one finds. Good for trying
    and for machines that somebody else reverts; not for measuring.

    Args:
      url: Where OSWorld's server listens, such as http://host:5000.
      evaluators: Set tasks up and judge them; closed by whoever made them.
      pause: Seconds between an action and the picture of what it did.
      timeout: Seconds that one request may take.

    Raises:
      ValueError: If `url` is malformed.
    """

    def __init__(
        self,
        url: str,
        *,
        evaluators: Evaluators,
        pause: float = 2.0,
        timeout: float = 90.0,
    ):
        try:
            import httpx
        except ImportError:
            raise ImportError(
                "Desktops need httpx: pip install 'stepjax[desktop]'."
            ) from None
        self._address = parse_url(url)
        self._evaluators, self._pause = evaluators, pause
        self._errors = (httpx.HTTPError, httpx.StreamError, httpx.InvalidURL)
        self._http = httpx.Client(
            base_url=f"http://{self._address.host}:{self._address.port}",
            timeout=timeout,
            trust_env=False,
        )

    def reset(self, spec: TaskSpec) -> bytes:
        """Set a task up; the picture of the screen.

        Raises:
          UpstreamError: If it cannot be set up, or there is no picture.
        """
        self._evaluators.setup(spec, self._address)
        return self._screenshot()

    def act(self, program: str) -> bytes:
        """Carry a program out, or WAIT, DONE, FAIL; the picture of the screen.

        Raises:
          UpstreamError: If the server does not answer as it should.
        """
        if program not in ("WAIT", "DONE", "FAIL"):
            command = {"command": ["python", "-c", _IMPORTS + program], "shell": False}
            _check_finished(self._ask("POST", "/execute", json=command))
        time.sleep(self._pause)
        return self._screenshot()

    def evaluate(self, spec: TaskSpec, ended_by: ActionKind | None) -> float:
        """Score of what was left.

        Raises:
          UpstreamError: If it cannot be judged.
        """
        return self._evaluators.evaluate(spec, self._address, ended_by=ended_by)

    def close(self) -> None:
        """Close the connections; the machine goes on."""
        self._http.close()

    def _screenshot(self) -> bytes:
        return self._ask("GET", "/screenshot")

    def _ask(self, method: str, path: str, **body: Any) -> bytes:
        """The answer to one request, read piece by piece so that it stays small."""
        data = bytearray()
        try:
            with self._http.stream(method, path, **body) as answer:
                answer.raise_for_status()
                for piece in answer.iter_bytes():
                    data += piece
                    if len(data) > MAX_SCREENSHOT_BYTES:
                        raise UpstreamError(f"{path}: the answer is too large")
        except self._errors as error:
            where = f"http://{self._address.host}:{self._address.port}{path}"
            why = " ".join(str(error).split())[:200] or type(error).__name__
            raise UpstreamError(f"{where}: {why}") from error
        return bytes(data)


class ProviderMachine:
    """A virtual machine that desktop-env's DesktopEnv starts, reverts and stops.

    It runs in a process of the evaluators' environment, without a sandbox: providers
    need the network, engines and accounts of this host. The slim environment leaves the
    providers' own packages out; add yours to it (docker, boto3, ...).

    Args:
      provider: One of `PROVIDERS`.
      options: Further arguments of DesktopEnv, such as path_to_vm or region.
      folder: Virtual environment of the evaluators; see `find_interpreter`.
      cache: The user's folder of assets; desktop-env downloads what it lacks.
      screen: Width and height of the machine's screen.
      pause: Seconds between an action and the picture of what it did.
      start_timeout: Seconds until the machine must run.
      reset_timeout: Seconds that reverting and setting up may take.

    Raises:
      ValueError: If there is no such provider.
      UpstreamError: If the machine does not start.
    """

    def __init__(
        self,
        provider: str,
        *,
        options: Mapping[str, Any] | None = None,
        folder: str | Path | None = None,
        cache: Path | None = None,
        screen: tuple[int, int] = (1920, 1080),
        pause: float = 2.0,
        start_timeout: float = 900.0,
        reset_timeout: float = 900.0,
    ):
        if provider not in PROVIDERS:
            raise ValueError(
                f"provider must be one of {', '.join(PROVIDERS)}, got {provider!r}."
            )
        self._pause, self._reset_timeout = pause, reset_timeout
        self._worker = WorkerProcess(
            open_command(find_interpreter(folder)), start_timeout=start_timeout
        )
        arguments = {
            **(options or {}),
            "provider_name": provider,
            "action_space": "pyautogui",
            "cache_dir": str(cache or "cache"),
            "screen_size": list(screen),
            "require_a11y_tree": False,
        }
        try:
            self._worker.call("vm_open", {"options": arguments}, timeout=start_timeout)
        except BaseException:
            self._worker.close()
            raise

    def reset(self, spec: TaskSpec) -> bytes:
        """Revert, set a task up; the picture of the screen.

        Raises:
          UpstreamError: If that fails or takes too long.
        """
        return self._picture(
            "vm_reset", {"task": dict(spec.data)}, timeout=self._reset_timeout
        )

    def act(self, program: str) -> bytes:
        """Carry a program out, or WAIT, DONE, FAIL; the picture of the screen.

        Raises:
          UpstreamError: If that fails or takes too long.
        """
        return self._picture("vm_step", {"action": program, "pause": self._pause})

    def evaluate(self, spec: TaskSpec, ended_by: ActionKind | None) -> float:
        """Score of what was left.

        Raises:
          UpstreamError: If it cannot be judged.
        """
        del spec, ended_by  # DesktopEnv keeps both
        return read_verdict(self._worker.call("vm_evaluate", {}, timeout=300.0)).score

    def close(self) -> None:
        """Stop the machine; may be called twice."""
        try:
            if self._worker.alive():
                self._worker.call("vm_close", {}, timeout=120.0)
        finally:
            self._worker.close()

    def _picture(
        self, call: str, request: dict[str, Any], *, timeout: float = 120.0
    ) -> bytes:
        answer = self._worker.call(call, request, timeout=timeout)
        try:
            return base64.b64decode(answer["screenshot"], validate=True)
        except (TypeError, KeyError, binascii.Error) as error:
            raise UpstreamError(f"{call}: no picture in the answer") from error


def _check_finished(answer: bytes) -> None:
    """Raise if a program failed: ours are well formed, so the machine is at fault."""
    try:
        outcome = json.loads(answer)
        code, said = outcome["returncode"], str(outcome.get("error", ""))
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise UpstreamError("/execute: the answer is not OSWorld's") from error
    if code != 0:
        last = " ".join(said.split())[-200:]
        raise UpstreamError(f"/execute: a pyautogui program failed ({code}): {last}")
