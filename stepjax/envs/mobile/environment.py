"""Phones in one browser: a tab each, real touches, MiniWoB++ pages as the app."""

import base64
import dataclasses
import pathlib
from collections.abc import Sequence
from typing import Any

import numpy as np

from stepjax.envs.actions import Action, ActionKind
from stepjax.envs.base import Observation, StepResult, Task
from stepjax.envs.miniwob.cdp import BrowserError, Command
from stepjax.envs.miniwob.chromium import Chromium, find_chromium
from stepjax.envs.miniwob.environment import MAX_WIDGETS, page_observation
from stepjax.envs.miniwob.pages import ORIGIN, PageFolder, find_pages
from stepjax.envs.mobile import programs
from stepjax.envs.mobile.programs import Program
from stepjax.envs.mobile.running import run_programs
from stepjax.envs.mobile.screen import PhoneScreen, read_picture
from stepjax.envs.mobile.tasks import step_budget

__all__ = ["MobileVector", "make_mobile_environment"]

_HERE = pathlib.Path(__file__).parent
_END_KINDS = frozenset({ActionKind.DONE, ActionKind.FAIL})
_FRAMES = 8  # loaded pages that a phone keeps
_LOADED = """new Promise(go => document.readyState === 'complete' ? go()
  : addEventListener('load', go))"""


def make_mobile_environment(
    chromium: str | None = None,
    num_slots: int = 4,
    *,
    screen: PhoneScreen | None = None,
    max_steps: int = 30,
    from_launcher: bool = False,
    pictures: bool = False,
    timeout: float = 30.0,
) -> "MobileVector":
    """Phones in a Chromium found by `find_chromium`.

    Args:
      chromium: Executable to use, or None to search for one.
      num_slots: Phones at once.
      screen: Their screens; None for 1080 x 2400 at scale 3.
      max_steps: Actions after which an episode is cut, if its task's budget is larger.
      from_launcher: Whether episodes begin on the launcher, not in the app.
      pictures: Whether observations hold screenshots, for who sees nothing else.
      timeout: Deadline of one call to the browser, in seconds.

    Raises:
      FileNotFoundError: If no browser is found.
      ImportError: If the pages are not installed.
      BrowserError: If the browser does not start.
    """
    return MobileVector(
        find_chromium(chromium),
        num_slots=num_slots,
        screen=screen,
        max_steps=max_steps,
        from_launcher=from_launcher,
        pictures=pictures,
        timeout=timeout,
    )


