"""Upstream's side of the evaluators: run by their own interpreter, not by stepjax's.

Speaks one JSON object a line: requests on stdin, answers on what was stdout. Everything
that upstream prints goes to stderr instead. Needs Python 3.10 and `desktop-env`, and
imports nothing of stepjax.
"""

import base64
import collections
import errno
import importlib
import importlib.metadata
import json
import math
import os
import resource
import selectors
import shutil
import socket
import sys
import tempfile
import threading
import types
import typing

__all__ = ["main"]

_REFUSED_PORT = 1  # nobody listens there: an address that fails at once
_CHUNK = 1 << 16
_PROBE_SECONDS = 5.0
_EXHAUSTED = frozenset(
    (errno.ENOSPC, errno.EDQUOT, errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.EAGAIN)
)
_BUSY_STEPS = ("launch", "open", "activate_window")
_CALLS = frozenset(
    "names setup evaluate vm_open vm_reset vm_step vm_evaluate vm_close".split()
)


class _Fault(Exception):
    """A failure of the desktop or of the evaluator, not of the agent."""


class _Channel:
    """Lines to and from stepjax, out of reach of `print`."""

    def __init__(self):
        self._lines = os.fdopen(os.dup(0), "r", encoding="utf-8", errors="replace")
        self._out = os.fdopen(os.dup(1), "w", encoding="utf-8")
        nothing = os.open(os.devnull, os.O_RDONLY)
        os.dup2(nothing, 0)
        os.close(nothing)
        os.dup2(2, 1)

    def requests(self) -> typing.Iterator[dict]:
        """Requests until stdin ends."""
        for line in self._lines:
            yield json.loads(line)

    def pause(self, number: int) -> None:
        """Let stepjax see to it that the desktop has come to rest."""
        self.send({"id": number, "pause": True})
        if not json.loads(next(self._lines, "{}")).get("go"):
            raise _Fault("the desktop does not come to rest")

    def send(self, message: dict) -> None:
        self._out.write(json.dumps(message) + "\n")
        self._out.flush()


class _Forward:
    """A port of this process's loopback that leads to a Unix socket.

    The process has a network of its own, so nobody else can reach the port. Upstream's
    controllers know addresses and ports only; that is why there is a port at all.
    """

    def __init__(self, path: str):
        self._path = path
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=64)
        self.port = self._listener.getsockname()[1]
        threading.Thread(target=self._serve, daemon=True).start()

    def close(self) -> None:
        try:
            self._listener.shutdown(socket.SHUT_RDWR)  # wakes the accept
        except OSError:
            pass  # closed already
        self._listener.close()

    def _serve(self) -> None:
        while True:
            try:
                near, _ = self._listener.accept()
            except OSError:
                return
            threading.Thread(target=self._pump, args=(near,), daemon=True).start()

    def _pump(self, near: socket.socket) -> None:
        with near, socket.socket(socket.AF_UNIX) as far:
            try:
                far.connect(self._path)
                _pump(near, far)
            except OSError as error:
                print(f"forward to the desktop ended: {error}", file=sys.stderr)


def _pump(near: socket.socket, far: socket.socket) -> None:
    """Bytes both ways until either side ends."""
    with selectors.DefaultSelector() as selector:
        selector.register(near, selectors.EVENT_READ, far)
        selector.register(far, selectors.EVENT_READ, near)
        while True:
            for key, _ in selector.select():
                source = typing.cast(socket.socket, key.fileobj)
                data = source.recv(_CHUNK)
                if not data:
                    return
                key.data.sendall(data)


def _fixed_provider(address: str) -> typing.Any:
    """Manager and provider in one, of a desktop that somebody else started."""

    def refuse(*_):
        raise _Fault("this desktop cannot be reverted by desktop-env")

    return types.SimpleNamespace(
        get_vm_path=lambda **_: "desktop",
        get_ip_address=lambda _: address,
        start_emulator=lambda *_: None,
        stop_emulator=lambda *_: None,
        revert_to_snapshot=refuse,
    )


