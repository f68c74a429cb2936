"""Processes that cannot run together are told why, all in the same line."""

import concurrent.futures
import dataclasses
import json
import socket
import threading
import time

import pytest

from stepjax.launch import rendezvous
from stepjax.launch.cluster import LaunchError
from stepjax.launch.frames import HELLO, REFUSED, Wire
from stepjax.launch.preflight import Facts, difference, gather_facts
from stepjax.launch.rendezvous import meet
from tests.launch.meetings import (
    cluster,
    facts,
    free_port,
    meet_all,
    together,
)


def test_equal_processes_meet():
    found = meet_all(3)
    assert [sorted(wires) for wires, _ in found] == [[1, 2], [0], [0]]
    assert {tuple(hosts) for _, hosts in found} == {("host-0", "host-1", "host-2")}
    for wires, _ in found:
        for wire in wires.values():
            wire.close()


def test_own_facts_survive_the_wire_and_agree():
    own = gather_facts({"algo.group_size": 8, "run_dir": "x"})
    assert "stepjax/launch/preflight.py" in own.source and "jax" in own.packages
    again = Facts.from_json(own.to_json())
    assert difference(own, again, 1) is None


@pytest.mark.parametrize(
    "changes, parts",
    [
        ({"python": "3.11"}, ["runs Python 3.11", "python3.12 -m venv"]),
        (
            {"packages": {"jax": "0.11.2", "numpy": "2.4.6"}},
            ["has jax 0.11.2", "on host-1 run: pip install jax==0.12.0"],
        ),
        (
            {"source": {"stepjax/types.py": "1"}, "commit": "bbb"},
            ["experiments/loop.py", "git -C /home/user/stepjax checkout aaa"],
        ),
        (
            {"source": {"stepjax/types.py": "9", "experiments/loop.py": "2"}},
            ["(stepjax/types.py)", "rsync -a host-0:/home/user/stepjax/"],
        ),
        (
            {"settings": {"algo.group_size": 8, "seed": 0}},
            ["--algo.group-size 8 instead of 16", "same flags"],
        ),
    ],
    ids=["python", "package", "commit", "files", "settings"],
)
def test_a_mixed_version_is_named_with_its_fix(changes, parts):
    found = meet_all(2, known=[facts(0), facts(1, **changes)])
    lines = {str(error) for error in found}
    assert all(isinstance(error, LaunchError) for error in found)
    assert len(lines) == 1, "every process says the same"
    (line,) = lines
    assert "\n" not in line and "process 1 (host-1)" in line
    for part in parts:
        assert part in line


def test_a_missing_process_is_named():
    port = free_port()
    calls = [
        lambda index=index: meet(cluster(port, 4, index), facts(index), timeout=2.0)
        for index in (0, 2)
    ]
    found = together(*calls)
    assert str(found[0]) == str(found[1])
    assert "processes 1, 3 of 4 did not arrive within 2 s" in str(found[0])
    assert "arrived: 0 (host-0), 2 (host-2)" in str(found[0])
    assert "--launch.process-id 1" in str(found[0])


def test_an_absent_process_0_is_named():
    with pytest.raises(
        LaunchError, match="cannot reach process 0 at localhost"
    ) as told:
        meet(cluster(free_port(), 2, 1), facts(1), timeout=0.5)
    assert "refused" in str(told.value) and "firewall-rules" in str(told.value)


def test_a_name_nobody_knows():
    place = cluster(1234, 2, 1)
    unknown = type(place)(
        host="no-such-host.invalid", port=1234, num_processes=2, process_id=1
    )
    with pytest.raises(LaunchError, match="cannot reach process 0 at no-such-host"):
        meet(unknown, facts(1), timeout=0.5)


@pytest.mark.parametrize(
    "found_by, setting",
    [("flags", "--launch.coordinator localhost:"), ("slurm", "JAX_COORDINATOR_PORT=")],
)
def test_a_blocked_port_is_named(found_by, setting):
    with socket.create_server(("", 0)) as other:
        port = other.getsockname()[1]
        place = dataclasses.replace(cluster(port, 2, 0), found_by=found_by)
        with pytest.raises(LaunchError, match=f"port {port} .* cannot be opened") as e:
            meet(place, facts(0), timeout=1.0)
    assert setting + str(port + 1) in str(e.value)