class MobileVector:
    """Phones side by side, stepped together (a `VectorEnvironment`).

    Every phone is a tab with a phone's device metrics and a touch screen. It shows a
    status bar and either a launcher with icons or an app; the app "MiniWoB" holds the
    task's page. Taps, long presses, swipes and text arrive as real input. An episode's
    reward is 1 if the page's raw reward is 1, as AndroidWorld scores these pages.
    Time in a page moves one second per action.

    Attributes:
      num_slots: Phones at once.
      max_steps: Actions after which an episode is cut at the latest.
      screen: The screen of each.
    """

    def __init__(
        self,
        executable: str,
        *,
        num_slots: int,
        screen: PhoneScreen | None = None,
        max_steps: int = 30,
        from_launcher: bool = False,
        pictures: bool = False,
        timeout: float = 30.0,
    ):
        """Start the browser and its phones; see `make_mobile_environment`."""
        if num_slots < 1 or max_steps < 1:
            raise ValueError(
                f"num_slots and max_steps must be at least 1, got {num_slots} and "
                f"{max_steps}."
            )
        self.num_slots, self.max_steps = num_slots, max_steps
        self.screen = screen or PhoneScreen()
        self._first_screen = "" if from_launcher else programs.APP
        self._pictures = pictures
        self._budgets = [max_steps] * num_slots
        self._steps = [0] * num_slots
        self._rewards = [0.0] * num_slots
        self._sessions: list[str] = []
        self._phones: list[str] = []
        own = {f"/{name}": _HERE / name for name in ("phone.html", "phone.js")}
        self._pages = PageFolder(find_pages(), own)
        self._browser = Chromium(executable, flags=("--touch-events=enabled",))
        self._tools = self._browser.tools
        self._tools.timeout = timeout
        try:
            self._tools.call("Browser.getVersion", timeout=60.0)  # a cold start is slow
            self._tools.on("Fetch.requestPaused", self._answer)
            for _ in range(num_slots):
                self._open_phone()
        except BrowserError as error:
            words = self._browser.last_words()
            self.close()
            raise BrowserError(f"{error} {executable} said: {words}") from error

    def reset_many(
        self, slots: Sequence[int], tasks: Sequence[Task], seeds: Sequence[int]
    ) -> list[Observation]:
        """First observations of `tasks` set up from `seeds` in `slots`.

        Raises:
          BrowserError: If the browser fails.
          SlotError: If a page cannot be set up.
        """
        running: dict[int, Program] = {}
        for slot, task, seed in zip(slots, tasks, seeds, strict=True):
            self._steps[self._check(slot)], self._rewards[slot] = 0, 0.0
            self._budgets[slot] = min(self.max_steps, step_budget(task.name))
            start = programs.call("start", task.name, int(seed), self._first_screen)
            running[slot] = programs.read([start])
        replies = run_programs(self._tools, running, self._sessions, self._phones)
        return self._seen(slots, replies)

    def step_many(
        self, slots: Sequence[int], actions: Sequence[Action]
    ) -> list[StepResult]:
        """What one action in each of `slots` led to.

        Raises:
          BrowserError: If the browser fails.
          SlotError: If a page cannot be read.
        """
        running: dict[int, Program] = {}
        for slot, action in zip(slots, actions, strict=True):
            self._steps[self._check(slot)] += 1
            running[slot] = programs.program(action, self.screen)
        replies = run_programs(self._tools, running, self._sessions, self._phones)
        screens = self._seen(slots, replies)
        return [
            self._result(slot, action, replies[slot], screen)
            for slot, action, screen in zip(slots, actions, screens, strict=True)
        ]

    def evaluate_many(self, slots: Sequence[int]) -> list[float]:
        """1.0 for each of `slots` whose page gave its full reward, else 0."""
        return [self._rewards[self._check(slot)] for slot in slots]

    def screenshot(self, slot: int) -> np.ndarray:
        """The screen of one phone, [height, width, 3] uint8 in physical pixels.

        Raises:
          ImportError: If Pillow is not installed.
          BrowserError: If the browser fails, or shows a screen of another size.
        """
        return self._screens([self._check(slot)])[0]

    def kill(self) -> None:
        """End the browser at once; a call under way raises. Safe from any thread."""
        self._browser.kill()

    def close(self) -> None:
        """End the browser and remove its profile; safe to call twice."""
        self._browser.close()

    @property
    def pid(self) -> int:
        """Process id of the browser, and id of its process group."""
        return self._browser.pid

    def _check(self, slot: int) -> int:
        if not 0 <= slot < self.num_slots:
            raise ValueError(f"slot {slot} is outside [0, {self.num_slots}).")
        return slot

    def _seen(
        self, slots: Sequence[int], replies: dict[int, list[Any]]
    ) -> list[Observation]:
        """Observations of `slots` from the last words of their programs."""
        found = [page_observation(replies[slot][2]) for slot in slots]
        if not self._pictures:
            return found
        return [
            dataclasses.replace(one, screenshot=screen)
            for one, screen in zip(found, self._screens(slots), strict=True)
        ]

    def _screens(self, slots: Sequence[int]) -> list[np.ndarray]:
        """Screens of several phones, taken at a time."""
        options = {"format": "png", "optimizeForSpeed": True}
        shots: list[Command] = [
            (self._sessions[slot], "Page.captureScreenshot", options) for slot in slots
        ]
        size = tuple(round(side * self.screen.scale) for side in self.screen.css_size)
        return [
            read_picture(reply["data"], *size) for reply in self._tools.gather(shots)
        ]

    def _result(
        self, slot: int, action: Action, reply: Sequence[Any], screen: Observation
    ) -> StepResult:
        done, raw, _ = reply
        self._rewards[slot] = float(done == 1 and raw >= 1)
        last = action.parts[-1] if action.parts else action
        terminated = done == 1 or last.kind in _END_KINDS
        return StepResult(
            observation=screen,
            terminated=terminated,
            truncated=not terminated and self._steps[slot] >= self._budgets[slot],
        )

    def _open_phone(self) -> None:
        """Open one more tab, as a phone."""
        tools = self._tools
        target = tools.call("Target.createTarget", {"url": "about:blank"})
        attach = {"targetId": target["targetId"], "flatten": True}
        session = tools.call("Target.attachToTarget", attach)["sessionId"]
        width, height = self.screen.css_size
        metrics = {
            "width": width, "height": height, "deviceScaleFactor": self.screen.scale,
            "mobile": True, "screenWidth": width, "screenHeight": height,
            "screenOrientation": {"type": "portraitPrimary", "angle": 0},
        }  # fmt: skip
        script = PageFolder.resource("page.js")
        setup: list[tuple[str, dict[str, Any]]] = [
            ("Fetch.enable", {}),
            ("Page.enable", {}),
            ("Inspector.enable", {}),
            ("Emulation.setFocusEmulationEnabled", {"enabled": True}),
            ("Emulation.setDeviceMetricsOverride", metrics),
            ("Emulation.setTouchEmulationEnabled",
             {"enabled": True, "maxTouchPoints": 5}),
            ("Page.addScriptToEvaluateOnNewDocument", {"source": script}),
            ("Page.navigate", {"url": f"{ORIGIN}/phone.html"}),
            ("Runtime.evaluate", {"expression": _LOADED, "awaitPromise": True}),
            ("Runtime.evaluate", {"expression": "globalThis"}),
        ]  # fmt: skip
        for method, params in setup:
            (reply,) = tools.gather([(session, method, params)])
        arguments = [width, height, _FRAMES, MAX_WIDGETS, programs.APP, programs.OTHERS]
        make = programs.function(
            reply["result"]["objectId"],
            "(...a) { return new Phone(...a); }", arguments, by_value=False,
        )  # fmt: skip
        (made,) = tools.gather([(session, *make)])
        self._phones.append(programs.result_of(made)["objectId"])
        self._sessions.append(session)

    def _answer(self, event: dict[str, Any]) -> None:
        """Serve one request of a page from the folder."""
        status, kind, body = self._pages.read(event["request"]["url"])
        answer = {
            "requestId": event["requestId"], "responseCode": status,
            "responseHeaders": [{"name": "Content-Type", "value": kind}],
            "body": base64.b64encode(body).decode(),
        }  # fmt: skip
        session = self._tools.event_session
        self._tools.send("Fetch.fulfillRequest", answer, session=session)
