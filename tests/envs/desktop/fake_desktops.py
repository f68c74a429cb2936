"""Desktops made of nothing, whose faults are scripted."""

import dataclasses
import threading
import time
import types

import numpy as np

from stepjax.envs.base import Task, Widget
from stepjax.envs.desktop.booted import Desktop
from stepjax.envs.desktop.tasks.schema import TaskSpec, parse_task


class FakeDead(OSError):
    """What a client raises when nobody answers."""


class FakeSandbox:
    """A sandbox that is a flag.

    Attributes:
      closed: Times it was closed.
      dead: What it died of, or "".
    """

    def __init__(self, spec=None):
        self.spec = spec
        self.socket, self.token = "socket", "token"
        self.closed = 0
        self.dead = ""

    def alive(self):
        return not self.closed and not self.dead

    def why_dead(self):
        return self.dead or "it was closed"

    def close(self):
        self.closed += 1


class FakeClient:
    """A client that keeps a list of what it was asked, and paints it."""

    def __init__(self, sandbox, size=(64, 40)):
        self.sandbox = sandbox
        self.size = size
        self.done = []
        self.calls = 0
        self.closed = 0
        self.hang = threading.Event()
        self.before_act = lambda client: None

    def act(self, operations, *, settle_ms=100, size=None, widgets=False):
        self.calls += 1
        self.before_act(self)
        while self.hang.is_set() and self.sandbox.alive():
            time.sleep(0.01)
        if not self.sandbox.alive():
            raise FakeDead("connection refused")
        self.done += list(operations)
        width, height = size or self.size
        image = np.full((height, width, 3), 40 * len(self.done) % 256, np.uint8)
        button = Widget(role="button", label="OK", box=(0.5, 0.25, 1.0, 0.75))
        seen = (button,) if widgets else None
        return types.SimpleNamespace(
            image=image, widgets=seen, width=self.size[0], height=self.size[1]
        )

    def rest(self, *, timeout=20.0):
        return True

    def execute(self, command, *, timeout=10.0, cwd=None):
        return types.SimpleNamespace(returncode=0, output="", error="")

    def close(self):
        self.closed += 1


class FakeDesktops:
    """Boots fake desktops and remembers them all; `script(n)` may delay or raise.

    Attributes:
      made: Desktops booted, in the order in which they were ready.
      most_alive: Most desktops that were ever alive or booting at once.
    """

    def __init__(self, script=lambda number: None):
        self.script = script
        self.lock = threading.Lock()
        self.asked = 0
        self.booting = 0
        self.made = []
        self.most_alive = 0
        self.on_client = lambda client: None

    def __call__(self, needs_root):
        with self.lock:
            number = self.asked
            self.asked += 1
            self.booting += 1
            self._count()
        try:
            self.script(number)
            sandbox = FakeSandbox(types.SimpleNamespace(needs_root=needs_root))
            client = FakeClient(sandbox)
            self.on_client(client)
            desktop = Desktop(sandbox, client, needs_root=needs_root)
        finally:
            with self.lock:
                self.booting -= 1
        with self.lock:
            self.made.append(desktop)
        return desktop

    def _count(self):
        alive = self.booting + sum(not one.sandbox.closed for one in self.made)
        self.most_alive = max(self.most_alive, alive)

    def kill(self, desktop, why="killed by a test"):
        desktop.sandbox.dead = why

    @property
    def left(self):
        """Desktops that nobody has closed."""
        return [one for one in self.made if not one.sandbox.closed]


@dataclasses.dataclass
class FakeJob:
    """Setup and evaluation of a task that is done once something was typed."""

    setups: int = 0
    judged: int = 0
    on_setup: object = None
    lock: threading.Lock = dataclasses.field(default_factory=threading.Lock)

    def setup(self, spec, client):
        with self.lock:
            self.setups += 1
        if self.on_setup is not None:
            self.on_setup(spec, client)

    def evaluate(self, spec, client, *, ended_by):
        with self.lock:
            self.judged += 1
        client.act(())
        return float({"op": "type", "text": "right"} in client.done)


def plan(action, *, width, height):
    if action.parts:
        return [one for part in action.parts for one in plan(part, width=1, height=1)]
    return ({"op": action.kind.name.lower(), "text": action.text},)


def spec_of(name, *, infeasible=False, needs_root=False) -> TaskSpec:
    return parse_task(
        {
            "id": name,
            "instruction": f"Do {name}.",
            "related_apps": ["fake"],
            "needs_root": needs_root,
            "evaluator": {"func": "infeasible" if infeasible else "typed"},
        },
        source="fake",
    )


def load(name, seed):
    return spec_of(name, infeasible="cannot" in name, needs_root="root" in name)


def make_task(name="write"):
    return Task(task_id=0, name=name, instruction="", domain="fake")


def wait_for(condition, seconds=30.0):
    until = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < until, "waited too long"
        time.sleep(0.01)


def pool_threads():
    return [one for one in threading.enumerate() if "stepjax-desktop" in one.name]
