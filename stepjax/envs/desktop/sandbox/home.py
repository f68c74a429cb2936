"""What every desktop sees read-only: the program inside, the golden home, /etc files.

A copy is made once per process, so that an update of the package during a run changes
nothing in it, and so that a root trainer's unprivileged desktops can read it wherever
the package is installed.
"""

import os
import pathlib
import shutil
import subprocess

from stepjax.envs.desktop.sandbox.spec import SandboxError

__all__ = [
    "BUNDLED_HOME",
    "BUNDLED_INSIDE",
    "VARIABLES",
    "browser_files",
    "make_stage",
]

_DESKTOP = pathlib.Path(__file__).resolve().parent.parent
BUNDLED_HOME = _DESKTOP / "golden_home"
"""Preferences copied into every home; `dot_` at the start of a name stands for `.`."""
BUNDLED_INSIDE = _DESKTOP / "inside"
"""The program that runs in the desktop."""

_PATH = "/usr/local/bin:/usr/bin:/bin:/usr/games:/usr/sbin:/sbin"
VARIABLES = {
    "HOME": "/home/user",
    "USER": "user",
    "LOGNAME": "user",
    "SHELL": "/bin/bash",
    "PATH": f"/home/user/.local/bin:{_PATH}",
    "LANG": "C.UTF-8",
    "TZ": "UTC",
    "DISPLAY": ":0",
    "XAUTHORITY": "/home/user/.Xauthority",
    "XDG_RUNTIME_DIR": "/run/user/1000",
    "XDG_SESSION_TYPE": "x11",
    "XDG_CURRENT_DESKTOP": "GNOME",
    # Where tasks written for OSWorld's machines expect it.
    "DBUS_SESSION_BUS_ADDRESS": "unix:path=/run/user/1000/bus",
    # Settings in a text file of the home folder: no daemon, and a golden home can
    # bring them. `gsettings` reads and writes them as usual.
    "GSETTINGS_BACKEND": "keyfile",
    # Without these, applications show nothing to accessibility.
    "GTK_MODULES": "gail:atk-bridge",
    "QT_ACCESSIBILITY": "1",
    "QT_LINUX_ACCESSIBILITY_ALWAYS_ON": "1",
    "SAL_USE_VCLPLUGIN": "gtk3",
    # No daemons for mounts, portals and sound that could not work in here anyway.
    "GIO_USE_VFS": "local",
    "GTK_USE_PORTAL": "0",
    "GDK_BACKEND": "x11",
    "LIBGL_ALWAYS_SOFTWARE": "1",
}
"""Environment of everything in a desktop."""

# Names and numbers of the sandbox's own; nothing of the host's shows.
_ETC = {
    "passwd": "root:x:0:0:root:/root:/bin/bash\n"
    "user:x:1000:1000:User:/home/user:/bin/bash\n"
    "nobody:x:65534:65534:nobody:/nonexistent:/usr/sbin/nologin\n",
    "group": "root:x:0:\nsudo:x:27:user\nuser:x:1000:\nnogroup:x:65534:\n",
    "hosts": "127.0.0.1 localhost vm\n::1 localhost\n",
    "hostname": "vm\n",
    "resolv.conf": "",
    "nsswitch.conf": "passwd: files\ngroup: files\nshadow: files\nhosts: files\n",
    "machine-id": "0123456789abcdef0123456789abcdef\n",
}


_FOLDERS = ("Desktop", "Documents", "Downloads", "Music", "Pictures", "Videos")
# Debian's launcher reads the files of /etc/chromium.d. A browser's own sandbox cannot
# be made inside this one; the second flag hides the bar that says so.
_CHROMIUM = """\
export CHROMIUM_FLAGS="$CHROMIUM_FLAGS --no-sandbox --test-type --no-first-run \
--disable-background-networking --disable-component-update --disable-sync \
--disable-dev-shm-usage --disable-gpu --password-store=basic \
--force-renderer-accessibility --force-color-profile=srgb"
"""


