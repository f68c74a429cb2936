"""Several servers: addresses, locks, what a crash left, and what must be the same."""

import concurrent.futures
import json
import os
import subprocess
import sys

import pytest

from stepjax.envs.androidworld.errors import AndroidWorldError, UnreachableError
from stepjax.envs.androidworld.facts import FACTS
from stepjax.envs.androidworld.fleet import AndroidWorldFleet, split_urls
from stepjax.envs.androidworld.journal import Journal
from stepjax.envs.androidworld.settings import AndroidWorldSettings, CallSeconds
from stepjax.envs.androidworld.tasks import (
    android_world_tasks,
    app_of,
    step_budget,
)
from stepjax.envs.base import Task
from tests.envs.androidworld.stand_in import TASKS, PhoneServer, serving


@pytest.fixture
def make(settings, tmp_path):
    made = []

    def make(*urls, **options):
        options = {"settings": settings, "journals": tmp_path} | options
        fleet = AndroidWorldFleet(urls, budget_of=step_budget, **options)
        made.append(fleet)
        return fleet

    yield make
    for fleet in made:
        fleet.close()


def test_urls():
    assert split_urls("http://127.0.0.1:1, http://127.0.0.1:2,") == (
        "http://127.0.0.1:1",
        "http://127.0.0.1:2",
    )
    for twice in ("http://127.0.0.1:1,http://localhost:1/", "http://h.invalid," * 2):
        with pytest.raises(ValueError, match="one server twice"):
            split_urls(twice)
    for none in ("", " , ", "http://a,b"):
        with pytest.raises(ValueError, match="url must"):
            split_urls(none)


def test_phones_are_reached_and_compared(make, phone):
    with serving(PhoneServer()) as other:
        fleet = make(phone.url, other.url)
        assert fleet.open() == TASKS
        assert fleet.status_line() == "0 of 2 phones at work"
        other.size = (30, 60)
        with pytest.raises(AndroidWorldError, match="phones of one run must have one"):
            fleet.open()
    assert phone.left == []


def test_servers_must_offer_the_same(make, phone, monkeypatch):
    with serving(PhoneServer()) as other:
        sound = other.make_suite

        def poorer(*arguments):
            sound(*arguments)
            del other.suite["CameraTakePhoto"]

        monkeypatch.setattr(other, "make_suite", poorer)
        with pytest.raises(AndroidWorldError, match="different tasks, CameraTakePhoto"):
            make(phone.url, other.url).open()


def test_a_size_asked_for(make, phone, settings):
    wrong = AndroidWorldSettings(screen=(1080, 2400), patience=0.0)
    with pytest.raises(
        AndroidWorldError,
        match="36 x 80 pixels, unlike the 1080 x 2400 of the settings",
    ):
        make(phone.url, settings=wrong).open()
    assert phone.left == []


def test_one_run_at_a_time(make, phone, tmp_path):
    make(phone.url)
    with pytest.raises(ValueError, match=rf"in use by process {os.getpid()} on this"):
        make(phone.url)


def test_locks_are_given_back_if_one_is_missing(make, phone):
    with serving(PhoneServer()) as other:
        first = make(phone.url)
        with pytest.raises(ValueError, match="in use"):
            make(other.url, phone.url)
        first.close()
        make(other.url, phone.url)


def test_what_a_crash_left_is_torn_down(make, phone, tmp_path):
    phone.suite["ClockTimerEntry"][0].initialized = True
    program = (
        "import os, sys; from pathlib import Path\n"
        "from stepjax.envs.androidworld.journal import Journal\n"
        "Journal(sys.argv[1], Path(sys.argv[2])).write('ClockTimerEntry')\n"
        "os._exit(1)"
    )
    subprocess.run(
        [sys.executable, "-c", program, phone.url, str(tmp_path)], timeout=60
    )
    fleet = make(phone.url)
    assert fleet.status_line().endswith("at work: ClockTimerEntry")
    fleet.open()
    assert phone.left == []
    downs = [query for route, query, _ in phone.requests if route == "/task/tear_down"]
    assert downs == [{"task_type": "ClockTimerEntry", "task_idx": "0"}]
    fleet.close()
    (file,) = tmp_path.iterdir()
    assert json.loads(file.read_text())["task"] is None


