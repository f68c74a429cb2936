"""Workers that cannot start say why in one line."""

import sys

import pytest

from stepjax.envs.desktop.upstream.errors import UpstreamError
from stepjax.envs.desktop.upstream.process import WorkerProcess

START = 120.0


@pytest.mark.parametrize(
    ("program", "message"),
    [
        ("import sys; sys.exit('no such thing')", "last words: no such thing"),
        ("print('hello')", "no answer: 'hello'"),
        ("print('[1]')", "no answer"),
        ('print(\'{"ready": false, "why": "too old"}\')', "not ready: too old"),
        ("import time; time.sleep(3600)", "took longer than 1 s"),
        ("print('[' * 100000)", "no answer"),
        ("print('\\x1b[31m')", "no answer"),
    ],
)
def test_a_worker_that_does_not_start(program, message):
    command = [sys.executable, "-I", "-u", "-c", program]
    seconds = 1.0 if "sleep" in program else START
    with pytest.raises(UpstreamError, match=message) as caught:
        WorkerProcess(command, start_timeout=seconds)
    assert str(caught.value).isprintable()


def test_no_such_program():
    with pytest.raises(UpstreamError, match="cannot start the evaluators"):
        WorkerProcess(["/nonexistent/python"])
