"""Real desktops: steps a second against the stock way, reset, memory, widgets.

The stock way is OSWorld's: a server in the desktop starts a Python process with
PyAutoGUI for each action and takes each picture with `pyautogui.screenshot`, saved as
PNG. `STOCK_SITE` names the folder of `pip install --target FOLDER pyautogui==0.9.54`,
by a Python of Debian's version, without `FOLDER/mouseinfo`, which would need tkinter
and time; it is copied into the desktops. Without it, that column is left out.
"""

import argparse
import concurrent.futures
import io
import json
import os
import pathlib
import random
import statistics
import tarfile
import time
from collections.abc import Callable, Sequence

from benchmarks.measure import print_table, show_time
from stepjax.envs.desktop.client import DesktopClient
from stepjax.envs.desktop.sandbox import Sandbox, SandboxSpec, start_sandbox

__all__ = ["run"]

SPEC = SandboxSpec(width=1920, height=1080)
DESKTOPS = (1, 2, 4, 8)
SECONDS = 20.0
BOOT_SECONDS = 120.0
RESETS = 8
LOAD_SECONDS = 120.0
CALC = ("LibreOffice Calc", ["soffice", "--calc", "--norestore"], "Calc")
APPLICATIONS = (
    ("Mousepad", ["mousepad"], "Mousepad"),
    CALC,
    ("LibreOffice Writer", ["soffice", "--writer", "--norestore"], "Writer"),
    ("LibreOffice Impress", ["soffice", "--impress", "--norestore"], "Impress"),
    ("GIMP", ["gimp"], "GNU Image"),
    ("VLC", ["vlc"], "VLC"),
    ("Chromium", ["google-chrome", "about:blank"], "about:blank"),
)
# What OSWorld's server does for a step, without its HTTP, its retries and its drawing
# of the pointer: a Python process that imports PyAutoGUI (whose calls pause for 0.1 s
# each unless told otherwise), and a picture taken and saved by the server's own.
STOCK_SERVER = """
import json, random, subprocess, sys, time
import pyautogui
seed, seconds = int(sys.argv[1]), float(sys.argv[2])
rng, steps, began = random.Random(seed), 0, time.monotonic()
while time.monotonic() - began < seconds:
    x, y = rng.randrange(100, 1700), rng.randrange(250, 900)
    code = (
        "import pyautogui; import time; pyautogui.FAILSAFE = False; "
        f"pyautogui.click({x}, {y}); pyautogui.typewrite('{rng.randrange(10**9)}')"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
    pyautogui.screenshot().save("/tmp/screenshot.png")
    steps += 1
print(json.dumps({"rate": steps / (time.monotonic() - began)}))
"""


class Desktop:
    """One sandbox and its client.

    Attributes:
      sandbox: What runs.
      client: What talks to it.
    """

    def __init__(self) -> None:
        self.sandbox: Sandbox = start_sandbox(SPEC, timeout=BOOT_SECONDS)
        self.client = DesktopClient(
            self.sandbox.socket, self.sandbox.token, timeout=60.0
        )
        self.client.view()

    def open(self, command: Sequence[str], title: str) -> None:
        """Start an application and wait for its window and for quiet.

        Args:
          command: The program and its arguments.
          title: Part of its window's title.

        Raises:
          RuntimeError: If there is no such window in time.
        """
        self.client.launch(command)
        end = time.monotonic() + LOAD_SECONDS
        while not any(title in one for one in self.client.windows()):
            if time.monotonic() > end:
                raise RuntimeError(f"{command[0]} shows no window {title!r}")
            time.sleep(0.1)
        time.sleep(4.0)

    def close(self) -> None:
        """End it."""
        self.client.close()
        self.sandbox.close()


def _ours(desktop: Desktop, number: int) -> float:
    """Steps a second of the combined route."""
    rng, steps, began = random.Random(number), 0, time.monotonic()
    while time.monotonic() - began < SECONDS:
        x, y = rng.randrange(100, 1700), rng.randrange(250, 900)
        operations = [
            {"op": "move", "x": x, "y": y},
            {"op": "click", "button": 1, "count": 1},
            {"op": "type", "text": str(rng.randrange(10**9))},
        ]
        desktop.client.act(operations, settle_ms=0)
        steps += 1
    return steps / (time.monotonic() - began)


def _stock(desktop: Desktop, number: int) -> float:
    """Steps a second of the stock way."""
    command = [
        "env", "PYTHONPATH=/home/user/stock",
        "/usr/bin/python3", "-s", "server.py", str(number), str(SECONDS),
    ]  # fmt: skip
    done = desktop.client.execute(command, timeout=100.0)
    if done.returncode != 0:
        raise RuntimeError(f"the stock way: {done.error.strip()[-200:]}")
    return float(json.loads(done.output)["rate"])


