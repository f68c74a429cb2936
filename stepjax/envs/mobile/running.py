"""Programs of several phones, advanced together over one connection."""

import contextlib
from collections.abc import Sequence
from typing import Any, cast

from stepjax.envs.miniwob.cdp import Command, DevTools
from stepjax.envs.mobile import programs
from stepjax.envs.mobile.programs import Program
from stepjax.envs.vector import SlotError

__all__ = ["run_programs"]


def run_programs(
    tools: DevTools,
    running: dict[int, Program],
    sessions: Sequence[str],
    phones: Sequence[str],
) -> dict[int, list[Any]]:
    """What each slot's program comes to; their commands go out together.

    Args:
      tools: The connection.
      running: Programs by slot.
      sessions: Of the tabs, by slot.
      phones: The objects in them that are phones, by slot.

    Returns:
      Last words by slot: done, raw reward, the observation as JSON.

    Raises:
      BrowserError: If the browser fails.
      SlotError: If a page failed.
    """
    replies: dict[int, list[Any]] = {}
    failed: dict[int, str] = {}
    asked: dict[int, list[Any]] = {slot: [] for slot in running}
    with contextlib.ExitStack() as stack:
        for program in running.values():
            stack.callback(program.close)
        while asked:
            wanted = _wanted(running, asked, replies, failed)
            commands: list[Command] = [
                (sessions[slot], *programs.bind(one, phones[slot]))
                for slot, steps in wanted.items()
                for one in steps
            ]
            results = iter(tools.gather(commands))
            asked = {
                slot: [next(results) for _ in steps] for slot, steps in wanted.items()
            }
    for slot, (done, reason, _) in replies.items():
        if done < 0:
            failed[slot] = str(reason)
    if failed:
        text = "; ".join(f"slot {slot}: {why}" for slot, why in failed.items())
        raise SlotError(list(failed), text)
    return replies


def _wanted(
    running: dict[int, Program],
    asked: dict[int, list[Any]],
    replies: dict[int, list[Any]],
    failed: dict[int, str],
) -> dict[int, list[programs.Step]]:
    """The next commands of every program that goes on after its answers."""
    wanted: dict[int, list[programs.Step]] = {}
    for slot, answers in asked.items():
        try:
            wanted[slot] = running[slot].send(answers or cast(Any, None))
        except StopIteration as stop:
            replies[slot] = stop.value
        except programs.PageError as error:
            failed[slot] = str(error)
    return wanted
