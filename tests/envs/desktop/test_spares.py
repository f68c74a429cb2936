import subprocess
import sys
import threading
import time
import types

import pytest

from stepjax.envs.desktop.booted import DesktopPhase, boot_desktop
from stepjax.envs.desktop.spares import NoDesktopError, SparePool
from tests.envs.desktop.fake_desktops import (
    FakeClient,
    FakeDesktops,
    FakeSandbox,
    pool_threads,
    wait_for,
)


@pytest.fixture
def make_pool():
    """Pools that are closed; afterwards nothing of them may be left."""
    pools, makers = [], []

    def make(desktops, **options):
        options.setdefault("check_seconds", 0.05)
        options.setdefault("backoff_seconds", 0.01)
        pools.append(SparePool(desktops, **options))
        makers.append(desktops)
        return pools[-1]

    yield make
    for pool in pools:
        pool.close()
        assert pool.num_alive == 0
    for desktops in makers:
        assert not desktops.left
        assert all(one.client.closed for one in desktops.made)
        assert all(one.sandbox.closed == 1 for one in desktops.made)
    assert not pool_threads()


def failing(*numbers):
    def script(number):
        if not numbers or number in numbers:
            raise OSError("no user\nnamespaces")

    return script


def test_spares_are_booted_ahead_and_replaced(make_pool):
    desktops = FakeDesktops()
    pool = make_pool(desktops, spares=2, max_alive=3)
    wait_for(lambda: pool.phases() == {DesktopPhase.SPARE: 2})
    first = pool.take()
    wait_for(lambda: pool.phases().get(DesktopPhase.SPARE) == 2)
    second = pool.take()
    assert second is not first
    assert pool.counts.waits == 0
    pool.end(first)
    pool.end(first)
    wait_for(lambda: first.sandbox.closed)
    wait_for(lambda: pool.phases().get(DesktopPhase.SPARE) == 2)
    assert pool.counts.reverted == 1
    assert pool.counts.replaced == 0
    assert desktops.most_alive <= 3


def test_no_spares_boots_on_demand(make_pool):
    desktops = FakeDesktops()
    pool = make_pool(desktops, spares=0, max_alive=1)
    time.sleep(0.05)
    assert desktops.asked == 0
    one = pool.take()
    pool.end(one)
    assert pool.take() is not one
    assert desktops.most_alive == 1
    assert pool.counts.waits == 2


def test_dead_spares_are_noticed_and_replaced(make_pool):
    lines = []
    desktops = FakeDesktops()
    pool = make_pool(desktops, spares=1, max_alive=2, report=lines.append)
    wait_for(lambda: len(desktops.made) == 1)
    desktops.kill(desktops.made[0], "out of\nmemory")
    wait_for(lambda: len(desktops.made) == 2)
    assert pool.take() is desktops.made[1]
    assert pool.counts.died == 1
    wait_for(lambda: lines)
    assert lines[0].endswith("died: out of memory")
    assert "1 replaced" in pool.status_line()


def test_a_spare_that_dies_unnoticed_is_not_handed_out(make_pool):
    desktops = FakeDesktops()
    pool = make_pool(desktops, spares=1, max_alive=2, check_seconds=60.0)
    wait_for(lambda: len(desktops.made) == 1)
    desktops.kill(desktops.made[0])
    assert pool.take().alive()


def test_failed_boots_are_retried_with_their_reason(make_pool):
    lines = []
    desktops = FakeDesktops(failing(0, 1))
    pool = make_pool(desktops, spares=0, boot_threads=1, report=lines.append)
    assert pool.take().alive()
    assert pool.counts.boot_failures == 2
    wait_for(lambda: len(lines) == 2)
    assert lines[0] == "a desktop did not boot: no user namespaces"


def test_take_gives_up_after_failures_in_a_row(make_pool):
    desktops = FakeDesktops(failing())
    pool = make_pool(desktops, spares=0, max_failures=3)
    with pytest.raises(NoDesktopError, match="no user namespaces"):
        pool.take()
    asked = desktops.asked
    assert asked >= 3
    with pytest.raises(NoDesktopError):
        pool.take()
    assert desktops.asked >= asked + 3


def test_a_pool_recovers_once_boots_work_again(make_pool):
    broken = threading.Event()
    broken.set()

    def script(number):
        if broken.is_set():
            raise OSError("disk full")

    pool = make_pool(FakeDesktops(script), spares=1)
    with pytest.raises(NoDesktopError, match="disk full"):
        pool.take()
    broken.clear()
    assert pool.take().alive()


def test_wait_ready_says_early_what_is_wrong(make_pool):
    pool = make_pool(FakeDesktops(failing()), spares=1)
    with pytest.raises(NoDesktopError, match="no user namespaces"):
        pool.wait_ready()
    other = make_pool(FakeDesktops(), spares=0)
    other.wait_ready()
    assert other.take().alive()


def test_slow_boots(make_pool):
    release = threading.Event()
    desktops = FakeDesktops(lambda number: release.wait(30))
    pool = make_pool(desktops, spares=1, max_alive=2)
    with pytest.raises(TimeoutError, match=r"within 0\.05 s .*booting"):
        pool.take(timeout=0.05)
    release.set()
    assert pool.take().alive()


def test_close_while_booting_ends_what_boots(make_pool):
    release = threading.Event()
    desktops = FakeDesktops(lambda number: release.wait(30))
    pool = make_pool(desktops, spares=2)
    wait_for(lambda: desktops.booting == 2)
    failures = []

    def take():
        try:
            pool.take()
        except NoDesktopError as error:
            failures.append(str(error))

    taker = threading.Thread(target=take)
    closer = threading.Thread(target=pool.close)
    taker.start()
    closer.start()
    taker.join()
    assert failures == ["the pool of desktops is closed"]
    assert pool.phases() == {DesktopPhase.BOOTING: 2}
    release.set()
    closer.join()
    assert not desktops.left
    with pytest.raises(NoDesktopError, match="closed"):
        pool.take()


