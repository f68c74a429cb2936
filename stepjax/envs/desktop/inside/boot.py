"""Starting a desktop: session bus, X server, window manager, accessibility bus."""

import os
import secrets
import select
import shutil
import site
import socket
import struct
import subprocess
import time
from pathlib import Path

__all__ = [
    "BootError", "Services", "copy_home", "environment", "offer_modules",
    "start_services", "wait_for_window_manager", "xauthority",
]  # fmt: skip

_RUNTIME = Path("/run/user/1000")
_FRAMEBUFFER = Path("/run/user/1000/screen")
_DEFAULTS = {
    "HOME": "/home/user",
    "USER": "user",
    "LOGNAME": "user",
    "SHELL": "/bin/bash",
    "LANG": "C.UTF-8",
    "PATH": "/home/user/.local/bin:/usr/local/bin:/usr/bin:/bin:/usr/games",
    "DISPLAY": ":0",
    "XAUTHORITY": "/home/user/.Xauthority",
    "XDG_RUNTIME_DIR": str(_RUNTIME),
    "XDG_SESSION_TYPE": "x11",
    "DBUS_SESSION_BUS_ADDRESS": f"unix:path={_RUNTIME}/bus",
    # Without these GTK 2, Qt and LibreOffice keep their widgets to themselves.
    "GTK_MODULES": "gail:atk-bridge",
    "QT_ACCESSIBILITY": "1",
    "QT_LINUX_ACCESSIBILITY_ALWAYS_ON": "1",
    "SAL_USE_VCLPLUGIN": "gtk3",
}


class BootError(RuntimeError):
    """A part of the desktop that does not start; the message is one line."""


class Services:
    """What a desktop consists of, besides the applications.

    Attributes:
      running: The processes by name, in the order they were started.
      framebuffer: File in which the X server keeps the picture.
    """

    def __init__(self) -> None:
        self.running: dict[str, subprocess.Popen[bytes]] = {}
        self.framebuffer = _FRAMEBUFFER / "Xvfb_screen0"

    def dead(self) -> str | None:
        """One line about a part that has ended, or None while all of them run."""
        for name, process in self.running.items():
            code = process.poll()
            if code is not None:
                return f"{name} ended with status {code}"
        return None


def environment() -> dict[str, str]:
    """Environment of every program on the desktop: ours, without what is only ours."""
    ours = {k: v for k, v in os.environ.items() if not k.startswith("PYTHON")}
    return {**_DEFAULTS, **ours}


def copy_home(golden: Path, home: Path) -> None:
    """Copy preference files into the home folder, keeping links and modes.

    Args:
      golden: Folder to copy; nothing happens where there is none.
      home: The user's home folder, which exists.
    """
    if golden.is_dir():
        shutil.copytree(golden, home, symlinks=True, dirs_exist_ok=True)
    for name in ("Desktop", "Documents", "Downloads", "Music", "Pictures", "Videos"):
        (home / name).mkdir(exist_ok=True)


def offer_modules(shims: Path) -> None:
    """Let the user's Python import our stand-ins for packages that Debian lacks.

    Args:
      shims: Folder of modules, such as `pyautogui.py`.
    """
    folder = Path(site.getusersitepackages())
    folder.mkdir(parents=True, exist_ok=True)
    for module in shims.glob("*.py"):
        link = folder / module.name
        if not link.is_symlink():
            link.symlink_to(module)


def xauthority(cookie: bytes, hostname: str) -> bytes:
    """Content of ~/.Xauthority: a real cookie for display 0.

    python-xlib refuses to start without the file, and prints a warning that corrupts
    the output of programs where it is empty.

    Args:
      cookie: 16 random bytes.
      hostname: Name of this machine.
    """

    def field(data: bytes) -> bytes:
        return struct.pack(">H", len(data)) + data

    name = b"MIT-MAGIC-COOKIE-1"
    entries = []
    for family, address in ((256, hostname.encode()), (65535, b"")):  # local, any
        entries.append(
            struct.pack(">H", family)
            + b"".join(field(part) for part in (address, b"0", name, cookie))
        )
    return b"".join(entries)


