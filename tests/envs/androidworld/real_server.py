"""AndroidWorld's own server with a phone made of a few lines, to be run by hand.

    python tests/envs/androidworld/real_server.py --port 5000

in an environment that has AndroidWorld, fastapi and uvicorn, with AndroidWorld's
checkout on PYTHONPATH. Application, task registry, evaluators and the way from an
action to adb's commands are AndroidWorld's; only what answers adb is not a phone. It
knows bluetooth, which a tap in the middle of the screen switches.
"""

# pyright: reportMissingImports=false

import argparse
import types
from typing import Any

import numpy as np
import uvicorn  # pyright: ignore
from android_env.proto import adb_pb2
from android_world.env import interface
from server import android_server


class FakeController:
    """What answers adb: settings, the bluetooth service, taps; all else is fine."""

    def __init__(self, width: int, height: int):
        self.width, self.height = width, height
        self.bluetooth = False
        self.taps: list[tuple[int, int]] = []

    @property
    def env(self) -> "FakeController":
        return self

    def reset(self) -> Any:
        return self.step(None)

    def step(self, _: Any) -> Any:
        pixels = np.full((self.height, self.width, 3), 230, np.uint8)
        color = (20, 250, 160) if self.bluetooth else (90, 90, 90)
        rows, columns = self._switch()
        pixels[rows.start : rows.stop, columns.start : columns.stop] = color
        observation = {"pixels": pixels, "forest": None, "ui_elements": []}
        return types.SimpleNamespace(observation=observation)

    def execute_adb_call(self, request: Any) -> Any:
        said = b""
        arguments = list(request.generic.args)
        match arguments:
            case ["shell", "settings", "get", "global", "bluetooth_on"]:
                said = b"1\n" if self.bluetooth else b"0\n"
            case ["shell", "svc", "bluetooth", what]:
                self.bluetooth = what == "enable"
            case ["shell", "dumpsys", "input", *_]:
                said = f"logicalFrame=[0, 0, {self.width}, {self.height}]".encode()
            case ["shell", script] if script.lstrip().startswith("if ["):
                said = b"Does not exist\n"
        if request.HasField("tap"):
            self._tap(request.tap.x, request.tap.y)
        return adb_pb2.AdbResponse(
            status=adb_pb2.AdbResponse.Status.OK,
            generic=adb_pb2.AdbResponse.GenericResponse(output=said),
        )

    def close(self) -> None:
        pass

    def _tap(self, x: int, y: int) -> None:
        self.taps.append((x, y))
        rows, columns = self._switch()
        if x in columns and y in rows:
            self.bluetooth = not self.bluetooth

    def _switch(self) -> tuple[range, range]:
        """Rows and columns of the switch."""
        down, across = self.height // 12, self.width // 5
        return range(5 * down, 7 * down), range(2 * across, 3 * across)


def main() -> None:
    """Serve until interrupted."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, default=5000)
    parser.add_argument("--width", type=int, default=1080)
    parser.add_argument("--height", type=int, default=2400)
    given = parser.parse_args()
    android_server.env_launcher.load_and_setup_env = lambda **_: (
        interface.AsyncAndroidEnv(FakeController(given.width, given.height))
    )
    uvicorn.run(
        android_server.app, host="127.0.0.1", port=given.port, log_level="warning"
    )


if __name__ == "__main__":
    main()
