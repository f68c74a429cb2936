"""Real desktops for tests of the program inside: fixtures, input, an editor."""

import io
import itertools
import shutil

import numpy as np
import pytest

from stepjax.envs.desktop.client import DesktopClient
from stepjax.envs.desktop.sandbox import SandboxSpec, start_sandbox
from tests.envs.desktop import sandboxes
from tests.envs.desktop.sandboxes import PATIENCE, wait_for

NUMBERS = itertools.count()
WIDTH, HEIGHT = 800, 600
ST = "{https://accessibility.ubuntu.example.org/ns/state}"
CP = "{https://accessibility.ubuntu.example.org/ns/component}"


def boot():
    reason = sandboxes.missing()
    if reason:
        pytest.skip(reason)
    spec = SandboxSpec(width=WIDTH, height=HEIGHT)
    sandbox = start_sandbox(spec, timeout=PATIENCE)
    return sandbox, DesktopClient(sandbox.socket, sandbox.token, timeout=PATIENCE)


def need(program):
    if shutil.which(program) is None:
        pytest.skip(f"{program} is not installed")


def move(x, y):
    return {"op": "move", "x": int(x), "y": int(y)}


def click(button=1, count=1):
    return {"op": "click", "button": button, "count": count}


def press(*keys):
    return {"op": "press", "keys": list(keys)}


def write(text):
    return {"op": "type", "text": text}


def pause(seconds):
    return {"op": "sleep", "seconds": seconds}


def done(client, *command, **options):
    finished = client.execute(command, timeout=60.0, **options)
    assert finished.returncode == 0, finished
    return finished.output


def middle(widget):
    left, top, right, bottom = widget.box
    return (left + right) / 2 * WIDTH, (top + bottom) / 2 * HEIGHT


class Editor:
    """Mousepad on a file of its own, in front and maximized."""

    def __init__(self, client, text=""):
        need("mousepad")
        self.client = client
        self.path = f"/home/user/edit{next(NUMBERS)}.txt"
        client.write_file(self.path, text.encode())
        client.launch(["mousepad", "--disable-server", self.path])
        self.title = self.path.rpartition("/")[2]
        assert wait_for(lambda: any(self.title in w for w in client.windows()))
        client.activate_window(self.title)
        assert wait_for(lambda: self.ready(text))
        client.act([press("Control_L", "Home")], settle_ms=300)

    def ready(self, text):
        """Keys pressed before that are lost."""
        field = self.field()
        loaded = field is not None and field.focused and field.value == text[:200]
        return loaded and self.title in self.active()

    def active(self):
        return self.client.execute(
            ["xdotool", "getactivewindow", "getwindowname"], timeout=60.0
        ).output

    def field(self):
        found = self.client.view(widgets=True).widgets
        fields = [one for one in found if one.role == "text_field"]
        return fields[0] if fields else None

    def place(self, column, line):
        """Where a character is: the font is of one width."""
        left, top = self.field().box[:2]
        size = 16  # of a line; half of it is wide enough for a guess at a column
        return left * WIDTH + 2 + column * size / 2, top * HEIGHT + (line + 0.5) * size

    def saved(self, expected, *operations):
        """The file after some input and ctrl+s; waits for what is expected."""
        self.client.act(operations)
        text = None

        def as_expected():
            nonlocal text
            self.client.act([press("Control_L", "s")], settle_ms=500)
            text = self.client.read_file(self.path).decode()
            return text == expected

        wait_for(as_expected, 30.0)
        return text

    def end(self):
        done(self.client, "pkill", "-f", self.title)


def picture(data):
    from PIL import Image

    return np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))
