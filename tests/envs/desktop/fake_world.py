"""Environments on fake desktops, shared by the tests about them."""

import functools

from stepjax.envs.actions import Action, ActionKind
from stepjax.envs.desktop.environment import DesktopEnvironment
from stepjax.envs.desktop.settings import DesktopSettings
from stepjax.envs.desktop.spares import SparePool
from stepjax.envs.pool import Deadlines
from tests.envs.desktop import fake_desktops as fake
from tests.envs.desktop.fake_desktops import FakeDesktops, FakeJob

TYPE = Action(kind=ActionKind.TYPE, text="right")
WRONG = Action(kind=ActionKind.TYPE, text="left")
WAIT = Action(kind=ActionKind.WAIT)
DONE = Action(kind=ActionKind.DONE)
FAIL = Action(kind=ActionKind.FAIL)
DEADLINES = Deadlines(create=60.0, reset=60.0, step=60.0, evaluate=60.0, close=60.0)


class World:
    def __init__(self):
        self.desktops = FakeDesktops()
        self.job = FakeJob()
        self.options = {"spares": 1, "max_alive": 4, "backoff_seconds": 0.01}

    def __enter__(self):
        return self

    def __exit__(self, *_):
        if "spares_pool" in self.__dict__:
            self.spares_pool.close()

    @functools.cached_property
    def spares_pool(self):
        return SparePool(self.desktops, check_seconds=0.05, **self.options)

    def environment(self, **settings):
        settings = {"settle_ms": 0, "quiet_seconds": 0.0, **settings}
        return DesktopEnvironment(
            self.spares_pool,
            fake.load,
            settings=DesktopSettings(**settings),
            plan=fake.plan,
            setup=self.job.setup,
            evaluate=self.job.evaluate,
        )

    def of(self, environment):
        return environment._desktop
