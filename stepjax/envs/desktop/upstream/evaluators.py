"""Upstream's setup and evaluators on a desktop, from a pool of worker processes."""

import contextlib
import dataclasses
import functools
import itertools
import logging
import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from stepjax.envs.actions import ActionKind
from stepjax.envs.desktop.client import DesktopClient, DesktopError
from stepjax.envs.desktop.sandbox.leftovers import OwnFolder
from stepjax.envs.desktop.tasks.schema import TaskSpec
from stepjax.envs.desktop.upstream.assets import assets_of, missing_assets
from stepjax.envs.desktop.upstream.bridge import (
    Address,
    ServerAddress,
    UnixBridge,
    address_of,
)
from stepjax.envs.desktop.upstream.errors import UpstreamError
from stepjax.envs.desktop.upstream.install import find_interpreter
from stepjax.envs.desktop.upstream.jail import EXCHANGE, jail_command
from stepjax.envs.desktop.upstream.process import WorkerProcess
from stepjax.envs.desktop.upstream.worker_pool import WorkerPool

__all__ = [
    "Evaluators",
    "Verdict",
    "evaluate_upstream",
    "read_verdict",
    "setup_upstream",
]

_LOG = logging.getLogger(__name__)

# These run what the agent has written; their worker is not used again.
_RUNS_AGENT_CODE = frozenset(
    {
        "check_gnome_favorite_apps",  # passes what a command printed to eval()
        "check_python_file_by_gold_file",
        "check_python_file_by_test_suite",
    }
)

# Where a virtual machine's browser and player listen, besides its server. Those of a
# sandboxed desktop cannot be reached: it has no network.
_OWN_PORTS = {"chromium": 9222, "vlc": 8080}

# A desktop that plays a video never comes to rest.
_REST_SECONDS = 15.0

Command = Callable[[Path], list[str]]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Verdict:
    """What upstream's evaluator says of an episode.

    Attributes:
      score: In [0, 1].
      note: Why the score is 0 where the metric failed on what the agent left, as it
        does on a broken or absent document; "" otherwise.
    """

    score: float
    note: str = ""


class Evaluators:
    """Worker processes that set tasks up and judge them as upstream does.

    A worker takes seconds to start, some hundred megabytes, and one call at a time; the
    pool starts workers when calls need them and keeps them. Each call gets its own way
    to its desktop, which is cut when the call ends.

    Args:
      folder: Virtual environment of the evaluators; see `find_interpreter`.
      cache: The user's folder of assets, or None.
      screen: Width and height of the desktops, which setup commands may ask for.
      workers: Most worker processes.
      start_timeout: Seconds that starting one may take.
      password: What sudo asks for on the desktops.
      command: Command line of a worker that sees the exchange folder, which it is
        given, where it is; None for the sandboxed worker.

    Raises:
      UpstreamError: If there are no evaluators in `folder`.
      SandboxError: If the temporary folder takes no files.
      ValueError: If `workers` is below 1.
    """

    def __init__(
        self,
        folder: str | Path | None = None,
        *,
        cache: Path | None = None,
        screen: tuple[int, int] = (1920, 1080),
        workers: int = 1,
        start_timeout: float = 300.0,
        password: str = "password",
        command: Command | None = None,
    ):
        jailed = command or functools.partial(jail_command, find_interpreter(folder))
        self._cache = cache
        self._screen, self._password = tuple(screen), password
        self._workers = WorkerPool(
            lambda: WorkerProcess(
                jailed(self._exchange),
                environment={**os.environ, "TMPDIR": str(self._exchange)},
                start_timeout=start_timeout,
            ),
            size=workers,
        )
        self._numbers = itertools.count()
        self._folder = OwnFolder(None)  # swept up after a trainer that was killed
        self._exchange = self._folder.path
        self._seen = self._exchange if command else EXCHANGE
        self._closed = False

    def __enter__(self) -> "Evaluators":
        return self

    def __exit__(self, *_) -> None:
        self.close()

    def warm_up(self, *, timeout: float = 60.0) -> None:
        """Start a worker now, so that the first call need not wait for it.

        Raises:
          UpstreamError: If it does not start.
        """
        with self._workers.borrow(timeout):
            pass

    def names(self, *, timeout: float = 60.0) -> dict[str, list[str]]:
        """Setup steps, getters and metrics of the installed version."""
        with self._workers.borrow(timeout) as worker:
            return worker.call("names", {}, timeout=timeout)

    def setup(self, spec: TaskSpec, desktop: Any, *, timeout: float = 170.0) -> None:
        """Set a task up on a desktop.

        Args:
          spec: The task.
          desktop: An `Address`, or what has `socket` and `token`, as a sandbox.
          timeout: Seconds from when a worker is free and has started.

        Raises:
          UpstreamError: If it cannot be set up, or not in time.
          ValueError: If an asset is missing; names the path it should have.
        """
        with self._request(spec, desktop, timeout) as (worker, request):
            with _resting(desktop) as rest:
                request["pause"] = rest is not None
                worker.call("setup", request, timeout=timeout, on_pause=rest)

    def judge(
        self,
        spec: TaskSpec,
        desktop: Any,
        *,
        ended_by: ActionKind | None = None,
        timeout: float = 110.0,
    ) -> Verdict:
        """Judge what the agent left on a desktop, after the task's own last steps.

        Args:
          spec: The task.
          desktop: An `Address`, or what has `socket` and `token`, as a sandbox.
          ended_by: DONE or FAIL; None if the episode was cut.
          timeout: Seconds from when a worker is free and has started.

        Raises:
          UpstreamError: If it cannot be judged: the desktop does not answer, or the
            evaluator crashed or took too long. Never the agent's failure.
          ValueError: If an asset is missing; names the path it should have.
        """
        with self._request(spec, desktop, timeout) as (worker, request):
            request["ended_by"] = "FAIL" if ended_by is ActionKind.FAIL else "DONE"
            try:
                with _resting(desktop) as rest:
                    request["pause"] = rest is not None
                    answer = worker.call(
                        "evaluate", request, timeout=timeout, on_pause=rest
                    )
            finally:  # what has been loaded can make any answer, an error too
                if any(c.metric in _RUNS_AGENT_CODE for c in spec.evaluator.checks):
                    worker.close()
        verdict = read_verdict(answer)
        if verdict.note:
            _LOG.info("%s scores 0: %s", spec.name, verdict.note)
        return verdict

    def evaluate(
        self,
        spec: TaskSpec,
        desktop: Any,
        *,
        ended_by: ActionKind | None = None,
        timeout: float = 110.0,
    ) -> float:
        """Score alone; see `judge`."""
        return self.judge(spec, desktop, ended_by=ended_by, timeout=timeout).score

    def close(self) -> None:
        """End every worker, also those that are busy; never raises."""
        self._workers.close()
        if not self._closed:
            self._closed = True
            self._folder.remove()

    @contextlib.contextmanager
    def _request(
        self, spec: TaskSpec, desktop: Any, timeout: float
    ) -> Iterator[tuple[WorkerProcess, dict[str, Any]]]:
        """A worker and what to ask it."""
        addresses = _addresses(desktop)
        missing = missing_assets(spec.data, source=spec.source, cache=self._cache)
        if missing:
            raise ValueError(f"{spec.source}: missing asset {missing[0]}.")
        with self._workers.borrow(timeout) as worker:
            folder = self._exchange / str(next(self._numbers))
            bridges: list[UnixBridge] = []
            try:
                self._copy_assets(spec, folder / "assets")
                for name, address in addresses.items():
                    bridges.append(UnixBridge(folder / f"{name}.sock", address))
                seen = self._seen / folder.name
                request = {
                    "task": _plain(spec.data),
                    "assets": str(seen / "assets"),
                    "sockets": {name: str(seen / f"{name}.sock") for name in addresses},
                    "screen": self._screen,
                    "password": self._password,
                }
                yield worker, request
            finally:
                for bridge in bridges:
                    bridge.close()
                shutil.rmtree(folder, ignore_errors=True)

    def _copy_assets(self, spec: TaskSpec, folder: Path) -> None:
        folder.mkdir(parents=True)
        for asset in assets_of(spec.data, source=spec.source):
            if self._cache is not None:  # else there are none, or they were missing
                shutil.copyfile(self._cache / spec.id / asset.name, folder / asset.name)


