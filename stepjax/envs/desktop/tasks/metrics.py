"""Judging what an agent left behind: texts, folders and windows.

A metric takes what a getter found and what the task expects, and returns 1.0 or 0.0.
None stands for what is not there, and is always worth 0.
"""

from collections.abc import Callable
from typing import Any

from stepjax.envs.desktop.tasks.office import (
    match_cells,
    match_paragraphs,
    match_slides,
)
from stepjax.envs.desktop.tasks.pictures import match_picture

__all__ = ["METRICS", "Metric"]

Metric = Callable[..., float]


def _exact_match(result: Any, rules: dict[str, Any]) -> float:
    """Same text as `expected`, but for white space around it."""
    return float(_text(result) == _text(rules["expected"]) and result is not None)


def _check_include_exclude(result: Any, rules: dict[str, Any]) -> float:
    """A text that holds all of `include` and nothing of `exclude`."""
    if result is None:
        return 0.0
    text = result if isinstance(result, str) else _text(result)
    return float(
        all(part in text for part in rules.get("include", ()))
        and not any(part in text for part in rules.get("exclude", ()))
    )


def _match_lines(result: Any, rules: dict[str, Any]) -> float:
    """A text file of just these `lines`; white space at line ends does not count."""
    if not isinstance(result, bytes):
        return 0.0
    try:
        text = result.decode("utf-8")
    except UnicodeDecodeError:
        return 0.0
    lines = [line.rstrip() for line in text.rstrip().split("\n")]
    return float(lines == [line.rstrip() for line in rules["lines"]])


def _match_listing(result: Any, rules: dict[str, Any]) -> float:
    """A folder that holds just `entries`: "file" or "folder" by relative path."""
    return float(isinstance(result, dict) and result == rules["entries"])


def _match_windows(result: Any, rules: dict[str, Any]) -> float:
    """Some window's title holds `include`, and none holds any of `exclude`."""
    if not isinstance(result, list):
        return 0.0
    titles = [title.lower() for title in result]
    wanted = rules["include"].lower()
    unwanted = [part.lower() for part in rules.get("exclude", ())]
    return float(
        any(wanted in title for title in titles)
        and not any(part in title for part in unwanted for title in titles)
    )


def _text(value: Any) -> str:
    if isinstance(value, bytes):
        return value.decode("utf-8", "replace").strip()
    return str(value).strip()


METRICS: dict[str, Metric] = {
    "exact_match": _exact_match,
    "check_include_exclude": _check_include_exclude,
    "match_lines": _match_lines,
    "match_listing": _match_listing,
    "match_windows": _match_windows,
    "match_cells": match_cells,
    "match_paragraphs": match_paragraphs,
    "match_slides": match_slides,
    "match_picture": match_picture,
}
"""Metrics by their name in a task."""