def make_stage(
    stage: pathlib.Path, inside: pathlib.Path, golden_home: pathlib.Path | None
) -> None:
    """Fill a folder with `inside/`, `home/` and `etc/` for desktops to see.

    Args:
      stage: A folder that does not exist yet.
      inside: Folder of the program, with `main.py`.
      golden_home: A home folder laid over the bundled one, or None.

    Raises:
      SandboxError: If a folder is not there or the copy fails.
    """
    if not (inside / "main.py").is_file():
        raise SandboxError(f"inside={inside} must be a folder with a main.py.")
    if golden_home is not None and not golden_home.is_dir():
        raise SandboxError(f"golden_home={golden_home} is no folder.")
    try:
        (stage / "etc").mkdir(parents=True)
        shutil.copytree(
            inside, stage / "inside", ignore=shutil.ignore_patterns("__pycache__")
        )
        _copy_renamed(BUNDLED_HOME, stage / "home")
        if golden_home is not None:
            shutil.copytree(
                golden_home, stage / "home", symlinks=True, dirs_exist_ok=True
            )
        _add_commands(stage / "home" / ".local" / "bin")
        for name in _FOLDERS:
            (stage / "home" / name).mkdir(exist_ok=True)
        for name, text in _ETC.items():
            (stage / "etc" / name).write_text(text, encoding="utf-8")
        _add_chromium_flags(stage / "etc" / "chromium.d")
        _make_readable(stage)
    except (OSError, shutil.Error) as error:
        shutil.rmtree(stage, ignore_errors=True)
        raise SandboxError(
            f"Could not copy {inside} and the golden home to {stage}: {error}"
        ) from error
    _compile(stage / "inside")


def browser_files() -> tuple[dict[str, str], dict[str, str]]:
    """Where Chromium is to be seen under Google Chrome's name.

    Tasks end the browser by `pkill chrome`. A link would not do: the program takes its
    name, and the folder of its other files, from where it really is.

    Returns:
      Links to make and files to bind, from place in the desktop to place on the host.
    """
    theirs, ours = pathlib.Path("/usr/lib/chromium"), "/opt/google/chrome"
    if not (theirs / "chromium").is_file():
        return {}, {}
    links = {f"{ours}/{path.name}": str(path) for path in sorted(theirs.iterdir())}
    return links, {f"{ours}/chrome": links.pop(f"{ours}/chromium")}


def _copy_renamed(source: pathlib.Path, target: pathlib.Path) -> None:
    target.mkdir(parents=True, exist_ok=True)
    for entry in sorted(source.iterdir()):
        if entry.name in ("__pycache__", "README.md"):
            continue
        name = entry.name
        if name.startswith("dot_"):
            name = "." + name.removeprefix("dot_")
        if entry.is_dir():
            _copy_renamed(entry, target / name)
        else:
            shutil.copyfile(entry, target / name)


def _add_commands(folder: pathlib.Path) -> None:
    """Commands that tasks expect and Debian does not have, first on PATH."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, target in (
        ("python", "/usr/bin/python3"),
        ("google-chrome-stable", "google-chrome"),
    ):
        if not (folder / name).is_symlink():
            (folder / name).symlink_to(target)


def _add_chromium_flags(folder: pathlib.Path) -> None:
    theirs = pathlib.Path("/etc/chromium.d")
    if theirs.is_dir():
        shutil.copytree(theirs, folder)
        (folder / "zz-stepjax").write_text(_CHROMIUM, encoding="utf-8")


def _make_readable(stage: pathlib.Path) -> None:
    """Readable by all who get past the folder above; commands can be run."""
    stage.chmod(0o755)
    for path in stage.rglob("*"):
        if path.is_symlink():
            continue
        runs = path.is_dir() or path.parent.name == "bin" or path.stat().st_mode & 0o100
        path.chmod(0o755 if runs else 0o644)


def _compile(inside: pathlib.Path) -> None:
    """Byte code for the interpreter inside, which cannot write any itself.

    Only saves time: a program that does not compile says so when it is started.
    """
    subprocess.run(
        ["/usr/bin/python3", "-I", "-m", "compileall", "-q",
         "--invalidation-mode", "unchecked-hash", str(inside)],
        stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        env={"LANG": "C.UTF-8", "PATH": os.defpath}, timeout=60, check=False,
    )  # fmt: skip