def setup_upstream(
    spec: TaskSpec, desktop: Any, *, evaluators: Evaluators, timeout: float = 170.0
) -> None:
    """Set a task up as upstream does; see `Evaluators.setup`."""
    evaluators.setup(spec, desktop, timeout=timeout)


def evaluate_upstream(
    spec: TaskSpec,
    desktop: Any,
    *,
    evaluators: Evaluators,
    ended_by: ActionKind | None = None,
    timeout: float = 110.0,
) -> float:
    """Score of an episode as upstream judges it; see `Evaluators.judge`."""
    return evaluators.evaluate(spec, desktop, ended_by=ended_by, timeout=timeout)


def _addresses(desktop: Any) -> dict[str, Address]:
    """Servers of a desktop by the name that the worker knows them under."""
    address = address_of(desktop)
    found: dict[str, Address] = {"server": address}
    if isinstance(address, ServerAddress):
        for name, port in _OWN_PORTS.items():
            found[name] = ServerAddress(host=address.host, port=port)
    return found


@contextlib.contextmanager
def _resting(desktop: Any) -> Iterator[Callable[[], Any] | None]:
    """Waits until nothing computes on a desktop; None where that cannot be seen."""
    address = address_of(desktop)
    if isinstance(address, ServerAddress):
        yield None
        return
    client = DesktopClient(address.socket, address.token)
    try:
        yield functools.partial(client.rest, timeout=_REST_SECONDS)
    except DesktopError as error:
        raise UpstreamError(f"the desktop does not answer: {error}") from error
    finally:
        client.close()


def read_verdict(answer: Any) -> Verdict:
    """The verdict in a worker's answer.

    Raises:
      UpstreamError: If it holds none.
    """
    score = answer.get("score") if isinstance(answer, dict) else None
    if not isinstance(score, int | float) or not 0.0 <= score <= 1.0:
        raise UpstreamError(f"evaluate: {str(answer)[:80]!r} is no score")
    return Verdict(score=float(score), note=str(answer.get("note", "")))


def _plain(value: Any) -> Any:
    """The same value out of dictionaries and lists, whatever mappings hold it."""
    if isinstance(value, Mapping):
        return {str(key): _plain(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(one) for one in value]
    return value
