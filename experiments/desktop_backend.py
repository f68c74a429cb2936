"""Sandboxed desktops as a backend: who boots them, sets tasks up and judges."""

import contextlib
import dataclasses
import logging
import os
import shlex
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from experiments.config import EnvConfig, ExperimentConfig
from experiments.errors import UsageError
from stepjax.models.policy import Policy
from stepjax.rollout.backend import TaskTable
from stepjax.rollout.host import HostBackend
from stepjax.rollout.screen_codec import ScreenCodec
from stepjax.rollout.script_guide import Script, ScriptGuides
from stepjax.types import Trajectories

__all__ = [
    "Closing",
    "DesktopBackend",
    "image_size",
    "make_codec",
    "open_desktop",
    "screen_backend",
    "task_folder",
]

ReportFn = Callable[[str], None] | None

_LOG = logging.getLogger(__name__)

_STATUS_SECONDS = 10.0
_MOST_DESKTOPS = 8
_BOOT_SECONDS = 120.0
_BUCKETS = (8, 32)  # desktops answer a few at a time
_LEAST_FAULTS = 64
"""Faults in a row that end a run: a task that never sets up must not be enough."""


def make_codec(config: ExperimentConfig) -> ScreenCodec:
    """The small screenshot policy's encoding, as `config.policy` describes it."""
    return ScreenCodec(width=config.policy.view_width, height=config.policy.view_height)


class DesktopBackend(HostBackend):
    """A backend that says while it goes on what its desktops are doing."""

    def __init__(self, name: str, fleet: Any, *args: Any, **options: Any):
        """See `HostBackend`; `fleet` makes environments and is closed with it."""
        super().__init__(name, fleet, *args, **options)
        self._fleet = fleet

    def metrics(self) -> dict[str, float]:
        """Totals of the pool of environments and of the desktops."""
        return super().metrics() | self._fleet.metrics()

    def close(self) -> None:
        """Close the environments, then end the desktops."""
        hurry = getattr(self._fleet, "hurry", None)
        if hurry is not None:
            hurry()
        try:
            super().close()
        finally:
            self._fleet.close()

    def _play(self, task_ids: Any, seeds: Any, choose: Any) -> Trajectories:
        pairs = zip(task_ids, seeds, strict=True)
        self._fleet.expect(
            [(self.tasks.names[task], int(seed)) for task, seed in pairs]
        )
        with self._telling(len(task_ids)):
            return super()._play(task_ids, seeds, choose)

    @contextlib.contextmanager
    def _telling(self, count: int) -> Iterator[None]:
        """A block during which the status is told every few seconds."""
        over = threading.Event()
        episodes = self.pool.counts.episodes
        before = episodes.total()

        def tell() -> None:
            while not over.wait(_STATUS_SECONDS):
                done = episodes.total() - before
                self._say(f"{done} of {count} episodes; {self._fleet.status_line()}")

        thread = threading.Thread(target=tell, name="stepjax-status", daemon=True)
        thread.start()
        try:
            yield
        finally:
            over.set()
            thread.join()


class Closing:
    """Makes environments, and what they share is closed with it."""

    def __init__(self, make: Any, resources: contextlib.ExitStack):
        self._make, self._resources = make, resources

    def __call__(self, index: int) -> Any:
        """The environment of a place in a pool."""
        return self._make(index)

    def expect(self, episodes: Sequence[tuple[str, int]]) -> None:
        """Say which tasks and seeds come next; virtual machines do nothing about it."""
        expect = getattr(self._make, "expect", None)
        if expect is not None:
            expect(episodes)

    def status_line(self) -> str:
        """What the desktops are doing; nothing is known of virtual machines."""
        tell = getattr(self._make, "status_line", None)
        return tell() if tell else "virtual machines at work"

    def metrics(self) -> dict[str, float]:
        """Totals of the desktops."""
        count = getattr(self._make, "metrics", None)
        return count() if count else {}

    def hurry(self) -> None:
        """Let nothing wait for servers that have gone: the run is over."""
        hurry = getattr(self._make, "hurry", None)
        if hurry is not None:
            hurry()

    def close(self) -> None:
        """Close what is shared; may be called twice."""
        self._resources.close()


def screen_backend(
    name: str,
    fleet: Any,
    tasks: Any,
    config: ExperimentConfig,
    policy: Policy,
    *,
    script: Script | None = None,
    **options: Any,
) -> DesktopBackend:
    """A backend for a policy that sees screenshots.

    Args:
      name: What results are reported under.
      fleet: Makes environments, says what they do, and is closed with the backend.
      tasks: Has the fields of a `TaskTable`.
      config: For the codec and the step limit.
      policy: Who acts.
      script: How tasks are done, for demonstrations; None for none.
      **options: Further options of `HostBackend`.
    """
    env = config.env
    codec = getattr(policy, "codec", None) or make_codec(config)
    fields = [field.name for field in dataclasses.fields(TaskTable)]
    guides = None
    if script is not None:
        screen = (env.screen_width, env.screen_height)
        guides = ScriptGuides(script=script, codec=codec, about=screen)
    return DesktopBackend(
        name,
        fleet,
        TaskTable(**{field: getattr(tasks, field) for field in fields}),
        policy.sample,
        max_steps=env.max_steps,
        codec=codec,
        sampler=getattr(policy, "sampler", None),
        buckets=_BUCKETS,
        guides=guides,
        **options,
    )


