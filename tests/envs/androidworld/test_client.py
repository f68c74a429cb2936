"""The client against a server that does what it is told, faults included."""

import json
import socket
import threading
import time

import numpy as np
import pytest

from stepjax.envs.androidworld.client import AndroidWorldClient
from stepjax.envs.androidworld.errors import (
    AndroidWorldError,
    BrokenAnswerError,
    RefusedError,
    ServerTimeoutError,
    UnreachableError,
    WrongServerError,
)
from stepjax.envs.androidworld.exchange import parse_address
from stepjax.envs.androidworld.settings import CallSeconds
from tests.envs.androidworld.stand_in import TASKS, PhoneServer


@pytest.fixture
def client(phone: PhoneServer) -> AndroidWorldClient:
    return AndroidWorldClient(phone.url)


def one_line(error: pytest.ExceptionInfo[BaseException], *parts: str) -> None:
    text = str(error.value)
    assert "\n" not in text and len(text) <= 400
    for part in parts:
        assert part in text


def test_an_episode_by_hand(client, phone):
    assert client.check() == TASKS
    client.reinitialize(combinations=1, seed=7, family="android_world")
    assert client.task_length("SystemBluetoothTurnOn") == 1
    client.initialize("SystemBluetoothTurnOn")
    assert client.goal("SystemBluetoothTurnOn") == "SystemBluetoothTurnOn number 7000."
    client.reset(go_home=True)
    before = client.screenshot(stable=False)
    assert before.shape == (80, 36, 3) and before.dtype == np.uint8
    assert client.score("SystemBluetoothTurnOn") == 0.0
    client.execute({"action_type": "click", "x": 18, "y": 40})
    assert client.score("SystemBluetoothTurnOn") == 1.0
    assert (client.screenshot() != before).any()
    client.tear_down("SystemBluetoothTurnOn")
    assert phone.left == []


def test_questions_are_asked_again(client, phone):
    for fault in ("hang up", "short", "truncated JSON", 503):
        phone.fail("/suite/task_list", fault)
        assert client.task_list() == TASKS
        phone.fail("/screenshot", fault, fault)
        assert client.screenshot().shape == (80, 36, 3)


def test_an_action_is_never_repeated(client, phone):
    for fault in ("hang up", "drop after", "short"):
        phone.calls.clear()
        phone.fail("/execute_action", fault)
        with pytest.raises(BrokenAnswerError):
            client.execute({"action_type": "wait"})
        assert phone.calls == ["/execute_action"]
    phone.fail("/task/initialize", "drop after")
    with pytest.raises(BrokenAnswerError):
        client.initialize("ClockTimerEntry")
    assert phone.calls.count("/task/initialize") == 1


def test_a_slow_server_is_given_up(phone):
    client = AndroidWorldClient(phone.url, seconds=CallSeconds(screenshot=0.3))
    phone.fail("/screenshot", 30.0)
    with pytest.raises(ServerTimeoutError, match=r"no whole answer in 0\.3 s") as error:
        client.screenshot()
    one_line(error, phone.url, "/screenshot")
    assert isinstance(error.value, TimeoutError)


def test_a_server_that_drips_is_given_up():
    with socket.create_server(("127.0.0.1", 0)) as listening:
        url = f"http://127.0.0.1:{listening.getsockname()[1]}"
        over = threading.Event()

        def drip() -> None:
            peer, _ = listening.accept()
            with peer:
                while not over.wait(0.05):
                    peer.sendall(b"H")

        thread = threading.Thread(target=drip, daemon=True)
        thread.start()
        client = AndroidWorldClient(url, seconds=CallSeconds(quick=0.4))
        with pytest.raises(ServerTimeoutError):
            client.task_list()
        over.set()
        thread.join()


def test_a_call_under_way_can_be_cut(client, phone):
    phone.fail("/screenshot", 30.0, 30.0)
    threading.Timer(0.2, client.abort).start()
    with pytest.raises(BrokenAnswerError):
        client.screenshot()


def test_nobody_listens():
    with socket.create_server(("127.0.0.1", 0)) as listening:
        port = listening.getsockname()[1]
    with pytest.raises(UnreachableError) as error:
        AndroidWorldClient(f"http://127.0.0.1:{port}").check()
    one_line(error, f"http://127.0.0.1:{port}", "Connection refused")
    with pytest.raises(UnreachableError) as error:
        AndroidWorldClient("http://no-such-host.invalid:5000").check()
    one_line(error, "no-such-host.invalid")


