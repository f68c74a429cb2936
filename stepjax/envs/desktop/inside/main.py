"""The first program in a desktop: boots it, says so, serves until a part of it ends."""

import argparse
import ctypes
import json
import os
import resource
import socket
import sys
import threading
import time
from pathlib import Path

__all__ = ["main"]

_PR_SET_DUMPABLE = 4
_BOOT_SECONDS = 60.0
_GOLDEN_HOME = Path("/opt/stepjax/home")


def main() -> int:
    """Boot and serve; the exit status says only that the desktop has ended."""
    args = _arguments()
    with os.fdopen(args.token_fd, "r", encoding="ascii") as file:
        token = file.readline().strip()
    _keep_to_ourselves()
    ready = os.fdopen(args.ready_fd, "w", encoding="utf-8")
    try:
        if len(token) < 16:
            raise ValueError("the token must have at least 16 characters")
        serve = _boot(args.listen_fd, token, args.width, args.height)
    except Exception as error:  # noqa: BLE001 - whatever it is, the host is told
        why = f"{type(error).__name__}: {error}".splitlines()[0]
        print(json.dumps({"ready": False, "why": why}), file=ready, flush=True)
        return 1
    with ready:
        said = {"ready": True, "width": args.width, "height": args.height}
        print(json.dumps(said), file=ready, flush=True)
    print(serve(), file=sys.stderr)
    return 3


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="inside.main", description=__doc__)
    for name in ("listen-fd", "token-fd", "ready-fd", "width", "height"):
        parser.add_argument(f"--{name}", type=int, required=True)
    return parser.parse_args()


def _keep_to_ourselves() -> None:
    """Keep programs of the same user out of our memory and descriptors.

    The token and the listening socket are in them. Programs we start are not affected.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "prctl(PR_SET_DUMPABLE)")
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def _boot(listen_fd: int, token: str, width: int, height: int):
    """Start everything; returns what serves until a part ends, and says which."""
    from inside import boot

    os.set_inheritable(listen_fd, False)
    env = boot.environment()
    os.environ.clear()  # ours becomes theirs: the same home, display and buses
    os.environ.update(env)
    deadline = time.monotonic() + _BOOT_SECONDS
    boot.copy_home(_GOLDEN_HOME, Path(env["HOME"]))
    boot.offer_modules(Path(__file__).resolve().parent / "shims")
    loading = threading.Thread(target=_load)  # while the others start
    loading.start()
    services = boot.start_services(width, height, env, deadline)
    loading.join()
    from Xlib.display import Display  # pyright: ignore[reportMissingModuleSource]

    display = Display(env["DISPLAY"])
    boot.wait_for_window_manager(display, services, deadline)
    server = _server(listen_fd, token, env, display, services)

    def serve() -> str:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        while (reason := services.dead()) is None:
            time.sleep(0.1)
        return reason

    return serve


def _load() -> None:
    """Import what takes long."""
    from inside import acting, filing, running

    if not (acting and filing and running):
        raise ImportError("the routes are missing")


def _server(listen_fd: int, token: str, env: dict[str, str], display, services):
    from inside.acting import Acting
    from inside.filing import Filing
    from inside.pointer import Input
    from inside.processes import Programs
    from inside.reading import Reader
    from inside.running import Running
    from inside.screen import Screen
    from inside.serving import Server
    from inside.windows import Windows
    from Xlib.display import Display  # pyright: ignore[reportMissingModuleSource]

    programs = Programs(env)
    windows = Windows(Display(env["DISPLAY"]))
    reader = Reader(env)
    screen = Screen(services.framebuffer, display)
    routes = {
        **Acting(screen, Input(display), windows, reader).routes(),
        **Filing(programs).routes(),
        **Running(programs, windows).routes(),
    }
    listener = socket.socket(fileno=listen_fd)
    server = Server(listener, token, routes)
    reader.warm_up()
    return server


if __name__ == "__main__":
    # Threads that hang in the X server must not keep a desktop that has ended.
    os._exit(main())