def _rate(desktops: Sequence[Desktop], work: Callable[[Desktop, int], float]) -> float:
    """Steps a second of all desktops together."""
    with concurrent.futures.ThreadPoolExecutor(len(desktops)) as threads:
        return sum(threads.map(work, desktops, range(len(desktops))))


def _install_stock(desktop: Desktop, site: pathlib.Path) -> None:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        archive.add(site, "stock")
    desktop.client.write_file("stock.tar", buffer.getvalue())
    done = desktop.client.execute(["tar", "xf", "stock.tar"], timeout=100.0)
    if done.returncode != 0:
        raise RuntimeError(f"the stock way: {done.error.strip()}")
    desktop.client.write_file("server.py", STOCK_SERVER.encode())


def _steps(site: pathlib.Path | None) -> None:
    """Table of steps a second, Calc open, click and type and picture per step."""
    rows = []
    desktops: list[Desktop] = []
    try:
        for count in DESKTOPS:
            while len(desktops) < count:
                desktop = Desktop()
                desktops.append(desktop)
                desktop.open(CALC[1], CALC[2])
                if site is not None:
                    _install_stock(desktop, site)
            stock = None if site is None else _rate(desktops, _stock)
            ours = _rate(desktops, _ours)
            memory = statistics.mean(one.sandbox.memory_mb() for one in desktops)
            rows.append(
                [
                    str(count),
                    "not measured" if stock is None else f"{stock:.2f}",
                    f"{ours:.1f}",
                    "" if stock is None else f"{ours / stock:.1f}",
                    f"{memory:.0f} MB",
                ]
            )
    finally:
        for desktop in desktops:
            desktop.close()
    columns = ["desktops", "stock steps/s", "ours steps/s", "times stock", "PSS each"]
    title = "Steps in total: click, type 9 digits, picture of 1920x1080, Calc open"
    print_table(title, columns, rows)


def _resets() -> None:
    """Table of the time to a fresh desktop that has shown its first picture."""
    boots, ends, sizes = [], [], []
    for _ in range(RESETS):
        began = time.monotonic()
        desktop = Desktop()
        boots.append(time.monotonic() - began)
        time.sleep(2.0)
        sizes.append(desktop.sandbox.memory_mb())
        began = time.monotonic()
        desktop.close()
        ends.append(time.monotonic() - began)
    rows = [
        ["start to first picture", *_spread(boots)],
        ["end", *_spread(ends)],
        [
            "revert (end and start)",
            *_spread([a + b for a, b in zip(boots, ends, strict=True)]),
        ],
    ]
    print_table("Fresh desktops, one at a time", ["", "median", "slowest"], rows)
    print(f"\nIdle desktop: {statistics.median(sizes):.0f} MB PSS")


def _spread(times: Sequence[float]) -> list[str]:
    return [show_time(statistics.median(times)), show_time(max(times))]


def _widgets() -> None:
    """Table of reading widgets, application by application."""
    rows = []
    for name, command, title in APPLICATIONS:
        desktop = Desktop()
        try:
            desktop.open(command, title)
            times, view = [], desktop.client.view(widgets=True)
            for _ in range(10):
                began = time.monotonic()
                view = desktop.client.view(widgets=True)
                times.append(time.monotonic() - began)
            began = time.monotonic()
            size = len(desktop.client.accessibility_xml())
            whole = time.monotonic() - began
            found = len(view.widgets or ())
            rows.append(
                [
                    name,
                    f"{found}" if view.complete else f"{found}, cut short",
                    *_spread(times),
                    f"{show_time(whole)}, {size / 1e3:.0f} kB",
                    f"{desktop.sandbox.memory_mb():.0f} MB",
                ]
            )
        except RuntimeError as error:
            rows.append([name, f"not measured: {error}", "", "", "", ""])
        finally:
            desktop.close()
    columns = ["application", "widgets", "median", "slowest", "whole tree", "PSS"]
    print_table("Widgets with a picture, 1920x1080", columns, rows)


def run(args: argparse.Namespace) -> None:
    """Print the tables."""
    site = os.environ.get("STOCK_SITE")
    if site is not None and not (pathlib.Path(site) / "pyautogui").is_dir():
        raise RuntimeError(f"STOCK_SITE={site} holds no pyautogui; see the module")
    _resets()
    _widgets()
    _steps(None if site is None else pathlib.Path(site))
