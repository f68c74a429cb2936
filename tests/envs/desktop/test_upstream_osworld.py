"""OSWorld's own tasks on a real desktop, set up and judged by upstream's own code.

The tasks are the user's: STEPJAX_OSWORLD_TASKS names an `evaluation_examples` folder.
Input files that OSWorld keeps elsewhere are made here, for tasks without a gold file.
"""

import datetime
import os
from pathlib import Path

import pytest

from stepjax.envs.actions import Action, ActionKind
from stepjax.envs.desktop.tasks.files import load_task
from stepjax.envs.desktop.upstream import Evaluators, UpstreamError
from stepjax.envs.desktop.upstream.assets import assets_of
from stepjax.envs.desktop.upstream.install import find_interpreter

pytestmark = pytest.mark.desktop

VARIABLE = "STEPJAX_OSWORLD_TASKS"
RENAME = "os/e0df059f-28a6-4169-924f-b9623e7184cc"
HOURS = "libreoffice_calc/357ef137-7eeb-4c80-a3bb-0951f26a8aff"
CENTER = "libreoffice_writer/3ef2b351-8a84-4ff2-8724-d86eae9b842e"
PANE = "libreoffice_impress/ef9d12bd-bcee-4ba0-a40e-918400f43ddf"
BATTERY = "os/fe41f596-a71b-4c2f-9b2f-9dcd40b568c3"


def press(*keys):
    return Action(kind=ActionKind.PRESS, keys=keys)


def write(text):
    return Action(kind=ActionKind.TYPE, text=text)


def wait(seconds):
    return Action(kind=ActionKind.WAIT, amount=seconds)


DONE = Action(kind=ActionKind.DONE)
FAIL = Action(kind=ActionKind.FAIL)
TO_E3 = (press("ctrl", "home"), *[press("down")] * 2, *[press("right")] * 4)
# The entry of the View menu that the task itself used to hide the slide pane.
SLIDE_PANE = (
    press("escape"),
    press("f10"),
    *[press("right")] * 2,
    *[press("down")] * 11,
    press("enter"),
    wait(2.0),
)


def in_terminal(line):
    return (press("ctrl", "alt", "t"), wait(3.0), write(line + "\n"), wait(1.0), DONE)


RUNS = {
    "rename-nothing": (RENAME, (DONE,), 0.0),
    "rename-wrong": (
        RENAME,
        in_terminal("mv ~/Desktop/todo_list_Jan_1 ~/Desktop/todo_list_Feb_1"),
        0.0,
    ),
    "rename-right": (
        RENAME,
        in_terminal("mv ~/Desktop/todo_list_Jan_1 ~/Desktop/todo_list_Jan_2"),
        1.0,
    ),
    "hours-nothing": (HOURS, (DONE,), 0.0),
    "hours-wrong": (HOURS, (*TO_E3, write("=C3*D3\n"), wait(1.0), DONE), 0.0),
    "hours-right": (HOURS, (*TO_E3, write("=C3*24*D3\n"), wait(1.0), DONE), 1.0),
    "center-nothing": (CENTER, (DONE,), 0.0),
    "center-wrong": (CENTER, (press("ctrl", "home"), press("ctrl", "r"), DONE), 0.0),
    "center-right": (CENTER, (press("ctrl", "home"), press("ctrl", "e"), DONE), 1.0),
    "pane-nothing": (PANE, (DONE,), 0.0),
    "pane-wrong": (PANE, (press("escape"), press("f5"), press("escape"), DONE), 0.0),
    "pane-right": (PANE, (*SLIDE_PANE, DONE), 1.0),
    "battery-done": (BATTERY, (DONE,), 0.0),
    "battery-cut": (BATTERY, (), 0.0),
    "battery-fail": (BATTERY, (FAIL,), 1.0),
}


@pytest.fixture(scope="module")
def tasks():
    folder = os.environ.get(VARIABLE)
    if not folder:
        pytest.skip(f"{VARIABLE} does not name an evaluation_examples folder")
    return Path(folder)


@pytest.fixture(scope="module")
def evaluators(tmp_path_factory):
    try:
        find_interpreter()
    except UpstreamError as error:
        pytest.skip(str(error))
    cache = tmp_path_factory.mktemp("cache")
    with Evaluators(cache=cache, start_timeout=600.0) as made:
        made.cache = cache
        yield made


@pytest.fixture
def start():
    """Starts desktops; ends them after the test."""
    from stepjax.envs.desktop.sandbox import SandboxError, SandboxSpec, start_sandbox

    sandboxes = []

    def start_one(needs_root):
        if needs_root and os.geteuid() != 0:
            pytest.skip("the task needs root")
        spec = SandboxSpec(width=1920, height=1080, needs_root=needs_root)
        try:
            sandboxes.append(start_sandbox(spec, timeout=120.0))
        except SandboxError as error:
            pytest.skip(f"no desktop starts here: {error}")
        return sandboxes[-1]

    yield start_one
    for sandbox in sandboxes:
        sandbox.close()


def make_hours(path):
    """Total hours as a time in C3, an hourly rate in D3."""
    import openpyxl

    book = openpyxl.Workbook()
    sheet = book.active
    for column, head in enumerate(("Day", "Name", "Total hours", "Rate", "Earned"), 1):
        sheet.cell(2, column, head)
    sheet["C3"] = datetime.time(7, 40)
    sheet["C3"].number_format = "[H]:MM"
    sheet["D3"] = 25
    book.save(path)


def make_letter(path):
    """A heading and some text."""
    import docx

    document = docx.Document()
    document.add_heading("Constitution of the club", level=1)
    document.add_paragraph("Article one: there is a club.")
    document.save(path)


MAKERS = {HOURS: make_hours, CENTER: make_letter}


def fill_cache(spec, cache):
    for asset in assets_of(spec.data, source=spec.source):
        folder = cache / spec.id
        folder.mkdir(exist_ok=True)
        MAKERS[spec.name](folder / asset.name)


def carry_out(sandbox, actions):
    """The kind of the last action, if it ends an episode."""
    from stepjax.envs.desktop.client import DesktopClient
    from stepjax.envs.desktop.input_plan import plan

    client = DesktopClient(sandbox.socket, sandbox.token, timeout=60.0)
    try:
        for action in actions:
            if action.kind in (ActionKind.DONE, ActionKind.FAIL):
                return action.kind
            operations = plan(action, width=1920, height=1080)
            client.act(operations, settle_ms=400)
            client.rest()
        return None
    finally:
        client.close()


@pytest.mark.parametrize("run", RUNS)
def test_scores(run, tasks, evaluators, start):
    name, actions, score = RUNS[run]
    spec = load_task(tasks / "examples" / f"{name}.json")
    fill_cache(spec, evaluators.cache)
    sandbox = start(spec.needs_root)
    evaluators.setup(spec, sandbox, timeout=400.0)
    ended_by = carry_out(sandbox, actions)
    verdict = evaluators.judge(spec, sandbox, ended_by=ended_by, timeout=400.0)
    assert verdict.score == score, verdict.note
