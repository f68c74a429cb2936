"""A stand-in for desktop-env in an environment of its own, and a fake desktop."""

import http.server
import json
import socketserver
import threading
import venv
from pathlib import Path

from stepjax.envs.desktop.tasks.schema import parse_task

TOKEN = "let-me-in"

_REQUESTS = """
import urllib.error, urllib.request
class RequestException(IOError): pass
class Timeout(RequestException): pass
class _Answer:
    def __init__(self, content): self.content = content
    def raise_for_status(self): pass
def get(url, timeout=10):
    try:
        with urllib.request.urlopen(url, timeout=timeout) as answer:
            return _Answer(answer.read())
    except OSError as error:
        raise RequestException(str(error)) from error
"""

_ENVIRONMENT = """
import os, resource, sys, time, types
import easyocr, requests
assert os.path.getsize(os.environ["PROXY_CONFIG_FILE"]) > 0
print("noise on stdout while importing")
def create_vm_manager_and_provider(name, region, use_proxy=False):
    class Machine:
        def get_vm_path(self, **_): return "vm"
        def get_ip_address(self, _): return "127.0.0.1"
        def start_emulator(self, *_): pass
        def stop_emulator(self, *_): pass
    return Machine(), Machine()
class SetupController:
    def __init__(self): self.cache_dir = None
    def reset_cache_dir(self, folder): self.cache_dir = folder
    def _download_setup(self, files): pass
    def _sleep_setup(self, seconds): pass
    def setup(self, config, use_proxy=False):
        STEPS.extend(step["type"] for step in config)
        return True
STEPS = []
class DesktopEnv:
    def __init__(self, provider_name, cache_dir="cache", screen_size=(1920, 1080), **_):
        both = create_vm_manager_and_provider(provider_name, None, use_proxy=False)
        self.manager, self.provider = both
        path = self.manager.get_vm_path(os_type="Ubuntu")
        self.address = self.provider.get_ip_address(path).split(":")
        server = "http://127.0.0.1:" + self.address[1] if len(self.address) > 1 else ""
        self.controller = types.SimpleNamespace(
            http_server=server, retry_interval=5, get_accessibility_tree=lambda: None
        )
        self.setup_controller = SetupController()
        self.cache_dir_base = cache_dir
        self.action_history = []
        self.vm = len(self.address) == 1
    def _set_task_info(self, task):
        self.task, self.func = task, task["evaluator"]["func"]
        self.options = task["evaluator"].get("options", {})
        self.cache_dir = os.path.join(self.cache_dir_base, task["id"])
    def _get(self, path):
        return requests.get(self.controller.http_server + path).content
    def reset(self, task_config):
        self._set_task_info(task_config)
        self.action_history.clear()
        if self.vm:
            return {"screenshot": PNG}
        self._get("/setup/" + task_config["instruction"])
        self.setup_controller.setup(task_config.get("config", []))
        return {"screenshot": b""}
    def step(self, action, pause=2):
        self.action_history.append(action)
        return {"screenshot": PNG}, 0, action in ("DONE", "FAIL"), {}
    def evaluate(self):
        print("noise on stdout while evaluating")
        self.setup_controller.setup(self.task["evaluator"].get("postconfig", []))
        return BEHAVIORS[self.func](self)
    def close(self):
        path = os.environ.get("FAKE_VM_CLOSED")
        if path:
            open(path, "w").close()
def raise_it(env): raise ValueError("a broken\\ndocument")
def late(env): raise requests.Timeout("read timed out")
def wrapped(env):
    try: raise TimeoutError("timed out")
    except TimeoutError as error: raise ValueError("no answer") from error
def starve(env): raise MemoryError()
def fill(env): raise OSError(int(env.options["errno"]), "no")
def lack(env): import no_such_package
def import_it(env):
    path = os.path.join(env.cache_dir, "agent.py")
    os.makedirs(env.cache_dir, exist_ok=True)
    with open(path, "w") as file: file.write("import no_such_package")
    exec(compile(open(path).read(), path, "exec"), {})
def run_theirs(env):
    if env.options.get("fail"): env.controller.get_accessibility_tree()
    return 1
def recurse(env): return recurse(env)
def forge(env):
    for fd in range(3, 12):
        try: os.write(fd, b'{"id": 999, "value": {"score": 1.0}}\\n')
        except OSError: pass
    return 0
def shout(env):
    for fd in range(3, 12):
        try: os.write(fd, b"no json at all\\n")
        except OSError: pass
    return 0
BEHAVIORS = {
    "one": lambda env: 1,
    "half": lambda env: 0.5,
    "many": lambda env: 7,
    "none": lambda env: None,
    "nan": lambda env: float("nan"),
    "raise": raise_it,
    "recurse": recurse,
    "crash": lambda env: os._exit(3),
    "hang": lambda env: time.sleep(3600),
    "forge": forge,
    "shout": shout,
    "infeasible": lambda env: float(env.action_history[-1] == "FAIL"),
    "asset": lambda env: float(open(
        os.path.join(env.cache_dir, env.options["name"])).read() == "gold"),
    "tree": lambda env: env.controller.get_accessibility_tree() and 1,
    "steps": lambda env: len(STEPS) / 10,
    "retry": lambda env: env.controller.retry_interval,
    "server": lambda env: float(env._get("/file") == b"content"),
    "down": lambda env: env._get("/shut-down") and 1,
    "network": lambda env: float(len(os.listdir("/sys/class/net")
        if os.path.isdir("/sys/class/net") else
        open("/proc/net/dev").read().strip().splitlines()[2:])),
    "canary": lambda env: float(os.path.exists(env.options["path"])),
    "limited": lambda env: float(
        os.nice(0) >= 10
        and resource.getrlimit(resource.RLIMIT_CORE) == (0, 0)
        and 0 < resource.getrlimit(resource.RLIMIT_NPROC)[0] <= 1000),
    "late": late,
    "wrapped": wrapped,
    "starve": starve,
    "fill": fill,
    "lack": lack,
    "import": import_it,
    "check_python_file_by_test_suite": run_theirs,
    "check_gnome_favorite_apps": run_theirs,
}
"""


