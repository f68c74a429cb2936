"""MiniWoB++ in one browser page: a frame per slot, one browser call per vector step."""

import base64
import io
import json
import zlib
from collections.abc import Sequence
from typing import Any

import numpy as np

from stepjax.envs.actions import Action, ActionKind
from stepjax.envs.base import Observation, StepResult, Task, Widget
from stepjax.envs.miniwob.cdp import BrowserError
from stepjax.envs.miniwob.chromium import Chromium, find_chromium
from stepjax.envs.miniwob.doable import doable, page_request
from stepjax.envs.miniwob.pages import ORIGIN, PageFolder, find_pages
from stepjax.envs.vector import SlotError

__all__ = [
    "MAX_WIDGETS",
    "PAGE_SIZE",
    "MiniwobVector",
    "make_vector_environment",
    "page_observation",
]

MAX_WIDGETS = 32
"""Most widgets an observation lists; plain text is left out first."""

PAGE_SIZE = (210, 160)
"""Height and width of a page in pixels."""

_PAGE_SCRIPT = "page.js"
_MAKE_HOST = "function(columns, slots, frames, widgets) { return new Host(columns, slots, frames, widgets); }"  # noqa: E501
_RESET = "function(requests) { return this.reset(requests); }"
_STEP = "function(requests) { return this.step(requests); }"
_END_KINDS = frozenset({ActionKind.DONE, ActionKind.FAIL})


def make_vector_environment(
    chromium: str | None = None,
    num_slots: int = 16,
    *,
    max_steps: int = 10,
    timeout: float = 30.0,
) -> "MiniwobVector":
    """A vector of MiniWoB++ pages in a Chromium found by `find_chromium`.

    Args:
      chromium: Executable to use, or None to search for one.
      num_slots: Pages at once.
      max_steps: Actions after which an episode is cut.
      timeout: Deadline of one call to the browser, in seconds.

    Raises:
      FileNotFoundError: If no browser is found.
      ImportError: If the pages are not installed.
      BrowserError: If the browser does not start.
    """
    return MiniwobVector(
        find_chromium(chromium),
        num_slots=num_slots,
        max_steps=max_steps,
        timeout=timeout,
    )


