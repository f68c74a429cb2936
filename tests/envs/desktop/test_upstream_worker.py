"""Upstream's worker process, with a stand-in for upstream: faults and sandbox."""

import errno
import os
import stat
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import pytest

from stepjax.envs.actions import ActionKind
from stepjax.envs.desktop.client import DesktopClient, DesktopError
from stepjax.envs.desktop.sandbox import clean_leftovers
from stepjax.envs.desktop.upstream.assets import asset_name
from stepjax.envs.desktop.upstream.bridge import SocketAddress
from stepjax.envs.desktop.upstream.errors import UpstreamError
from stepjax.envs.desktop.upstream.evaluators import (
    Evaluators,
    evaluate_upstream,
    setup_upstream,
)
from stepjax.envs.desktop.upstream.install import find_interpreter
from stepjax.envs.desktop.upstream.jail import open_command
from stepjax.envs.desktop.upstream.process import WorkerProcess
from stepjax.envs.desktop.upstream.worker_pool import WorkerPool
from tests.envs.desktop.fake_upstream import (
    TOKEN,
    FakeDesktop,
    make_evaluators,
    make_task,
)

pytestmark = pytest.mark.slow
START = 120.0


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return make_evaluators(tmp_path_factory.mktemp("evaluators") / "venv")


@pytest.fixture
def desktop(tmp_path):
    server = FakeDesktop(tmp_path)
    yield server
    server.stop()


@pytest.fixture
def address(desktop):
    return SocketAddress(socket=desktop.socket_path, token=TOKEN)


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="module")
def evaluators(folder, cache):
    """Unsandboxed, so that the tests run where bubblewrap does not."""
    python = find_interpreter(folder)
    with Evaluators(
        cache=cache,
        command=lambda exchange: open_command(python),
        start_timeout=START,
    ) as made:
        yield made


@pytest.mark.parametrize(
    ("func", "score", "note"),
    [
        ("one", 1.0, ""),
        ("half", 0.5, ""),
        ("many", 1.0, ""),
        ("none", 0.0, "the metric returned NoneType"),
        ("nan", 0.0, "the metric returned nan"),
        ("raise", 0.0, "ValueError: a broken document"),
        ("server", 1.0, ""),
        ("retry", 0.5, ""),
    ],
)
def test_scores(evaluators, address, func, score, note):
    verdict = evaluators.judge(make_task(func), address)
    assert (verdict.score, verdict.note) == (score, note)


def test_a_metric_that_recurses_is_the_agents_zero(evaluators, address):
    assert evaluators.judge(make_task("recurse"), address).score == 0.0


@pytest.mark.parametrize(
    ("ended_by", "score"),
    [(ActionKind.FAIL, 1.0), (ActionKind.DONE, 0.0), (None, 0.0)],
)
def test_infeasible(evaluators, address, ended_by, score):
    spec = make_task("infeasible")
    found = evaluate_upstream(spec, address, evaluators=evaluators, ended_by=ended_by)
    assert found == score


def test_setup_goes_through_the_bridge(evaluators, desktop, address):
    setup_upstream(make_task(instruction="hello"), address, evaluators=evaluators)
    assert "/setup/hello" in desktop.seen


BUSY = [
    {"type": "launch", "parameters": {"command": ["x"]}},
    {"type": "sleep", "parameters": {"seconds": 0}},
    {"type": "execute", "parameters": {"command": ["python", "-c", "pyautogui"]}},
    {"type": "execute", "parameters": {"command": ["ls"]}},
]


def test_pauses_after_busy_steps(evaluators, address, monkeypatch):
    looks = []
    monkeypatch.setattr(DesktopClient, "rest", lambda _, timeout: looks.append(1))
    evaluators.setup(make_task(config=BUSY), address)
    assert len(looks) == 2
    verdict = evaluators.judge(make_task("steps", postconfig=BUSY), address)
    assert len(looks) == 4
    assert verdict.score == 0.8  # every step was taken, in both calls


def test_no_rest_is_a_fault_and_the_worker_lives(evaluators, address, monkeypatch):
    def fail(client, timeout):
        raise DesktopError("nobody answers")

    evaluators.warm_up()
    workers = list(evaluators._workers._idle)
    monkeypatch.setattr(DesktopClient, "rest", fail)
    with pytest.raises(UpstreamError, match="the desktop does not answer: nobody"):
        evaluators.setup(make_task(config=BUSY), address)
    with pytest.raises(UpstreamError, match="the desktop does not answer: nobody"):
        evaluators.judge(make_task("steps", postconfig=BUSY), address)
    assert evaluators.judge(make_task("one"), address).score == 1.0
    assert evaluators._workers._idle == workers