def make_evaluators(folder: Path) -> Path:
    """A virtual environment that holds a fake desktop-env; its folder."""
    venv.create(folder, with_pip=False, symlinks=True)
    (packages,) = folder.glob("lib/python3*/site-packages")
    (packages / "requests.py").write_text(_REQUESTS)
    module = packages / "desktop_env"
    (module / "evaluators").mkdir(parents=True)
    (module / "__init__.py").write_text("")
    png = make_png((8, 4))
    (module / "desktop_env.py").write_text(_ENVIRONMENT + f"PNG = {png!r}\n")
    (module / "evaluators" / "__init__.py").write_text(
        "import types\n"
        "getters = types.SimpleNamespace(get_rule=print, get_vm_file=print)\n"
        "metrics = types.SimpleNamespace(exact_match=print, _hidden=print)\n"
    )
    info = packages / "desktop_env-9.9.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Name: desktop-env\nVersion: 9.9\n")
    return folder


def make_task(func="one", instruction="go", config=(), **evaluator):
    """A task whose metric does as it is called."""
    return parse_task(
        {
            "id": "t1",
            "instruction": instruction,
            "config": list(config),
            "evaluator": {"func": func, **evaluator},
        },
        source="t1.json",
    )


def make_png(size: tuple[int, int]) -> bytes:
    """A red picture."""
    import io

    from PIL import Image

    buffer = io.BytesIO()
    Image.new("RGB", size, (255, 0, 0)).save(buffer, "PNG")
    return buffer.getvalue()


class _Handler(http.server.BaseHTTPRequestHandler):
    server: "FakeDesktop"

    def do_GET(self):
        self.server.seen.append(self.path)
        if self.server.token and self.headers.get("Authorization") != (
            f"Bearer {self.server.token}"
        ):
            self.send_error(401)
            return
        if self.path == "/shut-down" or self.server.dead:
            self.server.dead = True
            self.connection.close()
            return
        body = self.server.pages.get(self.path, b"content")
        self._answer(body)

    def do_POST(self):
        size = int(self.headers.get("Content-Length", 0))
        data = self.rfile.read(size)
        self.server.seen.append(self.path)
        self.server.bodies.append(data)
        if self.server.token and self.headers.get("Authorization") != (
            f"Bearer {self.server.token}"
        ):
            self.send_error(401)
            return
        finished = json.dumps({"output": "", "error": "", "returncode": 0}).encode()
        self._answer(self.server.pages.get(self.path, finished))

    def _answer(self, body: bytes):
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def address_string(self):
        return "unix"

    def log_message(self, *_):
        pass


class FakeDesktop(socketserver.ThreadingMixIn, socketserver.UnixStreamServer):
    """A desktop's server on a Unix socket, which asks for its token.

    Attributes:
      seen: Paths asked for.
      bodies: What was posted.
      pages: Answers by path; "content" for all others.
      dead: Hang up on everybody.
    """

    daemon_threads = True

    def __init__(self, folder: Path, token: str = TOKEN):
        self.socket_path = folder / "desktop.sock"
        super().__init__(str(self.socket_path), _Handler)
        self.token = token
        self.seen: list[str] = []
        self.bodies: list[bytes] = []
        self.pages: dict[str, bytes] = {}
        self.dead = False
        threading.Thread(target=self.serve_forever, daemon=True).start()

    def handle_error(self, request, client_address):
        pass  # a client that hangs up is part of the tests

    def stop(self):
        """End it."""
        self.shutdown()
        self.server_close()
