"""The routes of AndroidWorld's own server (its `server/android_server.py`).

What may be repeated without harm is tried again after a lost connection; an action or
the set-up of a task only if the request never left. A server does one thing at a time,
so a call may have to wait for one that was given up.
"""

import json
import math
import time
import urllib.parse
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import numpy as np

from stepjax.envs.androidworld.errors import (
    AndroidWorldError,
    BrokenAnswerError,
    RefusedError,
    UnreachableError,
    WrongServerError,
)
from stepjax.envs.androidworld.exchange import Exchange, Reply, parse_address
from stepjax.envs.androidworld.pixels import PixelReader
from stepjax.envs.androidworld.settings import CallSeconds

__all__ = ["AndroidWorldClient"]

T = TypeVar("T")
_MAX_ANSWER = 16 << 20
_MAX_SCREENSHOT = 1 << 30  # text; no more than one row of it is ever held
_MAX_TASKS = 100_000
_BUSY = (502, 503, 504)
_WAITS = (0.5, 2.0)  # seconds before a second and a third try


class AndroidWorldClient:
    """Talks to one server; one call at a time.

    Args:
      url: Its address, such as `http://localhost:5000`.
      seconds: Most seconds of each call; None for the defaults.

    Attributes:
      url: The address in its usual form.

    Raises:
      ValueError: If the address is none.
      UnreachableError: From every call, if there is no connection.
      ServerTimeoutError: Likewise, if there is no whole answer in time.
      BrokenAnswerError: Likewise, if the answer is cut short or not the route's.
      RefusedError: Likewise, if the server says no.

    Example:
      >>> client = AndroidWorldClient("http://localhost:5000/")
      >>> client.url
      'http://localhost:5000'
    """

    def __init__(self, url: str, *, seconds: CallSeconds | None = None):
        self._exchange = Exchange(parse_address(url))
        self.url = str(self._exchange.address)
        self._seconds = seconds or CallSeconds()
        self._aborted = False

    def check(self) -> tuple[str, ...]:
        """Names of its tasks, if this is AndroidWorld's server and a phone is there.

        Raises:
          WrongServerError: If something else answers; says what.
        """
        reply = self._ask("GET", "/health", timeout=self._seconds.quick)
        data = _load(reply)
        if reply.status != 200 or not isinstance(data, dict) or "status" not in data:
            raise WrongServerError(_no_server(self.url, "/health", reply))
        try:
            return self.task_list()
        except (RefusedError, BrokenAnswerError) as error:
            text = f"{self.url} is not AndroidWorld's server: {error}"
            raise WrongServerError(text) from error

    def task_list(self) -> tuple[str, ...]:
        """Names of the tasks of its suite, in the server's order."""
        route = _route("/suite/task_list", max_index=-1)
        names = self._value("GET", route, "task_list", self._seconds.quick)
        sound = isinstance(names, list) and 0 < len(names) <= _MAX_TASKS
        if not sound or not all(isinstance(name, str) and name for name in names):
            raise self._broken(route, "no list of task names")
        if len(set(names)) != len(names):
            raise self._broken(route, "a task's name twice")
        return tuple(names)

    def task_length(self, task: str) -> int:
        """How many instances of a task its suite has."""
        route = _route("/suite/task_length", task_type=task)
        length = self._value("GET", route, "length", self._seconds.quick)
        if type(length) is not int or length < 0:
            raise self._broken(route, f"a length of {length!r}")
        return length

    def reinitialize(self, *, combinations: int, seed: int, family: str) -> None:
        """Make a new suite, none of whose tasks has been set up.

        Args:
          combinations: Instances of each task.
          seed: Decides their parameters, in [0, 2**32).
          family: Of tasks, such as "android_world".
        """
        route = _route(
            "/suite/reinitialize",
            n_task_combinations=combinations,
            seed=seed,
            task_family=family,
        )
        self._again(lambda: self._call("GET", route, self._seconds.suite))

    def initialize(self, task: str, index: int = 0) -> None:
        """Set a task up on the phone."""
        route = _route("/task/initialize", task_type=task, task_idx=index)
        self._unless_sent(lambda: self._call("POST", route, self._seconds.initialize))

    def tear_down(self, task: str, index: int = 0) -> None:
        """Clear away what a task set up; may be repeated."""
        route = _route("/task/tear_down", task_type=task, task_idx=index)
        self._again(lambda: self._call("POST", route, self._seconds.tear_down))

    def goal(self, task: str, index: int = 0) -> str:
        """What the agent is to be told."""
        route = _route("/task/goal", task_type=task, task_idx=index)
        goal = self._value("GET", route, "goal", self._seconds.quick)
        if not isinstance(goal, str) or not goal.strip():
            raise self._broken(route, f"a goal of {goal!r:.40}")
        return goal

    def template(self, task: str, index: int = 0) -> str:
        """The goal with its parameters left open."""
        route = _route("/task/template", task_type=task, task_idx=index)
        return str(self._value("GET", route, "template", self._seconds.quick))

    def score(self, task: str, index: int = 0) -> float:
        """How far the phone is as the task wants it, in [0, 1]."""
        route = _route("/task/score", task_type=task, task_idx=index)
        score = self._value("GET", route, "score", self._seconds.score)
        if not isinstance(score, int | float) or not math.isfinite(score):
            raise self._broken(route, f"a score of {score!r:.40}")
        if not 0.0 <= score <= 1.0:
            raise self._broken(route, f"a score of {score!r:.40}, outside [0, 1]")
        return float(score)

    def reset(self, *, go_home: bool) -> None:
        """Forget the last answer, and go to the home screen if asked to."""
        route = _route("/reset", go_home=go_home)
        self._again(lambda: self._call("POST", route, self._seconds.reset))

    def execute(self, action: Mapping[str, Any]) -> None:
        """Carry out one of AndroidWorld's JSON actions."""
        body = json.dumps(dict(action)).encode()
        seconds = self._seconds.action
        self._unless_sent(lambda: self._call("POST", "/execute_action", seconds, body))

    def screenshot(self, *, stable: bool = True) -> np.ndarray:
        """The screen [H, W, 3] uint8.

        Args:
          stable: Have the server wait until nothing moves, up to six seconds.
        """
        route = _route("/screenshot", wait_to_stabilize=stable)

        def look() -> np.ndarray:
            reader = PixelReader()
            self._call("GET", route, self._seconds.screenshot, sink=reader)
            return reader.finish()

        try:
            return self._again(look)
        except BrokenAnswerError as error:
            at = "" if self.url in str(error) else f"{self.url}: "
            raise BrokenAnswerError(f"{at}{error}") from error

    def abort(self) -> None:
        """Cut the call under way, if any, and repeat none; safe from any thread."""
        self._aborted = True
        self._exchange.abort()

    def _value(self, method: str, route: str, key: str, timeout: float) -> Any:
        """One entry of an answer that may be asked for again."""

        def ask() -> Any:
            data = _load(self._call(method, route, timeout))
            if not isinstance(data, dict) or key not in data:
                raise self._broken(route, f"no {key!r}")
            return data[key]

        return self._again(ask)

    def _call(
        self,
        method: str,
        route: str,
        timeout: float,
        body: bytes | None = None,
        sink: PixelReader | None = None,
    ) -> Reply:
        reply = self._ask(method, route, body, timeout=timeout, sink=sink)
        if reply.status != 200:
            name = route.partition("?")[0]
            raise RefusedError(
                f"{self.url}: {method} {name} answered {reply.status}: {_words(reply)}",
                reply.status,
            )
        return reply

    def _ask(
        self,
        method: str,
        route: str,
        body: bytes | None = None,
        *,
        timeout: float,
        sink: PixelReader | None = None,
    ) -> Reply:
        most = _MAX_ANSWER if sink is None else _MAX_SCREENSHOT
        return self._exchange.ask(
            method, route, body, timeout=timeout, max_bytes=most, sink=sink
        )

    def _again(self, call: Callable[[], T]) -> T:
        """`call`, tried again where another try may help and cannot hurt."""
        for wait in _WAITS:
            try:
                return call()
            except (UnreachableError, BrokenAnswerError):
                if self._aborted:
                    raise
            except RefusedError as error:
                if error.status not in _BUSY or self._aborted:
                    raise
            time.sleep(wait)
        return call()

    def _unless_sent(self, call: Callable[[], T]) -> T:
        """`call`, tried again only if it cannot have reached the server."""
        for wait in _WAITS:
            try:
                return call()
            except UnreachableError:
                if self._aborted:
                    raise
                time.sleep(wait)
        return call()

    def _broken(self, route: str, what: str) -> AndroidWorldError:
        name = route.partition("?")[0]
        return BrokenAnswerError(f"{self.url}: the answer of {name} holds {what}")


def _route(path: str, **query: str | int | bool) -> str:
    """Path and query; truth values as the server's framework reads them."""
    pairs = {
        name: str(value).lower() if isinstance(value, bool) else value
        for name, value in query.items()
    }
    return f"{path}?{urllib.parse.urlencode(pairs)}"


def _load(reply: Reply) -> Any:
    """The JSON of an answer, None if it holds none."""
    try:
        return json.loads(reply.body)
    except (ValueError, RecursionError):
        return None


def _words(reply: Reply) -> str:
    """What an answer says, for a person."""
    data = _load(reply)
    said = data.get("detail") if isinstance(data, dict) else None
    text = json.dumps(said) if isinstance(said, list | dict) else said
    text = text or reply.body[:2000].decode("utf-8", "replace")
    return " ".join(str(text).split())[:160] or "nothing"


def _no_server(url: str, route: str, reply: Reply) -> str:
    if reply.status == 500:
        return (
            f"{url}: the server answers, but its phone is not ready ({route} answered "
            f"500: {_words(reply)})."
        )
    kind = reply.kind or "no content type"
    return (
        f"{url} is not AndroidWorld's server: {route} answered {reply.status} with "
        f"{kind}: {_words(reply)}"
    )