def test_close_ends_desktops_in_use_and_after_exceptions():
    desktops = FakeDesktops()
    with pytest.raises(KeyError):
        with SparePool(desktops, spares=1) as pool:
            pool.take()
            raise KeyError("boom")
    assert not desktops.left
    assert not pool_threads()


def test_a_hanging_boot_does_not_hold_close_up_for_ever():
    release = threading.Event()
    desktops = FakeDesktops(lambda number: release.wait(60))
    pool = SparePool(desktops, spares=1, boot_threads=1, close_timeout=0.1)
    wait_for(lambda: desktops.booting == 1)
    pool.close()
    assert pool_threads()
    release.set()
    pool.close()
    assert not desktops.left
    wait_for(lambda: not pool_threads())


def test_both_variants_share_the_limit(make_pool):
    desktops = FakeDesktops()
    pool = make_pool(desktops, spares=2, max_alive=2)
    wait_for(lambda: len(desktops.made) == 2)
    root = pool.take(needs_root=True)
    assert root.needs_root
    plain = pool.take()
    assert not plain.needs_root
    pool.end(plain)
    other = pool.take(needs_root=True)
    assert other.needs_root
    assert desktops.most_alive <= 2


def test_phases_are_kept_while_a_desktop_ends(make_pool):
    gate = threading.Event()
    desktops = FakeDesktops()
    pool = make_pool(desktops, spares=0, max_alive=1)
    desktop = pool.take()
    assert pool.phases() == {DesktopPhase.SETTING_UP: 1}
    pool.note(desktop, DesktopPhase.ACTING)
    assert pool.status_line() == "desktops: 1 acting"
    close, desktop.sandbox.close = desktop.sandbox.close, lambda: gate.wait() and None
    pool.end(desktop, hangs=True)
    pool.note(desktop, DesktopPhase.EVALUATING)
    assert pool.phases() == {DesktopPhase.ENDING: 1}
    assert pool.counts.killed == 1
    close()
    gate.set()
    wait_for(lambda: not pool.num_alive)


def test_faults_of_end_and_report_stop_nothing(make_pool):
    def report(line):
        raise ValueError("no terminal")

    desktops = FakeDesktops(failing(0))
    pool = make_pool(desktops, spares=1, max_alive=1, report=report)
    desktop = pool.take()
    close = desktop.sandbox.close

    def bad_close():
        close()
        raise OSError("cannot end it")

    desktop.sandbox.close = bad_close
    pool.end(desktop)
    assert pool.take() is not desktop


def test_many_takers_in_many_threads(make_pool):
    desktops = FakeDesktops(lambda n: time.sleep(0.001) if n % 3 else failing()(n))
    pool = make_pool(desktops, spares=2, max_alive=5, max_failures=1000)
    taken, lock = [], threading.Lock()

    def episodes(number):
        for turn in range(8):
            desktop = pool.take(needs_root=(number + turn) % 4 == 0)
            with lock:
                taken.append(desktop)
            if turn % 5 == 0:
                desktops.kill(desktop)
            time.sleep(0.001)
            pool.end(desktop)

    threads = [threading.Thread(target=episodes, args=(n,)) for n in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(taken) == len(set(taken)) == 48
    assert desktops.most_alive <= 5
    assert pool.counts.died == 12
    assert pool.counts.reverted == 36


@pytest.mark.parametrize(
    "wrong",
    [
        {"spares": -1},
        {"max_alive": 0},
        {"spares": 3, "max_alive": 2},
        {"boot_threads": 0},
        {"max_failures": 0},
    ],
)
def test_bad_numbers(wrong):
    with pytest.raises(ValueError, match=next(iter(wrong))):
        SparePool(FakeDesktops(), **wrong)
    assert not pool_threads()


def test_boot_desktop_proves_that_it_shows_something():
    sandboxes, clients = [], []

    def start(spec, timeout):
        sandboxes.append(FakeSandbox(spec))
        return sandboxes[-1]

    def connect(socket, token):
        clients.append(FakeClient(sandboxes[-1]))
        if len(clients) == 2:
            sandboxes[-1].dead = "no picture"
        return clients[-1]

    spec = types.SimpleNamespace(needs_root=False)
    desktop = boot_desktop(spec, start_sandbox=start, connect=connect)
    assert desktop.alive()
    assert clients[0].calls == 1
    with pytest.raises(OSError, match="refused"):
        boot_desktop(spec, start_sandbox=start, connect=connect)
    assert sandboxes[1].closed == clients[1].closed == 1


FORGETFUL = """
from stepjax.envs.desktop.spares import SparePool
from tests.envs.desktop.fake_desktops import FakeDesktops
class Loud(FakeDesktops):
    def __call__(self, needs_root):
        desktop = super().__call__(needs_root)
        close = desktop.sandbox.close
        desktop.sandbox.close = lambda: (close(), print("ended", flush=True))
        return desktop
pool = SparePool(Loud(), spares=1, max_alive=2)
pool.take()
pool.wait_ready()
raise SystemExit("forgot")
"""


def test_interpreter_exit_ends_desktops(repository_root):
    done = subprocess.run(
        [sys.executable, "-c", FORGETFUL],
        cwd=repository_root,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.stderr.strip() == "forgot"
    assert set(done.stdout.split()) == {"ended"}