def test_wrong_token_is_a_fault(evaluators, desktop):
    wrong = SocketAddress(socket=desktop.socket_path, token="guess")
    with pytest.raises(UpstreamError, match="does not answer"):
        evaluators.judge(make_task("server"), wrong)
    with pytest.raises(UpstreamError, match="401"):
        evaluators.setup(make_task(), wrong)


def test_dead_desktop_is_a_fault_and_not_a_zero(evaluators, address):
    with pytest.raises(UpstreamError, match="the desktop does not answer"):
        evaluators.judge(make_task("down"), address)


def test_no_accessibility_tree_is_a_fault(evaluators, address):
    with pytest.raises(UpstreamError, match="gave no accessibility tree"):
        evaluators.judge(make_task("tree"), address)


def test_no_desktop_at_all(evaluators, tmp_path):
    nowhere = SocketAddress(socket=tmp_path / "nothing.sock", token=TOKEN)
    with pytest.raises(UpstreamError):
        evaluators.judge(make_task("server"), nowhere)


@pytest.mark.parametrize(
    ("func", "message"),
    [
        ("crash", "it ended during 'evaluate'"),
        ("hang", "took longer than"),
        ("shout", "no answer"),
        ("forge", "an answer to something else"),
    ],
)
def test_a_bad_worker_is_ended_and_replaced(evaluators, address, func, message):
    with pytest.raises(UpstreamError, match=message) as caught:
        evaluators.judge(
            make_task(func), address, timeout=START if func != "hang" else 2
        )
    assert "\n" not in str(caught.value)
    assert evaluators.judge(make_task("one"), address).score == 1.0


@pytest.mark.parametrize("fail", [False, True])
@pytest.mark.parametrize(
    "func", ["check_python_file_by_test_suite", "check_gnome_favorite_apps"]
)
def test_a_worker_that_ran_the_agents_code_is_not_used_again(
    evaluators, address, func, fail
):
    evaluators.judge(make_task("one"), address)
    first = list(evaluators._workers._idle)
    spec = make_task(func, options={"fail": fail})
    if fail:  # the agent's code can have it answer whatever it likes
        with pytest.raises(UpstreamError, match="no accessibility tree"):
            evaluators.judge(spec, address)
    else:
        evaluators.judge(spec, address)
    assert first and not evaluators._workers._idle
    assert not first[0].alive()


@pytest.mark.parametrize(
    ("func", "options"),
    [
        ("late", {}),
        ("wrapped", {}),
        ("starve", {}),
        ("fill", {"errno": errno.ENOSPC}),
        ("fill", {"errno": errno.EMFILE}),
        ("lack", {}),
    ],
)
def test_what_this_machine_lacks_is_a_fault_and_not_a_zero(
    evaluators, address, func, options
):
    with pytest.raises(UpstreamError, match="the evaluator failed: "):
        evaluators.judge(make_task(func, options=options), address)
    assert evaluators.judge(make_task("one"), address).score == 1.0


@pytest.mark.parametrize(
    ("func", "options"), [("import", {}), ("fill", {"errno": errno.ENOENT})]
)
def test_what_the_agent_left_out_is_a_zero(evaluators, address, func, options):
    verdict = evaluators.judge(make_task(func, options=options), address)
    assert verdict.score == 0.0 and verdict.note


def test_assets_are_given_along(evaluators, address, cache):
    url, target = "https://example.org/x", "/home/user/in.txt"
    name = asset_name(url, target)
    spec = make_task(
        "asset",
        config=[
            {
                "type": "download",
                "parameters": {"files": [{"url": url, "path": target}]},
            }
        ],
        options={"name": name},
    )
    with pytest.raises(ValueError, match=f"t1.json: missing asset .*t1/{name}"):
        evaluators.judge(spec, address)
    (cache / "t1").mkdir()
    (cache / "t1" / name).write_text("gold")
    assert evaluators.judge(spec, address).score == 1.0


