"""Setting a task up on a desktop: files, programs, windows."""

import base64
import binascii
import time
import urllib.parse
import uuid
from collections.abc import Callable, Sequence
from pathlib import Path, PurePosixPath
from typing import Any, Protocol

from stepjax.envs.desktop.tasks.schema import SetupStep, TaskSpec

__all__ = [
    "RUNNABLE",
    "SetupClient",
    "SetupError",
    "asset_path",
    "run_setup",
    "run_steps",
]

MAX_ASSET_BYTES = 256 * 2**20
"""Largest file that is put on a desktop."""

_WINDOW_SECONDS = 150.0  # GIMP on a busy machine
_COMMAND_SECONDS = 60.0
_LOOK_SECONDS = 0.1
_IDLE_SECONDS = 20.0
_HOME = PurePosixPath("/home/user")


class SetupError(RuntimeError):
    """A task cannot be set up, by its own fault or that of what it needs."""


class SetupClient(Protocol):
    """What is asked of the client of a desktop; `DesktopClient` has it."""

    def execute(
        self, command: list[str], *, timeout: float = 10.0, cwd: str | None = None
    ) -> Any:
        """Run a command to its end: returncode, output, error."""
        ...

    def launch(self, command: list[str]) -> None:
        """Start a program and leave it running."""
        ...

    def open_file(self, path: str) -> None:
        """Open a file with the program meant for it."""
        ...

    def activate_window(self, name: str) -> None:
        """Bring a window to the front and give it the keyboard."""
        ...

    def close_window(self, name: str) -> None:
        """Close a window."""
        ...

    def rest(self, *, timeout: float = 20.0) -> bool:
        """Wait until no program computes any more; whether it came to that."""
        ...

    def windows(self) -> tuple[str, ...]:
        """Titles of the windows."""
        ...

    def write_file(self, path: str, data: bytes) -> None:
        """Write a file, making its folders."""
        ...


def run_setup(
    spec: TaskSpec, client: SetupClient, *, cache: Path | None = None
) -> None:
    """Carry out the steps of a task's `config`.

    Args:
      spec: The task.
      client: Of a desktop that was just booted.
      cache: Folder with the files that task files download, laid out as OSWorld's:
        `<cache>/<task id>/<uuid5 of the address>_<name>`. `data:` addresses need none.

    Raises:
      SetupError: If a step cannot run here, a file is missing, or a window does not
        come; the message names the task and the step.
      DesktopError: If the desktop does not answer.
    """
    run_steps(spec, spec.config, client, cache=cache, key="config")


def run_steps(
    spec: TaskSpec,
    steps: Sequence[SetupStep],
    client: SetupClient,
    *,
    cache: Path | None = None,
    key: str = "evaluator.postconfig",
) -> None:
    """Carry out some steps of a task; see `run_setup`.

    Args:
      spec: The task they belong to.
      steps: What to do, in order.
      client: Of the desktop.
      cache: See `run_setup`.
      key: Where the task has them, for messages.

    Raises:
      SetupError: See `run_setup`.
    """
    for index, step in enumerate(steps):
        where = f"{spec.source}: {key}[{index}]"
        run = RUNNABLE.get(step.type)
        if run is None:
            raise SetupError(
                f"{where}: setup type {step.type!r} cannot run here; these can: "
                f"{', '.join(RUNNABLE)}."
            )
        try:
            run(client, step.parameters, _Asked(spec.id, cache))
        except SetupError as error:
            raise SetupError(f"{where} ({step.type}): {error}") from error


class _Asked:
    """Which task asks, and where its files may lie."""

    def __init__(self, task_id: str, cache: Path | None):
        self.task_id, self.cache = task_id, cache


def asset_path(cache: Path, task_id: str, url: str, path: str) -> Path:
    """Where the cache of OSWorld keeps a file that a task downloads.

    Args:
      cache: The cache folder.
      task_id: Id of the task.
      url: The file's address.
      path: Where it goes on the desktop.
    """
    name = f"{uuid.uuid5(uuid.NAMESPACE_URL, url)}_{PurePosixPath(path).name}"
    return cache / task_id / name