def test_a_port_of_another_program_is_named():
    with socket.create_server(("localhost", 0)) as other:

        def greet():
            connection, _ = other.accept()
            connection.sendall(b"SSH-2.0-OpenSSH_9.6 and more\r\n")
            connection.recv(1 << 20)
            connection.close()

        thread = threading.Thread(target=greet)
        thread.start()
        port = other.getsockname()[1]
        with pytest.raises(LaunchError, match="is not the start of a run"):
            meet(cluster(port, 2, 1), facts(1), timeout=5.0)
        thread.join()


def test_strangers_at_the_port_do_not_matter():
    port, done = free_port(), threading.Event()

    def stranger():
        while not done.is_set():
            try:
                with socket.create_connection(("localhost", port), timeout=1.0) as s:
                    s.sendall(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")
                    return
            except OSError:
                done.wait(0.01)

    thread = threading.Thread(target=stranger)
    thread.start()
    first = threading.Thread(target=thread.join, daemon=True)
    first.start()

    def late():
        thread.join(10.0)
        return meet(cluster(port, 2, 1), facts(1), timeout=20.0)

    found = together(lambda: meet(cluster(port, 2, 0), facts(0), timeout=20.0), late)
    done.set()
    assert [sorted(wires) for wires, _ in found] == [[1], [0]]
    for wires, _ in found:
        for wire in wires.values():
            wire.close()


@pytest.fixture
def idle():
    """Function that connects to a port, once it is open, and says nothing."""
    connections = []

    def connect(port: int) -> socket.socket:
        connections.append(connection(port))
        return connections[-1]

    yield connect
    for one in connections:
        one.close()


def connection(port: int) -> socket.socket:
    deadline = time.monotonic() + 20.0
    while True:
        try:
            return socket.create_connection(("localhost", port), timeout=20.0)
        except ConnectionRefusedError:
            assert time.monotonic() < deadline
            time.sleep(0.02)  # not up yet


def started(port: int, count: int, index: int, timeout: float = 20.0):
    """A process that meets the others in a thread; `result` waits for its outcome."""
    pool = concurrent.futures.ThreadPoolExecutor(1)
    future = pool.submit(
        meet, cluster(port, count, index), facts(index), timeout=timeout
    )
    pool.shutdown(wait=False)
    return future


def say_hello(port: int, index: int, count: int) -> Wire:
    """The wire of a process that has said who it is and waits for the others."""
    wire = Wire(connection(port))
    said = json.loads(facts(index).to_json())
    hello = {"process_id": index, "num_processes": count, "facts": said}
    hello["proof"] = rendezvous._proof(hello)
    wire.send(HELLO, json.dumps(hello).encode())
    return wire


def close_all(*found) -> None:
    for wires, _ in found:
        for wire in wires.values():
            wire.close()


def test_connections_that_say_nothing_keep_nobody_waiting(idle):
    """Heard one after the other, three would take longer than all may wait."""
    port = free_port()
    first = started(port, 2, 0)
    for _ in range(3):
        idle(port)
    other = started(port, 2, 1)
    close_all(first.result(60.0), other.result(60.0))


def test_a_connection_that_says_nothing_does_not_prolong_the_wait(idle, monkeypatch):
    monkeypatch.setattr(rendezvous, "_HELLO_SECONDS", 600.0)
    port = free_port()
    first = started(port, 2, 0, timeout=1.0)
    idle(port)
    error = first.exception(30.0)
    assert "did not arrive within 1 s" in str(error)


def test_who_says_one_byte_at_a_time_is_sent_away(idle, monkeypatch):
    monkeypatch.setattr(rendezvous, "_HELLO_SECONDS", 0.4)
    port = free_port()
    first = started(port, 2, 0)
    slow = idle(port)
    slow.settimeout(0.1)
    hello = iter(b"SJX1" + HELLO + (1 << 20).to_bytes(8, "big") + bytes(1 << 20))
    deadline = time.monotonic() + 15.0
    while time.monotonic() < deadline:
        try:
            slow.sendall(bytes([next(hello)]))
            if not slow.recv(1):
                break
        except TimeoutError:
            continue
        except ConnectionError:
            break
    else:
        pytest.fail("it is listened to for ever")
    monkeypatch.setattr(rendezvous, "_HELLO_SECONDS", 10.0)
    close_all(started(port, 2, 1).result(60.0), first.result(60.0))


@pytest.mark.parametrize("order", [(1, 2), (2, 1)])
def test_a_process_that_died_and_was_started_again_takes_part(order):
    port = free_port()
    first = started(port, 3, 0)
    say_hello(port, 1, 3).close()
    others = [started(port, 3, index) for index in order]
    found = [one.result(60.0) for one in (first, *others)]
    assert sorted(found[0][0]) == [1, 2]
    close_all(*found)


def test_a_process_that_died_is_named_as_such():
    port = free_port()
    first = started(port, 2, 0, timeout=1.0)
    say_hello(port, 1, 2).close()
    assert "(arrived: 0 (host-0), but ended again: 1)" in str(first.exception(60.0))


def test_of_two_connections_the_living_counts():
    """However late what the dead one said is heard."""
    here = rendezvous._Arrivals(cluster(1, 2, 0), facts(0))
    with socket.create_server(("localhost", 0)) as server:
        far = [connection(server.getsockname()[1]) for _ in range(2)]
        living, dead = (Wire(server.accept()[0]) for _ in range(2))
    far[1].close()
    for wire in (living, dead):
        here.enter(rendezvous._Hello(wire, 1, 2, facts(1)))
    assert here.complete() and here.wires == {1: living}
    far[0].close()
    assert not here.complete()


def test_two_with_one_number_are_named():
    port = free_port()
    calls = [
        lambda index=index, of=of: meet(cluster(port, of, index), facts(9), timeout=2.0)
        for index, of in ((0, 3), (1, 3), (1, 3))
    ]
    assert "two processes say they are number 1" in str(together(*calls)[0])


def test_who_comes_late_hears_why_all_were_refused():
    port = free_port()
    first, *twins = (started(port, 4, index) for index in (0, 1, 1))
    early = [str(one.exception(60.0)) for one in twins]
    late = started(port, 4, 3)
    lines = {*early, str(late.exception(60.0)), str(first.exception(60.0))}
    assert len(lines) == 1 and "two processes say they are number 1" in lines.pop()


@pytest.mark.parametrize("index", [99, 2, -1])
def test_a_number_that_cannot_be_is_named(index):
    port = free_port()
    found = together(
        lambda: meet(cluster(port, 2, 0), facts(0), timeout=20.0),
        lambda: meet(cluster(port, 2, index), facts(7), timeout=20.0),
    )
    for error in found:
        assert isinstance(error, LaunchError) and "\n" not in str(error)
        assert f"process {index} (host-7) cannot be" in str(error)
        assert "go from 0 to 1" in str(error) and "--launch.process-id" in str(error)


def ask(port: int, secret_proof: object) -> tuple[bytes, bytes]:
    """What process 0 answers to a hello with this proof."""
    said = json.loads(facts(1).to_json())
    hello = {"process_id": 1, "num_processes": 2, "facts": said, "proof": secret_proof}
    wire = Wire(connection(port))
    try:
        wire.send(HELLO, json.dumps(hello).encode())
        return wire.receive()
    finally:
        wire.close()


def test_only_who_knows_the_secret_takes_part(monkeypatch):
    without = {"process_id": 1, "num_processes": 2}
    without["facts"] = json.loads(facts(1).to_json())
    guess = rendezvous._proof(without)
    monkeypatch.setenv(rendezvous.SECRET_VARIABLE, "correct horse")
    port, found = free_port(), []
    host = threading.Thread(
        target=lambda: found.append(meet(cluster(port, 2, 0), facts(0), timeout=60.0))
    )
    host.start()
    for proof in (guess, "", 7, "\xe9"):
        kind, text = ask(port, proof)
        assert kind == REFUSED and b"has another secret; set STEPJAX" in text
    wires, hosts = meet(cluster(port, 2, 1), facts(1), timeout=20.0)
    host.join(60.0)
    assert hosts == ["host-0", "host-1"] and found  # the strangers did not matter
    for wire in (*wires.values(), *found[0][0].values()):
        wire.close()


def test_numbers_of_processes_that_differ_are_named():
    port = free_port()
    found = together(
        lambda: meet(cluster(port, 2, 0), facts(0), timeout=5.0),
        lambda: meet(cluster(port, 4, 1), facts(1), timeout=5.0),
    )
    for error in found:
        assert "process 1 (host-1) expects 4 processes, process 0 (host-0) 2" in str(
            error
        )