@pytest.mark.parametrize(
    "answer",
    [b"<html>\n<h1>Welcome to nginx!</h1></html>", b'{"pong": 1}', b"", b"[[[[", b"7"],
)
def test_another_server_is_shown(client, phone, answer):
    phone.fail("/health", answer)
    with pytest.raises(WrongServerError) as error:
        client.check()
    one_line(error, phone.url, "is not AndroidWorld's server")
    if b"nginx" in answer:
        one_line(error, "application/json", "Welcome to nginx!")


def test_a_server_without_a_phone(client, phone):
    phone.fail("/health", 500)
    with pytest.raises(WrongServerError) as error:
        client.check()
    one_line(error, "its phone is not ready")
    phone.fail("/suite/task_list", *[b'{"tasks": []}'] * 3)
    with pytest.raises(WrongServerError) as error:
        client.check()
    one_line(error, "is not AndroidWorld's server", "/suite/task_list", "'task_list'")


@pytest.mark.parametrize(
    "answer",
    [
        b'{"score": 7.5}', b'{"score": -1}', b'{"score": NaN}', b'{"score": null}',
        b'{"score": "1"}', b'{"score": [1]}', b"{}", b"[]", b'{"score": 1', b"\xff",
        b"[" * 100_000, b'{"score": 1e999}',
    ],
)  # fmt: skip
def test_scores_that_are_none(client, phone, answer):
    phone.fail("/task/score", *[answer] * 3)
    with pytest.raises(AndroidWorldError) as error:
        client.score("CameraTakePhoto")
    one_line(error, phone.url, "/task/score")


def test_answers_of_other_kinds(client, phone):
    cases = {
        "/suite/task_list": (client.task_list, b'{"task_list": ["a", "a"]}'),
        "/suite/task_length": (lambda: client.task_length("x"), b'{"length": true}'),
        "/task/goal": (lambda: client.goal("CameraTakePhoto"), b'{"goal": " "}'),
    }
    for route, (call, answer) in cases.items():
        phone.fail(route, *[answer] * 3)
        with pytest.raises(BrokenAnswerError) as error:
            call()
        one_line(error, route)


def test_what_the_server_refuses_is_said(client):
    with pytest.raises(RefusedError, match="Invalid task family: toasters") as error:
        client.reinitialize(combinations=1, seed=1, family="toasters")
    assert error.value.status == 400
    for call in (
        lambda: client.initialize("NoSuchTask"),
        lambda: client.initialize("CameraTakePhoto", 5),
        lambda: client.score("ClockTimerEntry"),
        lambda: client.execute({"action_type": "dance"}),
    ):
        with pytest.raises(RefusedError) as refused:
            call()
        assert refused.value.status == 500
        one_line(refused, "answered 500")


@pytest.mark.parametrize(
    "url",
    ["", "host:5000", "ftp://host", "http://", "http://h:0", "http://h:99999",
     "http://user:pw@h", "http://h/?q=1", "http://h:x", "http://a b", "http://h\n:1",
     "http://ä.de", "http://[::1"],
)  # fmt: skip
def test_addresses_that_are_none(url):
    with pytest.raises(ValueError, match=r"url must be the address") as error:
        parse_address(url)
    one_line(error)


def test_addresses():
    assert str(parse_address("http://[::1]:5000/")) == "http://[::1]:5000"
    assert str(parse_address(" https://h/aw/1/ ")) == "https://h:443/aw/1"


def test_a_prefix_stands_before_every_route(phone):
    client = AndroidWorldClient(phone.url + "/behind/this")
    with pytest.raises(WrongServerError):
        client.check()
    assert phone.calls == ["/behind/this/health"]


def test_random_bytes_never_do_more_than_fail(client, phone):
    random = np.random.default_rng(0)
    sound = json.dumps({"goal": "x", "score": 1, "length": 1, "task_list": ["a"]})
    for _ in range(12):
        text = bytearray(sound.encode())
        for place in random.integers(len(text), size=random.integers(1, 12)):
            text[place] = random.integers(256)
        phone.fail("/task/goal", *[bytes(text)] * 3)
        phone.fail("/task/score", *[bytes(text)] * 3)
        for call in (client.goal, client.score):
            try:
                call("CameraTakePhoto")
            except AndroidWorldError as error:
                assert "\n" not in str(error)
        phone.faults.clear()


def test_waits_end(phone):
    started = time.monotonic()
    phone.fail("/suite/task_list", 503, 503, 503)
    with pytest.raises(RefusedError):
        AndroidWorldClient(phone.url).task_list()
    assert phone.calls.count("/suite/task_list") == 3
    assert time.monotonic() - started < 20