def _download(client: SetupClient, parameters: dict, asked: _Asked) -> None:
    for one in parameters["files"]:
        url, path = one.get("url"), _absolute(one["path"])
        if not isinstance(url, str) or not url:
            raise SetupError(f"the url of {path} is {url!r}; it must be a text.")
        client.write_file(path, _content(url, path, asked))


def _content(url: str, path: str, asked: _Asked) -> bytes:
    if url.startswith("data:"):
        return _data_url(url)
    if asked.cache is None:
        raise SetupError(
            f"{path} comes from {url:.200}; give the folder with the downloaded files "
            "as the cache."
        )
    file = asset_path(asked.cache, asked.task_id, url, path)
    if not file.is_file():
        raise SetupError(f"missing file {file}, which is {url:.200}")
    if file.stat().st_size > MAX_ASSET_BYTES:
        raise SetupError(f"{file} is larger than {MAX_ASSET_BYTES} bytes.")
    return file.read_bytes()


def _data_url(url: str) -> bytes:
    head, comma, body = url.partition(",")
    try:
        if not comma:
            raise ValueError("it has no comma")
        if head.endswith(";base64"):
            return base64.b64decode(body, validate=True)
        return urllib.parse.unquote_to_bytes(body)
    except (ValueError, binascii.Error) as error:
        raise SetupError(f"malformed data address {url:.60}...: {error}") from error


def _launch(client: SetupClient, parameters: dict, asked: _Asked) -> None:
    del asked
    client.launch(_command(parameters))


def _execute(client: SetupClient, parameters: dict, asked: _Asked) -> None:
    del asked
    command = _command(parameters)
    finished = client.execute(command, timeout=_COMMAND_SECONDS)
    if finished.returncode:
        # OSWorld's tasks rely on failing commands being passed over (a mkdir of what
        # exists, a pkill of what does not run), so this only fails what cannot start.
        if finished.returncode in (126, 127):
            raise SetupError(f"{command[:3]} cannot run: {finished.error.strip():.200}")


def _command(parameters: dict) -> list[str]:
    command, shell = parameters["command"], parameters.get("shell", False)
    if isinstance(shell, str):
        shell = shell.lower() == "true"
    if shell or isinstance(command, str):
        text = command if isinstance(command, str) else " ".join(command)
        return ["/bin/bash", "-c", text]  # inside the sandbox, as the task's author
    return list(command)


def _open(client: SetupClient, parameters: dict, asked: _Asked) -> None:
    del asked
    client.open_file(_absolute(parameters["path"]))


def _activate(client: SetupClient, parameters: dict, asked: _Asked) -> None:
    del asked
    name = _await_window(client, parameters["window_name"])
    client.activate_window(name)
    client.rest(timeout=_IDLE_SECONDS)


def _close(client: SetupClient, parameters: dict, asked: _Asked) -> None:
    del asked
    client.close_window(_await_window(client, parameters["window_name"]))


def _await_window(client: SetupClient, name: str) -> str:
    """Title of the first window whose title holds `name`, once there is one."""
    until = time.monotonic() + _WINDOW_SECONDS
    while True:
        titles = client.windows()
        for title in titles:
            if name.lower() in title.lower():
                return title
        if time.monotonic() > until:
            raise SetupError(
                f"no window {name!r} within {_WINDOW_SECONDS:.0f} s; there are "
                f"{', '.join(map(repr, titles)) or 'none'}."
            )
        time.sleep(_LOOK_SECONDS)


def _sleep(client: SetupClient, parameters: dict, asked: _Asked) -> None:
    del client, asked
    time.sleep(parameters["seconds"])


def _absolute(path: str) -> str:
    if path.startswith("~/"):
        path = str(_HOME / path[2:])
    if not path.startswith("/") or "\0" in path:
        raise SetupError(f"path is {path!r}; it must begin with / or ~/.")
    return path


RUNNABLE: dict[str, Callable[[SetupClient, dict, _Asked], None]] = {
    "download": _download,
    "launch": _launch,
    "open": _open,
    "execute": _execute,
    "command": _execute,
    "activate_window": _activate,
    "close_window": _close,
    "sleep": _sleep,
}
"""What runs each type of setup step here."""
