"""Real applications on a sandboxed desktop, as an environment."""

import contextlib
import dataclasses
import logging
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from stepjax.envs.actions import Action, ActionKind
from stepjax.envs.base import Observation, StepResult, Task, Widget
from stepjax.envs.desktop.ahead import AheadSetup
from stepjax.envs.desktop.booted import Desktop, DesktopPhase
from stepjax.envs.desktop.preparing import Preparation, Setup, await_quiet
from stepjax.envs.desktop.screen_states import ScreenStates
from stepjax.envs.desktop.settings import DesktopSettings
from stepjax.envs.desktop.spares import SparePool
from stepjax.envs.desktop.tasks.schema import TaskSpec

__all__ = [
    "DesktopDiedError",
    "DesktopEnvironment",
    "LoadTask",
]

LoadTask = Callable[[str, int], TaskSpec]
"""`load(name, seed)`: what to set up and how to judge it."""

Plan = Callable[..., Sequence[dict[str, Any]]]
Evaluate = Callable[..., float]

_LOG = logging.getLogger(__name__)
_END_KINDS = (ActionKind.DONE, ActionKind.FAIL)
_DYING_SECONDS = 0.5


class DesktopDiedError(RuntimeError):
    """A desktop ended in the middle of an episode, whoever is to blame."""


class DesktopEnvironment:
    """One desktop at a time, a new one for every episode (an `Environment`).

    DONE and FAIL end an episode and touch nothing. A task that cannot be done is
    solved by FAIL and by nothing else; FAIL on any other task is worth 0. An episode
    that was cut is judged as it stands. Reverting is dropping the desktop: whatever
    happened in it is gone.
    """

    def __init__(
        self,
        spares: SparePool,
        load: LoadTask,
        *,
        settings: DesktopSettings | None = None,
        states: ScreenStates | None = None,
        plan: Plan | None = None,
        setup: Setup | None = None,
        evaluate: Evaluate | None = None,
        ahead: AheadSetup | None = None,
    ):
        """An environment; it takes a desktop with the first reset.

        Args:
          spares: Where desktops come from; shared, and closed by whoever made it.
          load: Maps a task's name and a seed to its specification.
          settings: How to look at the desktop; None for the defaults.
          states: Names of screens; shared by environments whose hashes are compared.
          plan: `plan(action, width=, height=)`; None for `input_plan.plan`.
          setup: `setup(spec, client)`; None for `tasks.setup.run_setup`.
          evaluate: `evaluate(spec, client, ended_by=)`; None for `tasks.evaluate`'s.
          ahead: What may have set the task up already.
        """
        self._spares, self._load = spares, load
        self._settings = settings or DesktopSettings()
        self._states = states or ScreenStates()
        self._plan = plan or _default_plan()
        self._prepare = Preparation(self._settings, setup)
        self._ahead = ahead
        self._judge = evaluate or _default_evaluate()
        self._lock = threading.Lock()
        self._closed = False
        self._desktop: Desktop | None = None
        self._name = ""
        self._spec: TaskSpec | None = None
        self._last: Observation | None = None
        self._ended_by: ActionKind | None = None
        self._screen = (0, 0)

    def reset(self, task: Task, seed: int) -> Observation:
        """Set `task` up on a new desktop.

        Raises:
          ValueError: If there is no such task, or it is malformed.
          NoDesktopError: If no desktop boots.
          TimeoutError: If no desktop is ready in time.
          DesktopDiedError: If two desktops in a row die while it is set up.
          DesktopError: If it cannot be set up.
        """
        self._drop()
        self._name = task.name
        self._spec = spec = self._load(task.name, int(seed))
        self._ended_by = self._last = None
        ready = self._ahead.take(task.name, int(seed)) if self._ahead else None
        try:
            return self._start(spec, ready)
        except DesktopDiedError:
            self._drop()
            return self._start(spec)  # a spare may die unnoticed; twice is no chance

    def step(self, action: Action) -> StepResult:
        """Carry out one action.

        Raises:
          RuntimeError: If nothing has been set up.
          DesktopDiedError: If the desktop ended meanwhile.
          DesktopError: If its server does not answer as it should.
        """
        desktop, spec, last = self._held()
        rest, self._ended_by = _split_end(action)
        if rest is not None:
            operations = self._operations(_aimed(rest, last.widgets or ()))
            with self._blaming(desktop, "an action"):
                last = self._look(desktop, spec, operations)
        return StepResult(observation=last, terminated=self._ended_by is not None)

    def evaluate(self) -> float:
        """1.0 if the task is done, as its evaluator sees it; shares where it has any.

        Raises:
          RuntimeError: If nothing has been set up.
          DesktopDiedError: If the desktop ended meanwhile.
          DesktopError: If what is to be judged cannot be read.
        """
        desktop, spec, _ = self._held()
        if spec.infeasible or self._ended_by is ActionKind.FAIL:
            return float(spec.infeasible and self._ended_by is ActionKind.FAIL)
        self._spares.note(desktop, DesktopPhase.EVALUATING)
        with self._blaming(desktop, "the evaluation"):
            await_quiet(desktop.client, self._settings)
            reward = float(self._judge(spec, desktop.client, ended_by=self._ended_by))
        self._spares.note(desktop, DesktopPhase.ACTING)
        return reward

    def kill(self) -> None:
        """End the desktop while a call of it hangs; safe from any thread."""
        with self._lock:
            self._closed = True
            desktop = self._desktop
        if desktop is not None:
            self._spares.end(desktop, hangs=True)

    def close(self) -> None:
        """Have the desktop ended; may be called twice."""
        self._closed = True
        self._drop()

    def _start(self, spec: TaskSpec, ready: Desktop | None = None) -> Observation:
        desktop = ready or self._spares.take(
            needs_root=spec.needs_root, timeout=self._settings.take_seconds
        )
        with self._lock:
            self._desktop = desktop
            closed = self._closed
        if closed:  # killed while it waited
            self._drop()
            raise RuntimeError("the environment is closed.")
        with self._blaming(desktop, "setting up"):
            if not ready:
                self._prepare(desktop, spec)
            first = self._look(desktop, spec, ())
        self._spares.note(desktop, DesktopPhase.ACTING)
        return first

    def _operations(self, action: Action) -> Sequence[dict[str, Any]]:
        """What the input devices do; nothing for an action that makes no sense."""
        width, height = self._screen
        try:
            return self._plan(action, width=width, height=height)
        except ValueError as error:
            # The agent's mistake and not the desktop's: a step gone by, not a fault.
            _LOG.info("nothing done for an impossible action: %s", error)
            return ()

    def _held(self) -> tuple[Desktop, TaskSpec, Observation]:
        if self._desktop is None or self._spec is None or self._last is None:
            raise RuntimeError("DesktopEnvironment: call reset first.")
        return self._desktop, self._spec, self._last

    def _drop(self) -> None:
        with self._lock:
            desktop, self._desktop = self._desktop, None
        if desktop is not None:
            self._spares.end(desktop)

    def _look(
        self, desktop: Desktop, spec: TaskSpec, operations: Sequence[dict[str, Any]]
    ) -> Observation:
        """What is on the screen after some input."""
        view = desktop.client.act(
            operations,
            settle_ms=self._settings.settle_ms if operations else 0,
            size=self._settings.image_size,
            widgets=self._settings.widgets,
        )
        self._screen = (view.width, view.height)
        self._last = Observation(
            instruction=spec.instruction,
            screenshot=view.image,
            widgets=view.widgets if self._settings.widgets else None,
            state_hash=self._states.hash_of(self._name, view.image),
        )
        return self._last

    @contextlib.contextmanager
    def _blaming(self, desktop: Desktop, what: str) -> Iterator[None]:
        """Says so if the desktop is what an exception is really about."""
        try:
            yield
        except Exception as error:
            if not _dies(desktop):
                raise
            raise DesktopDiedError(
                f"the desktop died during {what}: {desktop.why_dead()}"
            ) from error


