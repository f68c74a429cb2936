"""One phone behind AndroidWorld's server, from set-up to tear-down.

Each episode has a suite of its own with one instance of each task, made from the
episode's seed. A task's instance is therefore always new, as in AndroidWorld's own
runs; and as a server starts with two of each, the length tells a restart.
"""

import logging
import threading
import time
from collections.abc import Mapping
from typing import Any

import numpy as np

from stepjax.envs.androidworld.adb import AdbDevice
from stepjax.envs.androidworld.client import AndroidWorldClient
from stepjax.envs.androidworld.errors import (
    AndroidWorldError,
    BrokenAnswerError,
    RefusedError,
    ServerTimeoutError,
    SuiteChangedError,
    UnreachableError,
    WrongServerError,
)
from stepjax.envs.androidworld.journal import Journal
from stepjax.envs.androidworld.settings import AndroidWorldSettings
from stepjax.envs.base import Widget

__all__ = ["Phone", "ScreenSize", "is_miniwob"]

_LOG = logging.getLogger(__name__)
_COMBINATIONS = 1
_WAIT = 2.0  # seconds between two looks for a server that has gone
_NOT_YET = (UnreachableError, BrokenAnswerError, ServerTimeoutError, WrongServerError)


def is_miniwob(task: str) -> bool:
    """True for a page of MiniWoB, which ends by itself once its reward is there."""
    return task.lower().startswith("miniwob")


class ScreenSize:
    """The size that all phones must have: one that was asked for, or the first's.

    Args:
      size: Width and height in pixels, held upright or not; None for the first's.
    """

    def __init__(self, size: tuple[int, int] | None = None):
        self._lock = threading.Lock()
        self._size = size
        self._whose = "the settings"

    def check(self, size: tuple[int, int], whose: str) -> None:
        """Compare a size, or remember it; a phone that is turned keeps its size.

        Args:
          size: Width and height in pixels.
          whose: Who says so or shows it.

        Raises:
          AndroidWorldError: If it is another.
        """
        with self._lock:
            if self._size is None:
                self._size, self._whose = size, whose
            if sorted(size) != sorted(self._size):
                raise AndroidWorldError(
                    f"{whose} shows a screen of {size[0]} x {size[1]} pixels, unlike "
                    f"the {self._size[0]} x {self._size[1]} of {self._whose}; phones "
                    "of one run must have one size."
                )


class Phone:
    """A phone, for one environment. A later one for the same server takes over from it.

    Args:
      url: The server's address.
      journal: Notes what is set up; shared by all phones made for this server.
      settings: How it is driven.
      size: What its screen must be.
      device: The phone through adb, where that reaches it.
      over: Set once nothing is worth waiting for any more; None for never.

    Attributes:
      url: The server's address.
    """

    def __init__(
        self,
        url: str,
        journal: Journal,
        *,
        settings: AndroidWorldSettings,
        size: ScreenSize,
        device: AdbDevice | None = None,
        over: threading.Event | None = None,
    ):
        self._client = AndroidWorldClient(url, seconds=settings.seconds)
        self.url = self._client.url
        self._journal = journal
        self._settings, self._size, self._device = settings, size, device
        self._goal = ""
        self._gone, self._over = threading.Event(), over or threading.Event()
        journal.owner = self

    def connect(self, patience: float = 0.0) -> tuple[str, ...]:
        """Find the server, clear away what an earlier run left, make a suite.

        Args:
          patience: Seconds to wait for a server that does not answer yet.

        Returns:
          Names of the family's tasks, in the server's order.

        Raises:
          WrongServerError: If something else answers.
          AndroidWorldError: If nothing answers, or it has no such family.
        """
        until = time.monotonic() + patience
        while True:
            try:
                self._client.check()
                break
            except _NOT_YET:
                late = time.monotonic() >= until or self._over.is_set()
                if late or self._gone.wait(_WAIT):
                    raise
        if self._device is not None:
            self._size.check(self._device.size(), f"adb of {self._device.serial}")
        self.end()
        self._new_suite(0)
        return self._client.task_list()

    def begin(self, task: str, seed: int) -> str:
        """Set a task up from nothing.

        Args:
          task: Its name.
          seed: Decides its parameters, unless the settings do.

        Returns:
          What the agent is to be told.

        Raises:
          AndroidWorldError: If it cannot be set up; what was begun is noted.
        """
        self.end()
        fixed = self._settings.suite_seed
        seed = seed % 2**32 if fixed is None else fixed
        try:
            self._set_up(task, seed)
        except RefusedError as error:
            # Whatever is half there goes; the phone may only have been slow.
            _LOG.info("%s: %s is set up once more: %s", self.url, task, error)
            self.end()
            self._set_up(task, seed)
        self._goal = self._client.goal(task)
        self._client.reset(go_home=not is_miniwob(task))
        return self._goal

    def act(self, action: Mapping[str, Any]) -> None:
        """Carry out one of AndroidWorld's JSON actions."""
        self._client.execute(action)

    def swipe(self, start: tuple[int, int], end: tuple[int, int]) -> bool:
        """Move a finger between two places; False where only adb could do it."""
        if self._device is None:
            return False
        self._device.swipe(start, end, ms=500)
        return True

    def look(self) -> np.ndarray:
        """The screen [H, W, 3] uint8.

        Raises:
          AndroidWorldError: If there is none, or it has another size than it should.
        """
        if self._device is not None:
            image = self._device.screenshot()
        else:
            image = self._client.screenshot(stable=self._settings.stable)
        self._size.check((image.shape[1], image.shape[0]), self.url)
        return image

    def widgets(self, image: np.ndarray) -> tuple[Widget, ...] | None:
        """What is on the screen that `image` shows; None where adb cannot tell."""
        if self._device is None or not self._settings.widgets:
            return None
        return self._device.widgets(width=image.shape[1], height=image.shape[0])

    def judge(self) -> float:
        """Score of the task that is set up, in [0, 1].

        Raises:
          SuiteChangedError: If the server restarted meanwhile, or is shared.
        """
        task = self._journal.task
        if task is None:
            raise AndroidWorldError(f"{self.url}: no task is set up to be judged")
        self._check_suite(task)
        if self._client.goal(task) != self._goal:
            raise _changed(self.url)
        return self._client.score(task)

    def end(self) -> None:
        """Tear down what is set up, if anything is; a phone taken over does nothing."""
        task = self._journal.task
        if task is None or self._journal.owner is not self:
            return
        try:
            self._client.tear_down(task)
        except RefusedError as error:
            # The server did what it could; the next set-up begins afresh anyway.
            _LOG.warning("%s: tearing %s down failed: %s", self.url, task, error)
        self._journal.write(None)

    def abort(self) -> None:
        """Cut whatever is under way; safe from any thread."""
        self._gone.set()
        self._client.abort()

    def _set_up(self, task: str, seed: int) -> None:
        self._new_suite(seed)
        self._check_suite(task)
        self._journal.write(task)
        self._client.initialize(task)

    def _new_suite(self, seed: int) -> None:
        self._client.reinitialize(
            combinations=_COMBINATIONS, seed=seed, family=self._settings.family
        )

    def _check_suite(self, task: str) -> None:
        if self._client.task_length(task) != _COMBINATIONS:
            raise _changed(self.url)


def _changed(url: str) -> SuiteChangedError:
    return SuiteChangedError(
        f"{url}: its tasks are not those of this run any more: the server restarted, "
        "or somebody else uses it"
    )
