"""The rootless sandbox: a command line for bubblewrap.

Every namespace is new, nothing is mounted on the host, and what is not named here does
not exist inside: no home folders, no /opt, /srv, /mnt, no network but its own loopback.
"""

import os
import pathlib
import shutil

from stepjax.envs.desktop.sandbox.home import VARIABLES, browser_files
from stepjax.envs.desktop.sandbox.limits import tmpfs_megabytes
from stepjax.envs.desktop.sandbox.spec import SandboxError, SandboxSpec

__all__ = ["bubblewrap_arguments", "find_bubblewrap"]

_ETC = (
    "alternatives", "ca-certificates.conf", "chromium", "chromium.d", "dbus-1",
    "dconf", "debian_version", "default", "dictionaries-common", "fonts", "gimp",
    "glvnd", "gtk-2.0", "gtk-3.0", "gtk-4.0", "host.conf", "inputrc", "ld.so.cache",
    "ld.so.conf", "ld.so.conf.d", "libreoffice", "libpaper.d", "locale.alias",
    "localtime", "login.defs", "lsb-release", "magic", "magic.mime", "mailcap",
    "mime.types", "openal", "os-release", "papersize", "profile", "profile.d",
    "protocols", "pulse", "bash.bashrc", "bash_completion.d", "services", "sgml",
    "shells", "skel", "ssl/certs", "terminfo", "timezone", "vim", "vlc", "vulkan",
    "X11", "xdg", "xml",
)  # fmt: skip
_ETC_PATTERNS = ("python3*", "java-*", "ImageMagick-*")
_VAR = ("cache/fontconfig", "lib/aspell", "lib/dictionaries-common", "lib/xfonts")
_VAR_FOLDERS = ("tmp", "log", "cache", "lib", "lib/xkb", "lib/dbus")


def find_bubblewrap() -> str:
    """Path of `bwrap`.

    Raises:
      SandboxError: If it is not installed.
    """
    found = shutil.which("bwrap")
    if found is None:
        raise SandboxError(
            "Desktops need bubblewrap (bwrap) and it is not on PATH; run "
            "`sudo scripts/install-desktop`."
        )
    return found


def bubblewrap_arguments(
    *, stage: pathlib.Path, spec: SandboxSpec, info_fd: int, block_fd: int
) -> list[str]:
    """Arguments that describe the sandbox to `bwrap`.

    They go through `--args`, for the agent can read the command line.

    Args:
      stage: What `home.make_stage` made.
      spec: For the sizes of the file systems in memory.
      info_fd: Gets a JSON object with the host's pid of the first process inside.
      block_fd: The sandbox waits until something can be read here.

    Returns:
      All but the command to run.
    """
    sizes = tmpfs_megabytes(spec)
    arguments = [
        "--unshare-user", "--unshare-all", "--disable-userns", "--hostname", "vm",
        "--uid", "1000", "--gid", "1000",
        "--die-with-parent", "--new-session", "--clearenv",
        "--info-fd", str(info_fd), "--block-fd", str(block_fd),
    ]  # fmt: skip
    for folder in ("/etc", "/etc/ssl", "/opt", "/opt/google", "/opt/google/chrome"):
        arguments += ["--perms", "755", "--dir", folder]
    for name, value in {**VARIABLES, "PYTHONPATH": "/opt/stepjax"}.items():
        arguments += ["--setenv", name, value]
    arguments += _system(stage)
    arguments += ["--dev", "/dev", "--proc", "/proc"]
    for folder, mode in (
        ("/dev/shm", "1777"), ("/tmp", "1777"), ("/run", "755"), ("/var", "755"),
        ("/home/user", "755"),
    ):  # fmt: skip
        arguments += ["--perms", mode, "--size", str(sizes[folder] << 20)]
        arguments += ["--tmpfs", folder]
    arguments += ["--perms", "700", "--dir", "/run/user/1000"]
    for name in _VAR_FOLDERS:
        arguments += ["--perms", "1777" if name == "tmp" else "755"]
        arguments += ["--dir", f"/var/{name}"]
    for name in _VAR:
        arguments += ["--ro-bind-try", f"/var/{name}", f"/var/{name}"]
    # What the sandbox owns but must not fill: these have no size limit.
    arguments += ["--remount-ro", "/dev", "--remount-ro", "/", "--chdir", "/"]
    return arguments


def _system(stage: pathlib.Path) -> list[str]:
    """Read-only parts of the host, and the stage."""
    arguments = ["--ro-bind", "/usr", "/usr"]
    for name in ("bin", "sbin", "lib", "lib32", "lib64", "libx32"):
        path = pathlib.Path("/", name)
        if path.is_symlink():
            arguments += ["--symlink", os.readlink(path), str(path)]
        elif path.is_dir():
            arguments += ["--ro-bind", str(path), str(path)]
    names = list(_ETC)
    for pattern in _ETC_PATTERNS:
        names += [path.name for path in pathlib.Path("/etc").glob(pattern)]
    for name in names:
        arguments += ["--ro-bind-try", f"/etc/{name}", f"/etc/{name}"]
    for path in sorted((stage / "etc").iterdir()):
        arguments += ["--ro-bind", str(path), f"/etc/{path.name}"]
    for name in ("inside", "home"):
        arguments += ["--ro-bind", str(stage / name), f"/opt/stepjax/{name}"]
    links, binds = browser_files()
    for place, source in binds.items():
        arguments += ["--ro-bind", source, place]
    for place, source in links.items():
        arguments += ["--symlink", source, place]
    return arguments
