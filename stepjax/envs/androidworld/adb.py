"""A phone through adb: its screen, what is on it, and touches between two places.

Much faster than the server, whose screenshots are tens of megabytes of text, where adb
reaches the phone. Nothing here changes how a task is judged.
"""

import re
import struct
import subprocess
from collections.abc import Sequence

import numpy as np

from stepjax.envs.androidworld.errors import AndroidWorldError
from stepjax.envs.androidworld.pixels import MAX_SIDE
from stepjax.envs.androidworld.ui_dump import read_ui_dump
from stepjax.envs.base import Widget

__all__ = ["AdbDevice", "AdbError"]

_SIZE = re.compile(r"(Physical|Override) size: (\d{1,5})x(\d{1,5})")
_HEADER = struct.Struct("<III")
_RGBA = 1
_MAX_OUTPUT = 256 << 20
_DUMP = "/dev/tty"


class AdbError(AndroidWorldError):
    """adb failed, or what came through it is garbled."""


class AdbDevice:
    """One phone that adb reaches.

    Args:
      serial: As `adb devices` lists it, such as emulator-5554.
      adb: The program.
      timeout: Most seconds of a call.

    Raises:
      AdbError: From every call, if it fails.
    """

    def __init__(self, serial: str, *, adb: str = "adb", timeout: float = 30.0):
        if not re.fullmatch(r"[\w.:\[\]-]+", serial) or serial.startswith("-"):
            raise ValueError(
                "serial must be as adb devices lists it, such as emulator-5554, got "
                f"{serial!r}."
            )
        self.serial = serial
        self._adb, self._timeout = adb, timeout

    def size(self) -> tuple[int, int]:
        """Width and height in pixels that the phone says it has, held upright."""
        said = self._run(["shell", "wm", "size"]).decode("utf-8", "replace")
        sizes = {kind: (int(w), int(h)) for kind, w, h in _SIZE.findall(said)}
        found = sizes.get("Override") or sizes.get("Physical")
        if found is None or not all(0 < side <= MAX_SIDE for side in found):
            raise self._broken("wm size", f"said {' '.join(said.split())[:80]!r}")
        return found

    def screenshot(self) -> np.ndarray:
        """The screen [H, W, 3] uint8."""
        data = self._run(["exec-out", "screencap"])
        if len(data) < _HEADER.size:
            raise self._broken("screencap", f"gave {len(data)} bytes")
        width, height, form = _HEADER.unpack_from(data)
        start = len(data) - 4 * width * height
        # Three numbers before the pixels, and a fourth since Android 9.
        if form != _RGBA or start not in (12, 16) or not width or not height:
            raise self._broken(
                "screencap",
                f"gave {len(data)} bytes for {width} x {height} pixels, form {form}",
            )
        pixels = np.frombuffer(data, np.uint8, offset=start)
        return np.ascontiguousarray(pixels.reshape(height, width, 4)[..., :3])

    def widgets(self, *, width: int, height: int) -> tuple[Widget, ...]:
        """What is on the screen, in reading order.

        Args:
          width: Of the screenshot, in pixels.
          height: Likewise.
        """
        dump = self._run(["exec-out", "uiautomator", "dump", _DUMP])
        try:
            return read_ui_dump(dump, width=width, height=height)
        except ValueError as error:
            raise self._broken("uiautomator", str(error)) from error

    def swipe(self, start: tuple[int, int], end: tuple[int, int], *, ms: int) -> None:
        """Move a finger across the screen.

        Args:
          start: Where it comes down, in pixels.
          end: Where it goes up.
          ms: How long it takes, in milliseconds.
        """
        numbers = [str(int(value)) for value in (*start, *end, ms)]
        self._run(["shell", "input", "swipe", *numbers])

    def _run(self, arguments: Sequence[str]) -> bytes:
        """Standard output of an adb command."""
        name = " ".join(arguments[:3])
        try:
            done = subprocess.run(
                [self._adb, "-s", self.serial, *arguments],
                stdin=subprocess.DEVNULL,
                capture_output=True,
                timeout=self._timeout,
                check=False,
            )
        except FileNotFoundError:
            raise AdbError(
                f"there is no program {self._adb!r}; install adb (Android's "
                "platform-tools), or give no serials."
            ) from None
        except subprocess.TimeoutExpired:
            raise self._broken(name, f"took more than {self._timeout:g} s") from None
        except OSError as error:
            raise self._broken(name, str(error)) from error
        if done.returncode != 0 or len(done.stdout) > _MAX_OUTPUT:
            said = (done.stderr or done.stdout)[-300:].decode("utf-8", "replace")
            raise self._broken(name, f"failed: {said}")
        return done.stdout

    def _broken(self, name: str, what: str) -> AdbError:
        return AdbError(f"adb, {self.serial}: {name} {what}")
