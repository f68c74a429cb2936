"""What processes tell each other, and how they learn that one is gone."""

import socket
import threading
import time

import jax.numpy as jnp
import numpy as np
import pytest

from stepjax.launch.arrays import arrays_to_bytes, bytes_to_arrays
from stepjax.launch.frames import (
    PARTS,
    ForeignSpeechError,
    Wire,
    join_parts,
    split_parts,
)
from stepjax.launch.peers import Alone, PeerLostError
from tests.launch.meetings import connected, together


def test_alone():
    alone = Alone()
    assert alone.gather("x", b"1") == [b"1"] == alone.exchange("x", [b"1"])


def test_gather_and_exchange():
    with connected(3) as peers:
        for turn in range(20):
            said = together(
                *(
                    lambda p=p, turn=turn: p.gather("a", b"%d %d" % (p.index, turn))
                    for p in peers
                )
            )
            assert said == [[b"%d %d" % (index, turn) for index in range(3)]] * 3
        said = together(
            *(
                lambda p=p: p.exchange("b", [b"%d>%d" % (p.index, q) for q in range(3)])
                for p in peers
            )
        )
        assert said == [[b"%d>%d" % (p, q) for p in range(3)] for q in range(3)]


def test_large_payloads():
    data = np.random.default_rng(0).bytes(5_000_000)
    with connected(2) as peers:
        said = together(*(lambda p=p: p.gather("large", data) for p in peers))
        assert said == [[data, data]] * 2


def test_different_calls_are_noticed_by_all():
    with connected(2) as peers:
        found = together(
            lambda: peers[0].gather("round 3: rows", b""),
            lambda: peers[1].gather("round 3: outcomes", b""),
        )
        for error in found:
            assert isinstance(error, PeerLostError)
            assert "computed different things" in str(error)


def test_a_dead_process_is_named_to_all():
    with connected(3) as peers:
        for wire in peers[1]._wires.values():
            wire.close()  # what the kernel does for a process that was killed
        found = together(
            lambda: peers[0].gather("x", b""), lambda: peers[2].gather("x", b"")
        )
        for error in found:
            assert isinstance(error, PeerLostError)
            assert "process 1 (host-1) is gone" in str(error)
            assert "same command" in str(error) and "\n" not in str(error)


def test_a_silent_process_is_named():
    with connected(2, heartbeat=1.0) as peers:
        peers[1]._closed = True  # stops its heartbeat; the connection stays
        assert "process 1 (host-1) says nothing any more" in str(peers[0].lost(20.0))


@pytest.fixture
def narrow():
    """A wire whose other end, a plain socket, holds a few kB."""
    with socket.socket() as server:
        server.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        server.bind(("localhost", 0))
        server.listen()
        near = socket.create_connection(server.getsockname())
        near.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
        far, _ = server.accept()
    wire = Wire(near)
    yield wire, far
    wire.close()
    far.close()


@pytest.mark.slow
def test_a_slow_wire_is_not_a_silent_one(narrow):
    wire, far = narrow
    wire.patience(1.0)
    taken = []

    def take():
        while piece := far.recv(1 << 14):
            taken.append(len(piece))
            time.sleep(0.05)

    reader = threading.Thread(target=take)
    reader.start()
    began = time.monotonic()
    wire.send(PARTS, bytes(800_000))  # takes far longer than one second
    assert time.monotonic() - began > 1.0
    wire.close()
    reader.join(60.0)
    assert sum(taken) == 800_013


def test_a_wire_that_nobody_reads_is_given_up(narrow):
    wire, _ = narrow
    wire.patience(0.5)
    with pytest.raises(TimeoutError):
        wire.send(PARTS, bytes(50_000_000))


@pytest.mark.slow
def test_one_slow_wire_does_not_make_the_others_silent():
    with connected(3, heartbeat=1.0) as peers:
        peers[1]._wires[0].patience(60.0)  # only what 2 hears is looked at
        time.sleep(0.6)  # in force from the next ping on
        with peers[0]._wires[1]._sending:  # as while much is being sent
            assert peers[2].lost(3.0) is None


@pytest.mark.slow
def test_news_of_a_death_do_not_wait_for_a_slow_wire():
    with connected(3) as peers:
        with peers[0]._wires[1]._sending:
            peers[0]._lose("process 1 (host-1) is gone")
            assert peers[2].lost(0.0) == "process 1 (host-1) is gone"


def test_the_reason_of_an_end_is_passed_on():
    with connected(3) as peers:
        peers[2].fail("the disk is full")
        for index in (0, 1):
            text = peers[index].lost(20.0)
            assert text == "process 2 (host-2) stopped: the disk is full"


def test_a_main_thread_that_hangs_is_ended(monkeypatch, capsys):
    monkeypatch.setattr("stepjax.launch.peers._GRACE", 0.2)
    with connected(2) as peers:
        ended = threading.Event()
        peers[0]._end = lambda code: ended.set()
        for wire in peers[1]._wires.values():
            wire.close()
        assert ended.wait(20.0)
    assert "process 0 (host-0): process 1 (host-1) is gone" in capsys.readouterr().err


def test_after_the_end_nobody_is_missed():
    with connected(2) as peers:
        together(*(lambda p=p: p.finish() for p in peers))
        for wire in peers[1]._wires.values():
            wire.close()
        assert peers[0].lost(0.5) is None


@pytest.mark.parametrize("parts", [[], [b""], [b"a", b"", b"bcd"]])
def test_parts(parts):
    assert split_parts(join_parts(parts)) == parts


@pytest.mark.parametrize("data", [b"", b"\x00" * 7, b"\xff" * 8, b"\xff" * 64])
def test_broken_parts(data):
    with pytest.raises(ForeignSpeechError):
        split_parts(data)
    with pytest.raises(ForeignSpeechError):
        split_parts(join_parts([b"abc", b"d"])[:-1])


def test_arrays_of_all_kinds():
    tree = {
        "a": np.arange(6, dtype=np.uint8).reshape(2, 3),
        "b": [np.array(2.5), np.zeros((0, 4), np.float32)],
        "c": np.asarray(jnp.arange(3, dtype=jnp.bfloat16)),
        "d": np.array([True, False]),
    }
    back = bytes_to_arrays(arrays_to_bytes(tree), tree)
    assert back["c"].dtype == jnp.bfloat16 and back["b"][1].shape == (0, 4)
    np.testing.assert_array_equal(back["a"], tree["a"])
    np.testing.assert_array_equal(back["d"], tree["d"])
    assert back["b"][0] == 2.5


def test_arrays_of_another_kind_are_refused():
    data = arrays_to_bytes([np.zeros(3, np.float32)])
    with pytest.raises(ValueError, match="float32 arrived"):
        bytes_to_arrays(data, [np.zeros(3)])
    with pytest.raises(ValueError, match="1 arrays arrived instead of 2"):
        bytes_to_arrays(data, [np.zeros(3), np.zeros(3)])