def test_nothing_is_left_behind(folder, address):
    python = find_interpreter(folder)
    made = Evaluators(command=lambda _: open_command(python), start_timeout=START)
    made.judge(make_task("one"), address)
    exchange, (worker,) = made._exchange, made._workers._idle
    assert stat.S_IMODE(exchange.stat().st_mode) == 0o700
    assert [path.name for path in exchange.iterdir()] == ["lock"]  # no socket, no copy
    pid = worker._process.pid
    made.close()
    made.close()
    assert not exchange.exists()
    assert not Path(f"/proc/{pid}").exists()
    with pytest.raises(UpstreamError, match="closed"):
        made.judge(make_task("one"), address)


def test_a_killed_trainer_leaves_nothing(folder, tmp_path, monkeypatch):
    program = (
        "import sys, time\n"
        "from pathlib import Path\n"
        "from stepjax.envs.desktop.upstream import Evaluators\n"
        "from stepjax.envs.desktop.upstream.jail import open_command\n"
        "python = Path(sys.argv[1])\n"
        "made = Evaluators(command=lambda _: open_command(python))\n"
        "made.warm_up(timeout=120)\n"
        "print(made._workers._idle[0]._process.pid, flush=True)\n"
        "time.sleep(3600)\n"
    )
    environment = {**os.environ, "TMPDIR": str(tmp_path)}
    with subprocess.Popen(
        [sys.executable, "-c", program, str(find_interpreter(folder))],
        stdout=subprocess.PIPE,
        env=environment,
    ) as trainer:
        assert trainer.stdout is not None
        worker = Path("/proc", trainer.stdout.readline().decode().strip())
        trainer.kill()
    until = time.monotonic() + START
    while worker.exists() and time.monotonic() < until:
        time.sleep(0.05)
    assert not worker.exists()
    assert len(list(tmp_path.iterdir())) == 1
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    assert len(clean_leftovers()) == 1
    assert not list(tmp_path.iterdir())


def test_close_ends_a_call_that_hangs(folder, address):
    python = find_interpreter(folder)
    made = Evaluators(command=lambda _: open_command(python), start_timeout=START)
    made.judge(make_task("one"), address)
    errors = []

    def ask():
        try:
            made.judge(make_task("hang"), address, timeout=START)
        except UpstreamError as error:
            errors.append(str(error))

    thread = threading.Thread(target=ask)
    thread.start()
    while not made._workers._busy:
        time.sleep(0.01)
    made.close()
    thread.join(START)
    assert len(errors) == 1


def test_more_callers_than_workers(evaluators, address):
    scores = []
    threads = [
        threading.Thread(
            target=lambda: scores.append(evaluators.evaluate(make_task("one"), address))
        )
        for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(START)
    assert scores == [1.0] * 4
    assert len(evaluators._workers._idle) == 1


def test_nobody_free_in_time(folder, address):
    python = find_interpreter(folder)
    evaluators = Evaluators(command=lambda _: open_command(python), start_timeout=START)
    hanging = threading.Thread(
        target=lambda: pytest.raises(
            UpstreamError, evaluators.judge, make_task("hang"), address, timeout=START
        )
    )
    evaluators.judge(make_task("one"), address)
    hanging.start()
    while not evaluators._workers._busy:
        time.sleep(0.01)
    with pytest.raises(UpstreamError, match="no evaluator was free within 0.2 s"):
        evaluators.judge(make_task("one"), address, timeout=0.2)
    evaluators.close()
    hanging.join(START)


def test_the_desktop_must_be_an_address(evaluators):
    with pytest.raises(TypeError, match="socket and token"):
        evaluators.judge(make_task("one"), object())
    with pytest.raises(ValueError, match="workers must be >= 1"):
        WorkerPool(lambda: WorkerProcess(["true"]), size=0)


def test_names(evaluators):
    assert evaluators.names() == {
        "setup": ["download", "sleep"],
        "getters": ["rule", "vm_file"],
        "metrics": ["exact_match"],
    }


def test_missing_folder_says_how_to_get_it(tmp_path, monkeypatch):
    with pytest.raises(UpstreamError, match="scripts/install-desktop --evaluators"):
        find_interpreter(tmp_path)
    monkeypatch.setenv("STEPJAX_EVALUATORS", str(tmp_path / "named"))
    with pytest.raises(UpstreamError, match="named"):
        find_interpreter()


def test_broken_installation_is_one_line(folder, tmp_path):
    broken = make_evaluators(tmp_path / "venv")
    (module,) = broken.glob("lib/python3*/site-packages/requests.py")
    module.unlink()
    python = find_interpreter(broken)
    with pytest.raises(UpstreamError, match="not ready: .*requests"):
        WorkerProcess(open_command(python), start_timeout=START)