def _split_end(action: Action) -> tuple[Action | None, ActionKind | None]:
    """What is to be carried out, and how the episode then ends, if it does."""
    if action.kind in _END_KINDS:
        return None, action.kind
    for index, part in enumerate(action.parts):
        if part.kind in _END_KINDS:
            before = action.parts[:index]
            rest = dataclasses.replace(action, parts=before) if before else None
            return rest, part.kind
    return action, None


def _aimed(action: Action, widgets: Sequence[Widget]) -> Action:
    """The action with a place, where it only names a widget."""
    if action.parts:
        parts = tuple(_aimed(part, widgets) for part in action.parts)
        return dataclasses.replace(action, parts=parts)
    index = action.widget
    if index is None or action.x is not None or not 0 <= index < len(widgets):
        return action
    left, top, right, bottom = widgets[index].box
    return dataclasses.replace(action, x=(left + right) / 2, y=(top + bottom) / 2)


def _dies(desktop: Desktop) -> bool:
    """True if a desktop is dead, or about to be: its server may go a moment earlier."""
    until = time.monotonic() + _DYING_SECONDS
    while desktop.alive() and time.monotonic() < until:
        time.sleep(0.05)
    return not desktop.alive()


def _default_plan() -> Plan:
    from stepjax.envs.desktop.input_plan import plan

    return plan


def _default_evaluate() -> Evaluate:
    from stepjax.envs.desktop.tasks.evaluate import evaluate

    return evaluate