class _Upstream:
    """What a request can ask for."""

    def __init__(self, channel: _Channel):
        self._channel = channel
        self._module: typing.Any = importlib.import_module("desktop_env.desktop_env")
        self._evaluators = importlib.import_module("desktop_env.evaluators")
        self._requests = importlib.import_module("requests")
        self._stock_factory = self._module.create_vm_manager_and_provider
        self._vm: typing.Any = None

    def names(self, request: dict) -> dict:
        """Setup steps, getters and metrics that this version has."""
        getters, metrics = self._evaluators.getters, self._evaluators.metrics
        public = {n for n in dir(metrics) if callable(getattr(metrics, n))}
        return {
            "setup": sorted(
                name[1:-6]
                for name in dir(self._module.SetupController)
                if name.startswith("_") and name.endswith("_setup")
            ),
            "getters": sorted(n[4:] for n in dir(getters) if n.startswith("get_")),
            "metrics": sorted(n for n in public if not n.startswith("_")),
        }

    def setup(self, request: dict) -> None:
        """Set a task up on the desktop."""
        self._with_desktop(request, lambda env: env.reset(request["task"]) and None)

    def evaluate(self, request: dict) -> dict:
        """Score of what the agent left on the desktop."""
        return self._with_desktop(request, lambda env: self._judge(env, request))

    def _judge(self, env: typing.Any, request: dict) -> dict:
        env._set_task_info(request["task"])
        env.setup_controller.reset_cache_dir(env.cache_dir)
        env.action_history.append(request["ended_by"])
        try:
            value = env.evaluate()
        except Exception as error:  # whatever a metric makes of a broken document
            if isinstance(error, _Fault):
                raise
            if self._is_fault(error):
                raise _Fault(f"the evaluator failed: {_one_line(error)}") from error
            self._probe(env, error)
            return {"score": 0.0, "note": _one_line(error)}
        return _scored(value)

    def _is_fault(self, error: BaseException) -> bool:
        """True if this machine is to blame, not what the agent left."""
        late = (TimeoutError, self._requests.Timeout)
        seen: list[BaseException] = []
        cause: BaseException | None = error
        while cause is not None and cause not in seen:
            seen.append(cause)
            # Libraries wrap timeouts and failed allocations in errors of their own.
            if isinstance(cause, late) or _exhausted(cause):
                return True
            cause = cause.__cause__ or cause.__context__
        return isinstance(error, ImportError) and _is_installed(_origin(error))

    def _probe(self, env: typing.Any, error: Exception) -> None:
        """Raise unless the desktop answers: then `error` is the agent's doing."""
        try:
            self._requests.get(
                f"{env.controller.http_server}/platform", timeout=_PROBE_SECONDS
            ).raise_for_status()
        except self._requests.RequestException:
            raise _Fault(f"the desktop does not answer: {_one_line(error)}") from error

    def _with_desktop(self, request: dict, use: typing.Callable) -> typing.Any:
        scratch = tempfile.mkdtemp(prefix="cache-")
        forwards = {name: _Forward(path) for name, path in request["sockets"].items()}
        ports = {name: forward.port for name, forward in forwards.items()}
        ports = collections.defaultdict(lambda: _REFUSED_PORT, ports)
        address = "127.0.0.1:{server}:{chromium}:{vnc}:{vlc}".format_map(ports)
        both = (_fixed_provider(address),) * 2
        self._module.create_vm_manager_and_provider = lambda *_, **__: both
        try:
            target = os.path.join(scratch, request["task"]["id"])
            shutil.copytree(request["assets"], target)
            env = self._module.DesktopEnv(
                provider_name="docker",  # its meaning here: clean at the start
                cache_dir=scratch,
                screen_size=tuple(request["screen"]),
                require_a11y_tree=False,
                client_password=request["password"],
            )
            env.controller.retry_interval = 0.5  # a local socket: no need to wait 5 s
            env.controller.get_accessibility_tree = _whole(
                env.controller.get_accessibility_tree
            )
            if request["pause"]:
                self._pace(env, request["id"])
            return use(env)
        finally:
            self._module.create_vm_manager_and_provider = self._stock_factory
            for forward in forwards.values():
                forward.close()
            shutil.rmtree(scratch, ignore_errors=True)

    def _pace(self, env: typing.Any, number: int) -> None:
        """Have a pause after each step that leaves programs busy.

        Upstream goes on at once or sleeps for a fixed time; on a busy machine keys are
        then pressed before a window takes them, and files read before they are saved.
        """
        stock = env.setup_controller.setup

        def paced(config: list, *options) -> bool:
            for step in config:
                if not stock([step], *options):
                    return False
                if step["type"] in _BUSY_STEPS or "pyautogui" in json.dumps(step):
                    self._channel.pause(number)
            return bool(config) or stock(config, *options)

        env.setup_controller.setup = paced

    def vm_open(self, request: dict) -> None:
        """Start a virtual machine through one of upstream's providers."""
        self._vm = self._module.DesktopEnv(**request["options"])

    def vm_reset(self, request: dict) -> dict:
        """Revert it and set a task up."""
        return _picture(self._vm.reset(request["task"]))

    def vm_step(self, request: dict) -> dict:
        """Carry out a pyautogui statement, or WAIT, DONE, FAIL."""
        return _picture(self._vm.step(request["action"], pause=request["pause"])[0])

    def vm_evaluate(self, request: dict) -> dict:
        """Score of the episode."""
        return _scored(self._vm.evaluate())

    def vm_close(self, request: dict) -> None:
        """Stop the virtual machine."""
        if self._vm is not None:
            self._vm.close()
            self._vm = None