class MiniwobVector:
    """MiniWoB++ pages side by side, stepped together (a `VectorEnvironment`).

    A page's raw reward above 0 counts as 1. Its time limit is lifted, its reward
    display hidden, its clock moves one second per action. Clicks and keys are DOM
    events at the place a pointer would hit. DONE and FAIL end an episode as it stands.
    What a page cannot do is a WAIT, see `stepjax.envs.miniwob.doable`.

    Attributes:
      num_slots: Pages at once.
      max_steps: Actions after which an episode is cut.
    """

    def __init__(
        self,
        executable: str,
        *,
        num_slots: int,
        max_steps: int = 10,
        max_frames: int = 0,
        timeout: float = 30.0,
    ):
        """Start the browser and its empty frames.

        Args:
          executable: Path of a Chromium.
          num_slots: Pages at once, at least 1.
          max_steps: Actions after which an episode is cut, at least 1.
          max_frames: Loaded pages to keep (2 MB each), 0 for 16 per slot; a
            kept page resets in milliseconds, a new one in tens of them.
          timeout: Deadline of one call to the browser, in seconds.
        """
        if num_slots < 1 or max_steps < 1:
            raise ValueError(
                f"num_slots and max_steps must be at least 1, got {num_slots} and "
                f"{max_steps}."
            )
        self.num_slots, self.max_steps = num_slots, max_steps
        self._steps = [0] * num_slots
        self._rewards = [0.0] * num_slots
        self._columns = min(num_slots, 8)
        self._pages = PageFolder(find_pages())
        self._browser = Chromium(executable)
        self._tools = self._browser.tools
        self._tools.timeout = timeout
        try:
            self._open(max(max_frames or 16 * num_slots, num_slots))
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
        requests = [
            [self._check(slot), task.name, int(seed)]
            for slot, task, seed in zip(slots, tasks, seeds, strict=True)
        ]
        for slot in slots:
            self._steps[slot], self._rewards[slot] = 0, 0.0
        replies = self._ask(_RESET, requests, awaits=True)
        return [page_observation(seen) for _, _, seen in replies]

    def step_many(
        self, slots: Sequence[int], actions: Sequence[Action]
    ) -> list[StepResult]:
        """What one action in each of `slots` led to.

        Raises:
          BrowserError: If the browser fails.
          SlotError: If a page cannot be read.
        """
        actions = [doable(action) for action in actions]
        requests = []
        for slot, action in zip(slots, actions, strict=True):
            self._steps[self._check(slot)] += 1
            requests.append([slot, *page_request(action)])
        results = []
        replies = self._ask(_STEP, requests, awaits=False)
        for slot, action, (done, raw, seen) in zip(
            slots, actions, replies, strict=True
        ):
            self._rewards[slot] = float(done == 1 and raw > 0)
            terminated = done == 1 or action.kind in _END_KINDS
            results.append(
                StepResult(
                    observation=page_observation(seen),
                    terminated=terminated,
                    truncated=not terminated and self._steps[slot] >= self.max_steps,
                )
            )
        return results

    def evaluate_many(self, slots: Sequence[int]) -> list[float]:
        """1.0 for each of `slots` whose page gave a positive raw reward, else 0."""
        return [self._rewards[self._check(slot)] for slot in slots]

    def screenshot(self, slot: int) -> np.ndarray:
        """Picture of one slot, [210, 160, 3] uint8.

        Raises:
          ImportError: If Pillow is not installed.
          BrowserError: If the browser fails.
        """
        from PIL import Image  # pyright: ignore[reportMissingImports] # optional

        height, width = PAGE_SIZE
        self._check(slot)
        clip = {
            "x": slot % self._columns * width, "y": slot // self._columns * height,
            "width": width, "height": height, "scale": 1,
        }  # fmt: skip
        reply = self._tools.call(
            "Page.captureScreenshot", {"format": "png", "clip": clip}
        )
        with Image.open(io.BytesIO(base64.b64decode(reply["data"]))) as picture:
            return np.asarray(picture.convert("RGB"), dtype=np.uint8)

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

    def _open(self, max_frames: int) -> None:
        """Open the page that holds the frames."""
        tools = self._tools
        tools.call("Browser.getVersion", timeout=60.0)  # a cold start is slow
        target = tools.call("Target.createTarget", {"url": "about:blank"})
        attach = {"targetId": target["targetId"], "flatten": True}
        tools.session = tools.call("Target.attachToTarget", attach)["sessionId"]
        tools.on("Fetch.requestPaused", self._answer)
        tools.call("Fetch.enable")
        tools.call("Page.enable")
        tools.call("Inspector.enable")
        script = self._pages.resource(_PAGE_SCRIPT)
        tools.call("Page.addScriptToEvaluateOnNewDocument", {"source": script})
        rows = -(-self.num_slots // self._columns)
        size = {"width": self._columns * PAGE_SIZE[1], "height": rows * PAGE_SIZE[0]}
        tools.call(
            "Emulation.setDeviceMetricsOverride",
            {**size, "deviceScaleFactor": 1, "mobile": False},
        )
        tools.call("Page.navigate", {"url": f"{ORIGIN}/host.html"})
        loaded = "new Promise(f => document.readyState === 'complete' ? f() : addEventListener('load', f))"  # noqa: E501
        tools.call("Runtime.evaluate", {"expression": loaded, "awaitPromise": True})
        world = tools.call("Runtime.evaluate", {"expression": "globalThis"})
        made = self._function(
            world["result"]["objectId"], _MAKE_HOST,
            [self._columns, self.num_slots, max_frames, MAX_WIDGETS],
            returnByValue=False,
        )  # fmt: skip
        self._host = made["objectId"]

    def _answer(self, event: dict[str, Any]) -> None:
        """Serve one request of the page from the folder."""
        status, kind, body = self._pages.read(event["request"]["url"])
        headers = [
            {"name": "Content-Type", "value": kind},
            {"name": "Cache-Control", "value": "max-age=86400"},
        ]
        self._tools.send(
            "Fetch.fulfillRequest",
            {
                "requestId": event["requestId"], "responseCode": status,
                "responseHeaders": headers, "body": base64.b64encode(body).decode(),
            },
        )  # fmt: skip

    def _function(
        self, on: str, body: str, arguments: list[Any], **options: bool
    ) -> dict[str, Any]:
        """What a JavaScript function called on object `on` returns."""
        reply = self._tools.call(
            "Runtime.callFunctionOn",
            {
                "objectId": on, "functionDeclaration": body,
                "arguments": [{"value": value} for value in arguments], **options,
            },
        )  # fmt: skip
        if "exceptionDetails" in reply:
            details = reply["exceptionDetails"]
            text = details.get("exception", {}).get("description", details["text"])
            raise BrowserError(f"The page's script failed: {text}")
        return reply["result"]

    def _ask(self, body: str, requests: list[Any], *, awaits: bool) -> list[Any]:
        """One reply (done, raw reward, observation as JSON) per request."""
        if not requests:
            return []
        answer = self._function(
            self._host, body, [requests], returnByValue=True, awaitPromise=awaits
        )
        replies = json.loads(answer["value"])
        failed = {
            request[0]: f"slot {request[0]} ({request[1]}): {reason}"
            for request, (done, reason, _) in zip(requests, replies, strict=True)
            if done < 0
        }
        if failed:
            raise SlotError(list(failed), "; ".join(failed.values()))
        return replies


def page_observation(seen: str) -> Observation:
    """Observation from the page's own JSON, which is also what its hash is taken of."""
    instruction, rows = json.loads(seen)
    widgets = tuple(
        Widget(
            role=role, label=label, value=value, box=(left, top, right, bottom),
            on=bool(flags & 1), focused=bool(flags & 2), disabled=bool(flags & 4),
            ref=str(index),
        )
        for index, (role, label, value, left, top, right, bottom, flags)
        in enumerate(rows)
    )  # fmt: skip
    return Observation(
        instruction=instruction,
        widgets=widgets,
        state_hash=zlib.crc32(seen.encode("utf-8", "surrogatepass")),
    )
