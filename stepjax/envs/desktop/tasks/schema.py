"""OSWorld's task files, parsed: every mistake is one line that names file and key."""

import dataclasses
import re
from collections.abc import Mapping
from typing import Any

from stepjax.envs.desktop.tasks.setup_types import SETUP_TYPES

__all__ = [
    "Check",
    "Evaluator",
    "SetupStep",
    "TaskSpec",
    "parse_task",
]

_ID = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.\-]{0,127}")
_SUDO = re.compile(r"\bsudo\b")


@dataclasses.dataclass(frozen=True, kw_only=True)
class SetupStep:
    """One thing to do before the agent starts, or before the evaluation.

    Attributes:
      type: A key of `setup_types.SETUP_TYPES`.
      parameters: Its parameters, of checked names and types.
    """

    type: str
    parameters: dict[str, Any]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Check:
    """One condition: `metric(getter(result), getter(expected), **options)`.

    Attributes:
      metric: Name of the metric.
      result: Getter of what the agent left, or None.
      expected: Getter of what it should have left, or None.
      options: Keyword arguments of the metric.
    """

    metric: str
    result: dict[str, Any] | None
    expected: dict[str, Any] | None
    options: dict[str, Any]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Evaluator:
    """How an episode is judged.

    Attributes:
      checks: Conditions; a single "infeasible" where FAIL is the right end.
      conjunction: "and" (all must hold) or "or" (one suffices).
      postconfig: Steps to take before judging, such as saving a document.
    """

    checks: tuple[Check, ...]
    conjunction: str
    postconfig: tuple[SetupStep, ...]


@dataclasses.dataclass(frozen=True, kw_only=True)
class TaskSpec:
    """One task in OSWorld's format.

    Attributes:
      id: Unique within its domain and safe as a file name.
      instruction: What the agent is told.
      config: Steps that set the desktop up.
      evaluator: How it is judged.
      related_apps: Applications it is about.
      domain: Application or family, for grouping in reports.
      needs_root: True if it needs the desktop with root rights.
      infeasible: True if answering FAIL is the right end.
      source: File or generator it came from, for messages.
      data: The whole task as it was given, for evaluators that want it raw.
    """

    id: str
    instruction: str
    config: tuple[SetupStep, ...]
    evaluator: Evaluator
    related_apps: tuple[str, ...]
    domain: str
    needs_root: bool
    infeasible: bool
    source: str
    data: Mapping[str, Any] = dataclasses.field(repr=False, compare=False)

    @property
    def name(self) -> str:
        """Domain and id; OSWorld has ids that two domains share."""
        return f"{self.domain}/{self.id}"


def parse_task(data: Any, *, source: str, domain: str | None = None) -> TaskSpec:
    """A task from the dictionary that a task file holds.

    Args:
      data: The decoded JSON. Keys that the format does not know are ignored.
      source: Where it came from, for messages.
      domain: Family for reports; None for the first related application.

    Raises:
      ValueError: If something is missing, unknown or of a wrong type.

    Example:
      >>> spec = parse_task(
      ...     {"id": "a", "instruction": "Do it.", "evaluator": {"func": "infeasible"}},
      ...     source="a.json",
      ... )
      >>> spec.infeasible
      True
    """
    at = _Place(source)
    if not isinstance(data, dict):
        raise at.error("the task", data, "an object")
    name = _typed(at, data, "id", str)
    if not _ID.fullmatch(name):
        raise at.error(
            "id", name, "1 to 128 of A-Z a-z 0-9 _ . -, beginning with none of . -"
        )
    instruction = _typed(at, data, "instruction", str)
    if not instruction.strip():
        raise at.error("instruction", instruction, "some words")
    apps = _typed(at, data, "related_apps", list, [])
    for index, app in enumerate(apps):
        if not isinstance(app, str):
            raise at.error(f"related_apps[{index}]", app, "a text")
    config = _steps(at, "config", data.get("config"))
    evaluator = _evaluator(at, _typed(at, data, "evaluator", dict))
    root = _typed(at, data, "needs_root", bool, None)
    if root is None:
        root = any(_asks_sudo(step) for step in config + evaluator.postconfig)
    return TaskSpec(
        id=name,
        instruction=instruction,
        config=config,
        evaluator=evaluator,
        related_apps=tuple(apps),
        domain=domain or (apps[0] if apps else "other"),
        needs_root=root,
        infeasible=any(c.metric == "infeasible" for c in evaluator.checks),
        source=source,
        data=data,
    )


class _Place:
    """The file in which something is wrong."""

    def __init__(self, source: str):
        self.source = source

    def error(self, key: str, value: Any, wanted: str) -> ValueError:
        shown = repr(value)
        shown = shown if len(shown) <= 80 else shown[:77] + "..."
        return ValueError(f"{self.source}: {key} is {shown}; it must be {wanted}.")


_MISSING: Any = object()
_NAMES = {str: "a text", list: "a list", dict: "an object", bool: "true or false"}
_NAMES |= {int: "a number", float: "a number"}