def task_folder(env: EnvConfig) -> Path:
    """The folder of the user's task files.

    Raises:
      ValueError: If none is given.
    """
    if env.tasks is None:
        raise ValueError(
            f"env.tasks is needed with the {env.backend} backend: the folder "
            "evaluation_examples of an OSWorld checkout."
        )
    return env.tasks.expanduser()


def image_size(env: EnvConfig) -> tuple[int, int]:
    """Half the screen: enough for reports, and a quarter of the bytes."""
    return env.screen_width // 2, env.screen_height // 2


def open_desktop(
    config: ExperimentConfig, policy: Policy, report: ReportFn
) -> HostBackend:
    """Sandboxed desktops with the bundled tasks, or with those of a user's files.

    Raises:
      UsageError: If no desktop boots here, or none of the user's tasks can run here.
      ValueError: If a task file is malformed or missing.
    """
    from stepjax.envs.desktop import (
        DEADLINES,
        DesktopFleet,
        DesktopSettings,
        NoDesktopError,
        SandboxSpec,
        bundled_tasks,
    )
    from stepjax.envs.desktop.tasks.bundled.oracles import oracle_script

    env = config.env
    bundled = bundled_tasks()
    with contextlib.ExitStack() as opened:
        tasks, pieces = bundled, {}
        if env.tasks is not None:
            tasks, pieces = _with_files(env, bundled, opened)
        num_envs = env.num_envs or min(_MOST_DESKTOPS, 2 * (os.cpu_count() or 1))
        fleet = DesktopFleet(
            tasks,
            num_envs=num_envs,
            sandbox=SandboxSpec(width=env.screen_width, height=env.screen_height),
            settings=DesktopSettings(image_size=image_size(env)),
            report=report,
            **pieces,
        )
        opened.callback(fleet.close)
        try:
            fleet.wait_ready(_BOOT_SECONDS)
        except (NoDesktopError, TimeoutError) as error:
            text = " ".join(str(error).split())
            raise UsageError(
                f"{text}; python -m stepjax.envs.desktop doctor says what is missing."
            ) from error
        resources = opened.pop_all()
    return screen_backend(
        "desktop",
        Closing(fleet, resources),
        tasks,
        config,
        policy,
        num_envs=num_envs,
        deadlines=DEADLINES,
        max_consecutive_faults=max(_LEAST_FAULTS, 16 * num_envs),
        report=report,
        script=oracle_script,
        practice_ids=_ids_of(tasks, bundled, bundled.train_ids),
    )


def _with_files(
    env: EnvConfig, bundled: Any, opened: contextlib.ExitStack
) -> tuple[Any, dict[str, Any]]:
    """A table of the user's tasks and the bundled ones, and how each is handled."""
    from stepjax.envs.desktop import file_tasks
    from stepjax.envs.desktop.tasks.evaluate import evaluate
    from stepjax.envs.desktop.tasks.setup import run_setup
    from stepjax.envs.desktop.upstream import Evaluators

    own = file_tasks(_that_run_here(env))
    theirs = frozenset(own.names)
    evaluators = Evaluators(
        folder=env.evaluators,
        cache=env.cache,
        screen=(env.screen_width, env.screen_height),
        workers=max(1, (os.cpu_count() or 1) // 2),
    )
    opened.callback(evaluators.close)

    def load(name: str, seed: int) -> Any:
        return (own if name in theirs else bundled).load(name, seed)

    def set_up(spec: Any, client: Any) -> None:
        if spec.name in theirs:
            evaluators.setup(spec, client)
        else:
            run_setup(spec, client)

    def judge(spec: Any, client: Any, *, ended_by: Any) -> float:
        if spec.name in theirs:
            return evaluators.evaluate(spec, client, ended_by=ended_by)
        return evaluate(spec, client, ended_by=ended_by)

    offset = len(own.names)
    tasks = dataclasses.replace(
        own,
        names=own.names + bundled.names,
        domains=own.domains + bundled.domains,
        infeasible=np.concatenate([own.infeasible, bundled.infeasible]),
        instruction=lambda task_id, seed: (
            own.instruction(task_id, seed)
            if task_id < offset
            else bundled.instruction(task_id - offset, seed)
        ),
        load=load,
    )
    return tasks, {"setup": set_up, "evaluate": judge}


def _that_run_here(env: EnvConfig) -> list[Any]:
    """The user's tasks with nothing in their way on this machine.

    Raises:
      UsageError: If there is none.
      ValueError: If a task file is malformed or missing.
    """
    from stepjax.envs.desktop.tasks.files import load_tasks
    from stepjax.envs.desktop.upstream.needs import Abilities, obstacles

    folder = task_folder(env)
    specs = load_tasks(folder, env.task_list)
    abilities = Abilities(root=os.geteuid() == 0)
    running = [
        spec
        for spec in specs
        if not obstacles(spec, cache=env.cache, abilities=abilities)
    ]
    if len(running) == len(specs):
        return running
    options = {"--tasks": folder, "--task-list": env.task_list, "--cache": env.cache}
    given = [f"{name} {shlex.quote(str(at))}" for name, at in options.items() if at]
    line = (
        f"{len(running)} of {len(specs)} tasks of env.tasks can run here, the others "
        "are left out; for the reasons run: python -m stepjax.envs.desktop validate "
        + " ".join(given)
    )
    if not running:
        raise UsageError(line)
    _LOG.warning("%s", line)
    return running


def _ids_of(tasks: Any, part: Any, ids: np.ndarray) -> np.ndarray:
    """Where the tasks `ids` of one table stand in another."""
    place = {name: number for number, name in enumerate(tasks.names)}
    return np.array([place[part.names[number]] for number in ids], np.int32)
