"""Finding, starting and ending a Chromium."""

import atexit
import fcntl
import os
import pathlib
import shutil
import signal
import subprocess
import tempfile
import time

from stepjax.envs.miniwob.cdp import BrowserError, DevTools

__all__ = ["CHROMIUM_VARIABLE", "Chromium", "find_chromium"]

CHROMIUM_VARIABLE = "STEPJAX_CHROMIUM"
"""Environment variable that names the executable."""

_NAMES = (
    "chromium-headless-shell", "chrome-headless-shell", "headless_shell",
    "chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome",
)  # fmt: skip
_INSTALL = (
    "install one (Debian: apt-get install chromium-headless-shell; npm: @sparticuz/"
    f"chromium), or name it with --env.chromium or {CHROMIUM_VARIABLE}."
)
_FLAGS = (
    "--headless", "--disable-gpu", "--remote-debugging-pipe", "--no-first-run",
    "--no-default-browser-check", "--disable-background-networking",
    "--disable-component-update", "--disable-default-apps", "--disable-extensions",
    "--disable-sync", "--disable-breakpad", "--disable-crash-reporter",
    "--disable-dev-shm-usage", "--disable-domain-reliability",
    "--metrics-recording-only",
    "--disable-client-side-phishing-detection", "--mute-audio", "--hide-scrollbars",
    "--password-store=basic", "--use-mock-keychain", "--force-device-scale-factor=1",
    "--disable-backgrounding-occluded-windows", "--disable-renderer-backgrounding",
    "--disable-background-timer-throttling", "--force-color-profile=srgb",
    "--disable-features=Translate,MediaRouter,OptimizationHints,HttpsUpgrades",
)  # fmt: skip
_PREFIX = "stepjax-chromium-"


def find_chromium(path: str | None = None) -> str:
    """Path of a Chromium: the one named, else the variable's, else the first on PATH.

    Args:
      path: An executable, or a folder of npm's @sparticuz/chromium; None to search.

    Returns:
      Path of an executable.

    Raises:
      FileNotFoundError: If there is none; says how to install or name one.
    """
    for value, origin in (
        (path, "--env.chromium"),
        (os.environ.get(CHROMIUM_VARIABLE), CHROMIUM_VARIABLE),
    ):
        if not value:
            continue
        if pathlib.Path(value).is_dir():
            return _unpack_sparticuz(pathlib.Path(value), origin)
        found = shutil.which(value)
        if found is None:
            raise FileNotFoundError(f"{origin}={value} is no executable; {_INSTALL}")
        return found
    for name in _NAMES:
        found = shutil.which(name)
        if found is not None:
            return found
    raise FileNotFoundError(f"No Chromium found on PATH; {_INSTALL}")


def _unpack_sparticuz(folder: pathlib.Path, origin: str) -> str:
    """Executable that npm's @sparticuz/chromium unpacks; the package does it itself."""
    node = shutil.which("node")
    if not (folder / "package.json").is_file() or node is None:
        raise FileNotFoundError(
            f"{origin}={folder} is a folder: expected node_modules/@sparticuz/chromium "
            "(and node on PATH), or an executable."
        )
    script = (
        "import(require.resolve(process.argv[1])).then(m => m.default.executablePath())"
        ".then(p => console.log(p))"
    )
    done = subprocess.run(
        [node, "-e", script, str(folder.resolve())],
        capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    path = done.stdout.strip().splitlines()[-1:] or [""]
    if done.returncode != 0 or not os.access(path[0], os.X_OK):
        raise FileNotFoundError(
            f"{origin}={folder} did not unpack: {done.stderr.strip()[-200:]}"
        )
    return path[0]


def _remove_stale_profiles() -> None:
    """Remove profiles of processes that died before they could."""
    for folder in pathlib.Path(tempfile.gettempdir()).glob(f"{_PREFIX}*"):
        pid = folder.name[len(_PREFIX) :].split("-")[0]
        if pid.isdigit() and folder.owner() and not _alive(int(pid)):
            if folder.stat().st_uid == os.geteuid():
                shutil.rmtree(folder, ignore_errors=True)


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


class Chromium:
    """A running browser in a process group of its own, with a fresh profile.

    Attributes:
      pid: Process id, which is also the id of its process group.
      tools: DevTools connection.
    """

    def __init__(self, executable: str, *, flags: tuple[str, ...] = ()):
        """Start `executable`; further `flags` go behind ours.

        Raises:
          BrowserError: If it cannot be started.
        """
        _remove_stale_profiles()
        self._profile = tempfile.mkdtemp(prefix=f"{_PREFIX}{os.getpid()}-")
        self._log = os.path.join(self._profile, "stderr.txt")
        self._ended = False
        sandbox = ("--no-sandbox",) if os.geteuid() == 0 else ()  # root cannot use it
        argv = [
            executable,
            *_FLAGS,
            *sandbox,
            f"--user-data-dir={self._profile}",
            *flags,
        ]
        theirs_in, ours_out = os.pipe()
        ours_in, theirs_out = os.pipe()
        high = [
            fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, 10) for fd in (theirs_in, theirs_out)
        ]
        environment = {**os.environ, "TZ": "UTC", "LANG": "en_US.UTF-8"}
        write = os.O_WRONLY | os.O_CREAT | os.O_APPEND
        try:
            # posix_spawn, not subprocess: it places descriptors 3 and 4 without a fork
            # hook, which a process that runs JAX's threads must not use.
            self.pid = os.posix_spawn(
                executable, argv, environment, setsid=True,
                file_actions=[
                    (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0),
                    (os.POSIX_SPAWN_OPEN, 1, os.devnull, os.O_WRONLY, 0),
                    (os.POSIX_SPAWN_OPEN, 2, self._log, write, 0o600),
                    (os.POSIX_SPAWN_DUP2, high[0], 3),
                    (os.POSIX_SPAWN_DUP2, high[1], 4),
                ],
            )  # fmt: skip
        except OSError as error:
            shutil.rmtree(self._profile, ignore_errors=True)
            os.close(ours_in)
            os.close(ours_out)
            raise BrowserError(f"{executable} does not start: {error}") from error
        finally:
            for fd in (theirs_in, theirs_out, *high):
                os.close(fd)
        self.tools = DevTools(ours_in, ours_out)
        atexit.register(self.close)

    def last_words(self) -> str:
        """Last lines the browser wrote to its standard error."""
        try:
            text = pathlib.Path(self._log).read_text(errors="replace")
        except OSError:
            return ""
        return " ".join(text.split()[-60:])

    def kill(self) -> None:
        """End the browser at once; safe from another thread and to call twice."""
        if not self._ended:
            try:
                os.killpg(self.pid, signal.SIGKILL)
            except ProcessLookupError:
                return

    def close(self) -> None:
        """End the browser, wait until it is gone, remove its profile."""
        if self._ended:
            return
        atexit.unregister(self.close)
        self.kill()
        self._ended = True
        try:
            os.waitpid(self.pid, 0)
        except ChildProcessError:
            pass  # someone else has waited for it
        self.tools.close()
        for _ in range(50):  # its own children take a moment to be gone
            if not _group_alive(self.pid):
                break
            time.sleep(0.02)
        shutil.rmtree(self._profile, ignore_errors=True)


def _group_alive(group: int) -> bool:
    try:
        os.killpg(group, 0)
    except (ProcessLookupError, PermissionError):
        return False
    return True
