"""A process that CPU collectives abort says why, in processes of their own."""

import signal
import subprocess
import sys
import textwrap

import pytest

PROGRAM = """
    import ctypes, threading
    from stepjax.launch.aborts import explained_aborts

    with explained_aborts(lambda: {line!r}):
        abort = ctypes.CDLL(None).abort
        other = threading.Thread(target=abort)  # as gloo does: not the main thread
        other.start()
        other.join()
"""


def aborted(line):
    program = textwrap.dedent(PROGRAM).format(line=line)
    return subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=60
    )


def test_the_line_is_said_and_the_code_is_1():
    ended = aborted("w-1: process 0 (w-0) is gone")
    assert ended.returncode == 1
    assert ended.stderr == "w-1: process 0 (w-0) is gone\n"


def test_an_abort_of_other_causes_stays_one():
    ended = aborted(None)
    assert ended.returncode == -signal.SIGABRT and not ended.stderr


@pytest.mark.parametrize("line", ["a line", None])
def test_after_the_block_aborts_are_what_they_were(line):
    program = f"""
from stepjax.launch.aborts import explained_aborts
with explained_aborts(lambda: {line!r}):
    pass
import os
os.abort()
"""
    ended = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=60
    )
    assert ended.returncode == -signal.SIGABRT and not ended.stderr