def start_services(
    width: int, height: int, env: dict[str, str], deadline: float
) -> Services:
    """Start the bus and the X server together, then what needs them.

    Args:
      width: Pixels of the screen from left to right.
      height: Pixels of the screen from top to bottom.
      env: Environment of the programs; see `environment`.
      deadline: Time (`time.monotonic`) after which it is an error.

    Raises:
      BootError: If one of them does not come up.
    """
    services = Services()
    _FRAMEBUFFER.mkdir(parents=True, exist_ok=True)
    # The X server makes the folder itself only as root.
    Path("/tmp/.X11-unix").mkdir(mode=0o1777, exist_ok=True)
    Path("/tmp/.X11-unix").chmod(0o1777)
    cookie = xauthority(secrets.token_bytes(16), socket.gethostname())
    Path(env["XAUTHORITY"]).write_bytes(cookie)
    os.chmod(env["XAUTHORITY"], 0o600)
    bus = _start(
        services, "session bus",
        ["dbus-daemon", "--session", "--nofork", "--nopidfile", "--nosyslog",
         f"--address={env['DBUS_SESSION_BUS_ADDRESS']}"],
        env, "--print-address={}",
    )  # fmt: skip
    # -noreset: else the server starts anew, without a window manager, whenever its
    # last client leaves, as the first probe does.
    display = _start(
        services, "X server",
        ["Xvfb", ":0", "-screen", "0", f"{width}x{height}x24", "-noreset",
         "-nolisten", "tcp", "-s", "0", "-extension", "GLX",
         "-fbdir", str(_FRAMEBUFFER),
         "-auth", env["XAUTHORITY"]],
        env, "-displayfd {}",
    )  # fmt: skip
    _await(services, bus, "session bus", deadline)
    _start(
        services, "accessibility bus",
        ["/usr/libexec/at-spi-bus-launcher", "--launch-immediately", "--a11y=1"], env,
    )  # fmt: skip
    _await(services, display, "X server", deadline)
    _start(services, "window manager", ["openbox", "--sm-disable"], env)
    return services


def wait_for_window_manager(display, services: Services, deadline: float) -> None:
    """Return once a window manager has announced itself.

    Args:
      display: An `Xlib.display.Display`.
      services: The running parts.
      deadline: Time (`time.monotonic`) after which it is an error.

    Raises:
      BootError: If it does not, or a part ends meanwhile.
    """
    root = display.screen().root
    atom = display.intern_atom("_NET_SUPPORTING_WM_CHECK")
    while root.get_full_property(atom, 0) is None:
        reason = services.dead()
        if reason is not None:
            raise BootError(reason)
        if time.monotonic() > deadline:
            raise BootError("the window manager did not come up in time")
        time.sleep(0.005)


def _start(
    services: Services,
    name: str,
    command: list[str],
    env: dict[str, str],
    announce: str | None = None,
) -> int | None:
    """Start one part; the descriptor on which it announces itself, if it does."""
    reading = writing = None
    if announce is not None:
        reading, writing = os.pipe()
        command = command + announce.format(writing).split(" ")
    try:
        services.running[name] = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            env=env,
            cwd=env["HOME"],
            start_new_session=True,
            pass_fds=() if writing is None else (writing,),
        )
    except FileNotFoundError:
        raise BootError(f"the {name} is missing: no program {command[0]}") from None
    finally:
        if writing is not None:
            os.close(writing)
    return reading


def _await(services: Services, reading: int | None, name: str, deadline: float) -> None:
    """Wait until a part has announced itself on its descriptor."""
    if reading is None:
        raise ValueError(f"the {name} does not announce itself")
    said = b""
    try:
        # All of the line: the X server ends if its number finds no reader.
        while not said.endswith(b"\n"):
            wait = max(0.0, deadline - time.monotonic())
            if not select.select([reading], [], [], wait)[0]:
                raise BootError(f"the {name} did not come up in time")
            part = os.read(reading, 1024)
            if not part:
                code = services.running[name].wait(timeout=5)
                raise BootError(f"the {name} ended at once with status {code}")
            said += part
    finally:
        os.close(reading)