def _whole(read_tree: typing.Callable) -> typing.Callable:
    """A reader of the accessibility tree for which none is a fault, not a zero."""

    def read() -> str:
        tree = read_tree()
        if tree is None:
            raise _Fault("the desktop gave no accessibility tree")
        return tree

    return read


def _picture(observation: dict) -> dict:
    """Observation as JSON; the screenshot stays the PNG that the desktop sent."""
    png = observation.get("screenshot")
    if not png:
        raise _Fault("the machine gave no screenshot")
    return {"screenshot": base64.b64encode(png).decode("ascii")}


def _scored(value: typing.Any) -> dict:
    """What a metric returned, as a score in [0, 1] with a note where it was none."""
    try:
        score = float(value)
    except (TypeError, ValueError):
        return {"score": 0.0, "note": f"the metric returned {type(value).__name__}"}
    if not math.isfinite(score):
        return {"score": 0.0, "note": f"the metric returned {score}"}
    return {"score": min(max(score, 0.0), 1.0), "note": ""}


def _exhausted(error: BaseException) -> bool:
    """True if memory, room on the disk, files or processes have run out."""
    if isinstance(error, MemoryError):
        return True
    return isinstance(error, OSError) and error.errno in _EXHAUSTED


def _origin(error: BaseException) -> str:
    """File of the code that raised an error."""
    trace, file = error.__traceback__, ""
    while trace is not None:
        file = trace.tb_frame.f_code.co_filename
        trace = trace.tb_next
    return file


def _is_installed(file: str) -> bool:
    """True for a file of the evaluators or of Python, not of the agent."""
    folders = {os.path.realpath(one) for one in (sys.prefix, sys.base_prefix)}
    return any(os.path.realpath(file).startswith(one + os.sep) for one in folders)


def _one_line(error: BaseException) -> str:
    """Name and message of an error, short."""
    return " ".join(f"{type(error).__name__}: {error}".split())[:500]


def _stub_easyocr() -> None:
    """A stand-in for the one package that would bring torch along."""

    def reader(*_, **__):
        raise _Fault("compare_image_text needs easyocr, which is left out")

    sys.modules["easyocr"] = stub = types.ModuleType("easyocr")
    stub.__dict__["Reader"] = reader


def main(arguments: list[str]) -> int:
    """Answer requests until stdin ends; the argument limits the memory, in bytes."""
    if arguments:
        resource.setrlimit(resource.RLIMIT_AS, (int(arguments[0]), int(arguments[0])))
    channel = _Channel()
    # desktop-env reads a list of proxies when it is imported and complains without one.
    handle, proxies = tempfile.mkstemp(prefix="proxies-", suffix=".json")
    os.write(handle, b"[]")
    os.close(handle)
    os.environ["PROXY_CONFIG_FILE"] = proxies
    _stub_easyocr()
    try:
        upstream = _Upstream(channel)
        version = importlib.metadata.version("desktop-env")
    except Exception as error:
        channel.send({"ready": False, "why": _one_line(error)})
        return 1
    finally:
        os.unlink(proxies)
    channel.send({"ready": True, "upstream": version})
    try:
        for request in channel.requests():
            answer: dict = {"id": request["id"]}
            try:
                name = request["call"]
                if name not in _CALLS:
                    raise _Fault(f"unknown call {name!r}")
                answer["value"] = getattr(upstream, name)(request)
            except Exception as error:
                answer["error"] = _one_line(error)
            channel.send(answer)
    finally:
        upstream.vm_close({})
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
