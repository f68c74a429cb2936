"""A small server with the routes of AndroidWorld's, and faults on demand."""

import collections
import contextlib
import http.server
import json
import threading
import time
import urllib.parse
from collections.abc import Iterator
from typing import Any

import numpy as np

from stepjax.envs.actions import Action, ActionKind

WIDTH, HEIGHT = 36, 80
SWITCH = (18, 40)
TASKS = (
    "CameraTakePhoto",
    "ClockTimerEntry",
    "NotesTodoItemCount",
    "SystemBluetoothTurnOff",
    "SystemBluetoothTurnOn",
    "TurnOffWifiAndTurnOnBluetooth",
)
MINIWOB = ("MiniWobClickTest", "MiniWobEnterText")


class Instance:
    """One task of a suite."""

    def __init__(self, name: str, seed: int):
        self.name, self.seed = name, seed
        self.initialized = False


class PhoneServer:
    """The server's state: a suite, a phone with a switch and an answer.

    Attributes:
      calls: Routes asked for, in order.
      faults: By route, what goes wrong with the next calls of it.
      size: Width and height of the screen.
      requests: Routes with their queries and bodies.
    """

    def __init__(self):
        self.calls: list[str] = []
        self.requests: list[tuple[str, dict[str, str], Any]] = []
        self.faults: dict[str, collections.deque[Any]] = collections.defaultdict(
            collections.deque
        )
        self.size: tuple[int, int] = (WIDTH, HEIGHT)
        self.url = ""
        self.lock = threading.Lock()
        self.released = threading.Event()
        self.restart()

    def restart(self) -> None:
        """What a new process of the server would have."""
        self.bluetooth, self.wifi, self.answer, self.home = False, True, "", 0
        self.make_suite(2, 42, "android_world")

    def make_suite(self, combinations: int, seed: int, family: str) -> None:
        names = {"android_world": TASKS, "miniwob": MINIWOB}[family]
        self.family = family
        self.suite = {
            name: [Instance(name, seed * 1000 + i) for i in range(combinations)]
            for name in names
        }

    def fail(self, route: str, *faults: Any) -> None:
        """Have the next calls of a route go wrong."""
        self.faults[route].extend(faults)

    @property
    def left(self) -> list[str]:
        """Tasks that are set up."""
        return [
            one.name for row in self.suite.values() for one in row if one.initialized
        ]

    # The routes.

    def answer_to(self, route: str, query: dict[str, str], body: Any) -> Any:
        instance = Instance("none", 0)
        if route.startswith("/task/"):
            instance = self.suite[query["task_type"]][int(query["task_idx"])]
        match route:
            case "/health":
                return {"status": "success"}
            case "/suite/task_list":
                return {"task_list": list(self.suite)}
            case "/suite/task_length":
                return {"length": len(self.suite[query["task_type"]])}
            case "/suite/reinitialize":
                if query["task_family"] not in ("android_world", "miniwob"):
                    raise BadRequest(f"Invalid task family: {query['task_family']}")
                self.make_suite(
                    int(query["n_task_combinations"]),
                    int(query["seed"]),
                    query["task_family"],
                )
            case "/reset":
                assert query["go_home"] in ("true", "false")
                self.answer = ""
                self.home += query["go_home"] == "true"
            case "/execute_action":
                self.act(body)
            case "/screenshot":
                return {"pixels": self.picture().tolist()}
            case "/task/initialize":
                self.set_up(instance)
            case "/task/tear_down":
                instance.initialized = False
            case "/task/score":
                return {"score": self.score(instance)}
            case "/task/goal":
                if self.family == "miniwob" and not instance.initialized:
                    raise ValueError("not initialized")
                return {"goal": f"{instance.name} number {instance.seed}."}
            case _:
                raise BadRequest("Not Found", 404)
        return {"status": "success", "message": "done"}

    def set_up(self, one: Instance) -> None:
        self.answer = ""
        if one.initialized:
            raise RuntimeError("already initialized")
        one.initialized = True
        self.bluetooth = one.name == "SystemBluetoothTurnOff"
        self.wifi = True

    def act(self, action: dict[str, Any]) -> None:
        match action["action_type"]:
            case "click":
                x, y = action["x"], action["y"]
                if abs(x - SWITCH[0]) < 6 and abs(y - SWITCH[1]) < 6:
                    self.bluetooth = not self.bluetooth
            case "answer":
                self.answer = action["text"]
            case "status":
                assert action["goal_status"] in ("complete", "infeasible")
            case "wait":
                pass
            case other:
                raise ValueError(f"Invalid action type: {other}")

    def score(self, one: Instance) -> float:
        if not one.initialized and one.name != "CameraTakePhoto":
            raise RuntimeError("initialize first")
        match one.name:
            case "NotesTodoItemCount":
                return float(self.answer == str(one.seed))
            case "SystemBluetoothTurnOff":
                return float(not self.bluetooth)
            case "TurnOffWifiAndTurnOnBluetooth":
                return (self.bluetooth + (not self.wifi)) / 2
            case _:
                return float(self.bluetooth)

    def picture(self) -> np.ndarray:
        width, height = self.size
        image = np.full((height, width, 3), 230, np.uint8)
        image[: height // 18] = time.monotonic_ns() // 1000 % 200  # a clock
        image[36:44, 14:22] = (20, 250, 160) if self.bluetooth else (90, 90, 90)
        return image


class BadRequest(Exception):
    """An answer with status 400, or another."""

    def __init__(self, message: str, status: int = 400):
        super().__init__(message)
        self.status = status


class _Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    phone: PhoneServer

    def do_GET(self) -> None:  # noqa: N802
        self._serve()

    do_POST = do_GET  # noqa: N815

    def log_message(self, *_: Any) -> None:
        pass

    def _serve(self) -> None:
        phone = self.phone
        parts = urllib.parse.urlsplit(self.path)
        query = dict(urllib.parse.parse_qsl(parts.query))
        length = int(self.headers.get("Content-Length") or 0)
        body = json.loads(self.rfile.read(length)) if length else None
        with phone.lock:  # one thing at a time, as the real one
            phone.calls.append(parts.path)
            phone.requests.append((parts.path, query, body))
            waiting = phone.faults[parts.path]
            fault = waiting.popleft() if waiting else None
            if callable(fault):
                fault()
                fault = None
            if fault == "hang up":
                self.close_connection = True
                return
            if fault == "drop after":  # the server acts, and nobody hears of it
                phone.answer_to(parts.path, query, body)
                self.close_connection = True
                return
            if isinstance(fault, float):
                phone.released.wait(fault)
            self._answer(parts.path, query, body, fault)

    def _answer(self, route: str, query: Any, body: Any, fault: Any) -> None:
        kind = "application/json"
        try:
            if fault == 500 or fault == 503:
                raise RuntimeError("as told")
            data = self.phone.answer_to(route, query, body)
            status, text = 200, json.dumps(data, separators=(",", ":")).encode()
        except BadRequest as error:
            status = error.status
            text = json.dumps({"detail": str(error)}).encode()
        except Exception:
            status, kind = fault if fault == 503 else 500, "text/plain"
            text = b"Internal Server Error"
        if isinstance(fault, bytes):
            status, text = 200, fault
        length = len(text)
        if fault == "truncated JSON":
            text = text[: len(text) // 2]
            length = len(text)
        if fault == "short":
            text = text[: len(text) // 2]
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(length))
        self.end_headers()
        with contextlib.suppress(OSError):
            self.wfile.write(text)
        if fault == "short":
            self.close_connection = True


@contextlib.contextmanager
def serving(phone: PhoneServer, port: int = 0) -> Iterator[PhoneServer]:
    """A block in which `phone` is served at `phone.url`."""
    handler = type("Handler", (_Handler,), {"phone": phone})
    server = http.server.ThreadingHTTPServer(("127.0.0.1", port), handler)
    server.daemon_threads = True
    phone.url = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, args=(0.1,), daemon=True)
    thread.start()
    try:
        yield phone
    finally:
        phone.released.set()
        server.shutdown()
        server.server_close()
        thread.join()


def format_action(action: Action, *, width: int, height: int) -> dict[str, Any]:
    """AndroidWorld's JSON of the few actions that tests take."""
    match action.kind:
        case ActionKind.CLICK if action.x is not None and action.y is not None:
            place = {"x": int(action.x * width), "y": int(action.y * height)}
            return {"action_type": "click", **place}
        case ActionKind.ANSWER:
            return {"action_type": "answer", "text": action.text}
        case ActionKind.WAIT:
            return {"action_type": "wait"}
        case ActionKind.OPEN_APP:
            return {"action_type": "open_app", "app_name": action.text}
    raise ValueError(f"no form for {action.kind.name}")