@pytest.mark.parametrize(
    "text", [b"", b"[]", b"{", b'{"task": 7}', b"\xff" * 9999, b"[" * 9999]
)
def test_a_garbled_journal_is_none(tmp_path, text):
    Journal("http://h:1", tmp_path).close()
    (file,) = tmp_path.iterdir()
    file.write_bytes(text)
    journal = Journal("http://h:1", tmp_path)
    assert journal.task is None
    journal.close()


def test_a_folder_that_cannot_be_written(tmp_path):
    (tmp_path / "file").write_text("")
    journal = Journal("http://h:1", tmp_path / "file" / "below")
    journal.write("x")
    assert journal.task == "x"
    journal.close()


def test_a_later_phone_takes_over(make, phone):
    fleet = make(phone.url)
    first = fleet(0)
    on = Task(task_id=4, name=TASKS[4], instruction="", domain="")
    first.reset(on, 0)
    second = fleet(0)
    assert phone.left == [], "what was abandoned is torn down"
    second.reset(on, 1)
    first.close()
    assert phone.left == [on.name], "and does not tear down what it has not set up"
    second.close()
    assert phone.left == []


def test_patience(make, phone, settings):
    patient = AndroidWorldSettings(patience=20.0, seconds=CallSeconds(quick=20.0))
    fleet = make(phone.url, settings=patient)
    phone.fail("/health", *["hang up"] * 3, 503, 500, b"<html>")
    fleet(0).close()
    with serving(PhoneServer()) as gone:
        url = gone.url
    with pytest.raises(UnreachableError):
        make(url).open()


def test_nobody_is_waited_for_at_the_end(make, phone):
    """A run that is stopped while its server is away ends at once."""
    with serving(PhoneServer()) as gone:
        url = gone.url
    fleet = make(url, settings=AndroidWorldSettings(patience=3600.0))
    with concurrent.futures.ThreadPoolExecutor(1) as threads:
        waiting = threads.submit(fleet, 0)
        with pytest.raises(TimeoutError):
            waiting.result(0.3)
        fleet.hurry()
        with pytest.raises(UnreachableError):
            waiting.result(60)


def test_numbers_of_serials(make, phone):
    with pytest.raises(ValueError, match="one for each of the 1 servers, got 2"):
        make(phone.url, serials=["a", "b"])
    with pytest.raises(ValueError, match="serial must be as adb devices lists it"):
        make(phone.url, serials=["-x; rm"])


def test_the_table():
    table = android_world_tasks(TASKS)
    assert table.names == tuple(sorted(TASKS))
    assert sorted([*table.train_ids, *table.unseen_ids]) == list(range(len(TASKS)))
    assert len(table.train_ids) == 2 and table.train_ids.dtype.name == "int32"
    assert not table.infeasible.any() and table.instruction(0, 0) == ""
    assert android_world_tasks(TASKS, only=["ClockTimerEntry"]).names == (
        "ClockTimerEntry",
    )
    with pytest.raises(ValueError, match="ClockTimerEntri is unknown.*ClockTimerEntry"):
        android_world_tasks(TASKS, only=["ClockTimerEntri"])
    with pytest.raises(ValueError, match="at least one task"):
        android_world_tasks(TASKS, only=[])


def test_the_papers_split():
    """43 of 116, at least one of each application; budgets as AndroidWorld's."""
    table = android_world_tasks(tuple(FACTS))
    assert len(table.names) == 116
    assert (len(table.train_ids), len(table.unseen_ids)) == (43, 73)
    trained = {table.domains[one] for one in table.train_ids}
    assert trained == set(table.domains)
    assert step_budget("OsmAndTrack") == 120 and step_budget("ContactsAddContact") == 12
    other = android_world_tasks(tuple(FACTS), seed=1)
    assert set(other.train_ids) != set(table.train_ids)


def test_tasks_that_nobody_knows():
    assert step_budget("MiniWobClickTest") == 30 and step_budget("Whatever") == 30
    assert app_of("NewAppDoThis") == "new" and app_of("???") == "other"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"family": ""}, "family must not be empty"),
        ({"max_steps": 0}, "max_steps must be >= 1, got 0"),
        ({"shrink": 0}, "shrink must be >= 1"),
        ({"patience": float("nan")}, "patience must be >= 0 seconds"),
        ({"suite_seed": -1}, "suite_seed must be in"),
        ({"screen": (0, 5)}, "screen must be a width"),
    ],
)
def test_settings_out_of_range(options, message):
    with pytest.raises(ValueError, match=message):
        AndroidWorldSettings(**options)
    with pytest.raises(ValueError, match="screenshot must be > 0"):
        CallSeconds(screenshot=0.0)
