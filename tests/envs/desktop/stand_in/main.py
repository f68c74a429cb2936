"""Stands in for the program inside: no screen, runs commands that tests send it.

One connection, one JSON line: {"token", "run", "timeout"} -> {"code", "out", "err"}.
"""

import argparse
import ctypes
import json
import os
import shutil
import socket
import subprocess
import threading

parser = argparse.ArgumentParser()
for name in ("listen-fd", "token-fd", "ready-fd", "width", "height"):
    parser.add_argument(f"--{name}", type=int)
given = parser.parse_args()
del os.environ["PYTHONPATH"]
ctypes.CDLL(None).prctl(4, 0, 0, 0, 0)  # not dumpable: its memory is its own
with os.fdopen(given.token_fd) as file:
    TOKEN = file.readline().strip()
shutil.copytree("/opt/stepjax/home", "/home/user", symlinks=True, dirs_exist_ok=True)
listener = socket.socket(fileno=given.listen_fd)
for fd in (given.listen_fd, given.ready_fd):
    os.set_inheritable(fd, False)


def answer(request):
    if request.get("token") != TOKEN:
        return {"code": 401, "out": "", "err": "wrong token"}
    if "exit" in request:
        os.write(2, request["say"].encode())
        os._exit(request["exit"])
    try:
        done = subprocess.run(
            request["run"], capture_output=True, text=True, errors="replace",
            timeout=request["timeout"], stdin=subprocess.DEVNULL, cwd="/home/user",
        )  # fmt: skip
    except (OSError, subprocess.TimeoutExpired) as error:
        return {"code": -1, "out": "", "err": str(error)}
    return {"code": done.returncode, "out": done.stdout, "err": done.stderr}


def serve(connection):
    with connection, connection.makefile("rw") as file:
        file.write(json.dumps(answer(json.loads(file.readline()))) + "\n")


os.write(given.ready_fd, b'{"ready": true}\n')
os.close(given.ready_fd)
while True:
    threading.Thread(target=serve, args=(listener.accept()[0],), daemon=True).start()