def _typed(at: _Place, data: dict, key: str, kind: type, default: Any = _MISSING):
    value = data.get(key, default)
    if value is _MISSING:
        raise ValueError(f"{at.source}: {key} is missing; it must be {_NAMES[kind]}.")
    if value is not default and not isinstance(value, kind):
        raise at.error(key, value, _NAMES[kind])
    return value


def _steps(at: _Place, key: str, value: Any) -> tuple[SetupStep, ...]:
    if value is None:
        return ()
    if not isinstance(value, list):
        raise at.error(key, value, "a list")
    return tuple(_step(at, f"{key}[{index}]", one) for index, one in enumerate(value))


def _step(at: _Place, key: str, value: Any) -> SetupStep:
    if not isinstance(value, dict):
        raise at.error(key, value, "an object with type and parameters")
    kind = value.get("type")
    if not isinstance(kind, str) or kind not in SETUP_TYPES:
        raise at.error(f"{key}.type", kind, f"one of {', '.join(SETUP_TYPES)}")
    parameters = value.get("parameters", {})
    if not isinstance(parameters, dict):
        raise at.error(f"{key}.parameters", parameters, "an object")
    required, optional = SETUP_TYPES[kind]
    for name in required:
        if name not in parameters:
            raise ValueError(
                f"{at.source}: {key}.parameters.{name} is missing ({kind} needs it)."
            )
    known = required | optional
    for name, parameter in parameters.items():
        if name not in known:
            raise ValueError(
                f"{at.source}: {key}.parameters.{name} is unknown; {kind} takes "
                f"{', '.join(known)}."
            )
        _check_parameter(at, f"{key}.parameters.{name}", parameter, known[name])
    return SetupStep(type=kind, parameters=parameters)


def _check_parameter(
    at: _Place, where: str, value: Any, allowed: tuple[type, ...]
) -> None:
    wanted = " or ".join(dict.fromkeys(_NAMES[kind] for kind in allowed))
    wrong_flag = isinstance(value, bool) and bool not in allowed
    if wrong_flag or not isinstance(value, allowed):
        raise at.error(where, value, wanted)
    leaf = where.rpartition(".")[2]
    one: Any = value  # of the right type by now
    if leaf == "command":
        parts = [one] if isinstance(one, str) else one
        if not parts or not all(isinstance(part, str) for part in parts):
            raise at.error(where, value, "a command: a text or a list of texts")
    if leaf == "files":
        for index, file in enumerate(one):
            if not isinstance(file, dict) or not isinstance(file.get("path"), str):
                raise at.error(f"{where}[{index}]", file, "an object with a path")
    if leaf == "seconds" and not 0 <= float(one) <= 600:
        raise at.error(where, value, "between 0 and 600")


def _evaluator(at: _Place, data: dict) -> Evaluator:
    func = data.get("func")
    names = func if isinstance(func, list) else [func]
    if not names or not all(isinstance(one, str) and one for one in names):
        raise at.error("evaluator.func", func, "the name of a metric or a list of such")
    conjunction = data.get("conj", "and")
    if conjunction not in ("and", "or"):
        raise at.error("evaluator.conj", conjunction, "'and' or 'or'")
    if "infeasible" in names and len(names) > 1:
        raise at.error("evaluator.func", func, "'infeasible' alone, or without it")
    several = isinstance(func, list)
    columns = {
        key: _column(at, data, key, len(names), several)
        for key in ("result", "expected", "options")
    }
    checks = tuple(
        Check(metric=name, result=result, expected=expected, options=options or {})
        for name, result, expected, options in zip(
            names, *(columns[key] for key in columns), strict=True
        )
    )
    post = _steps(at, "evaluator.postconfig", data.get("postconfig"))
    return Evaluator(checks=checks, conjunction=conjunction, postconfig=post)


def _column(at: _Place, data: dict, key: str, count: int, several: bool) -> list:
    """The `count` getters or options under `key`, None or {} where there is none."""
    value = data.get(key)
    where = f"evaluator.{key}"
    if value is None:
        return [None] * count
    if several != isinstance(value, list):
        wanted = f"a list of {count}, as evaluator.func" if several else "an object"
        raise at.error(where, value, wanted)
    values = value if several else [value]
    if len(values) != count:
        raise at.error(where, value, f"a list of {count}, as evaluator.func")
    for index, one in enumerate(values):
        spot = f"{where}[{index}]" if several else where
        if one is not None and not isinstance(one, dict):
            raise at.error(spot, one, "an object")
        if one and key != "options" and not isinstance(one.get("type"), str):
            raise at.error(f"{spot}.type", one.get("type"), "the name of a getter")
    return [one or None for one in values]


def _asks_sudo(step: SetupStep) -> bool:
    command = step.parameters.get("command", "")
    return bool(
        _SUDO.search(command if isinstance(command, str) else " ".join(command))
    )
