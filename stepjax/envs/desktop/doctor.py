"""Why a desktop cannot start on this machine, in plain words, and what to do."""

import dataclasses
import os
import pathlib
import shutil
import subprocess
import sys
import tempfile
import time

__all__ = ["Finding", "examine", "explain", "main"]

_INSTALL = "sudo scripts/install-desktop"
# Program, Debian package, what it is for.
_NEEDED = (
    ("bwrap", "bubblewrap", "the sandbox"),
    ("Xvfb", "xvfb", "the screen"),
    ("openbox", "openbox", "the window manager"),
    ("dbus-daemon", "dbus", "the session bus"),
    ("prlimit", "util-linux", "limits"),
    ("choom", "util-linux", "limits"),
    ("setpriv", "util-linux", "giving up root"),
    ("/usr/libexec/at-spi-bus-launcher", "at-spi2-core", "reading widgets"),
    ("/usr/bin/python3", "python3", "the program inside"),
)
_MODULES = (("gi", "python3-gi"), ("Xlib", "python3-xlib"), ("PIL", "python3-pil"))
_APPLICATIONS = (
    ("xterm", "xterm"),
    ("mousepad", "mousepad"),
    ("/usr/lib/libreoffice/program/scalc", "libreoffice-calc"),
    ("/usr/lib/libreoffice/program/swriter", "libreoffice-writer"),
    ("/usr/lib/libreoffice/program/simpress", "libreoffice-impress"),
    ("pcmanfm", "pcmanfm"),
    ("gnome-terminal", "gnome-terminal"),
    ("chromium", "chromium"),
    ("gimp", "gimp"),
    ("vlc", "vlc"),
    ("xfce4-settings-manager", "xfce4-settings"),
    ("ffmpeg", "ffmpeg"),
    ("x11vnc", "x11vnc"),
)
# Switches that forbid ordinary users a namespace: file, value that does, remedy.
_SWITCHES = (
    ("kernel/unprivileged_userns_clone", "0",
     "sudo sysctl -w kernel.unprivileged_userns_clone=1"),
    ("user/max_user_namespaces", "0", "sudo sysctl -w user.max_user_namespaces=15000"),
    ("kernel/apparmor_restrict_unprivileged_userns", "1",
     "give bwrap an AppArmor profile with `userns,`, or: sudo sysctl -w "
     "kernel.apparmor_restrict_unprivileged_userns=0"),
)  # fmt: skip
_ROOM_MB, _MEMORY_MB, _INOTIFY = 200, 1024, 512


@dataclasses.dataclass(frozen=True, kw_only=True)
class Finding:
    """One thing that was looked at.

    Attributes:
      name: What was looked at.
      ok: It is as it should be.
      needed: No desktop starts without it; otherwise something is left out.
      detail: What was found.
      remedy: What to do about it, "" if nothing has to be done.
    """

    name: str
    ok: bool
    detail: str
    needed: bool = True
    remedy: str = ""


def examine(*, start: bool = True) -> tuple[Finding, ...]:
    """What was found on this machine, the most basic first.

    Args:
      start: Also start a desktop, if nothing that it needs is missing.
    """
    found = [_programs(), _modules(), _namespaces(), _temporary_folder(), _memory()]
    found += [_watches(), _control_groups(), _root_variant(), _applications()]
    if start and all(one.ok for one in found if one.needed):
        found.append(_trial())
    return tuple(found)


def explain(findings: tuple[Finding, ...]) -> str:
    """Text about findings, and a last line that says whether desktops can start."""
    lines = []
    for one in findings:
        mark = "ok" if one.ok else "MISSING" if one.needed else "without"
        lines.append(f"{mark:8}{one.name}: {one.detail}")
        if one.remedy and not one.ok:
            lines.append(f"{'':8}  -> {one.remedy}")
    wrong = [one.name for one in findings if one.needed and not one.ok]
    if wrong:
        lines.append(f"Desktops cannot start here: see {', '.join(wrong)}.")
    else:
        lines.append("Desktops can start here.")
    return "\n".join(lines)


def main() -> int:
    """Print what was found; 0 if desktops can start, else 1."""
    findings = examine()
    print(explain(findings))
    return int(any(one.needed and not one.ok for one in findings))


def _programs() -> Finding:
    lacking = [entry for entry in _NEEDED if shutil.which(entry[0]) is None]
    packages = sorted({package for _, package, _ in lacking})
    return Finding(
        name="programs",
        ok=not lacking,
        detail=", ".join(f"no {name} ({use})" for name, _, use in lacking)
        or f"all {len(_NEEDED)} found",
        remedy=f"{_INSTALL} (Debian packages: {' '.join(packages)})",
    )


def _modules() -> Finding:
    names = [name for name, _ in _MODULES]
    code = (
        "import importlib.util, sys; print(*(name for name in sys.argv[1:] "
        "if importlib.util.find_spec(name) is None))"
    )
    status, said = _ask(["/usr/bin/python3", "-I", "-c", code, *names])
    lacking = [pair for pair in _MODULES if status != 0 or pair[0] in said.split()]
    return Finding(
        name="python modules",
        ok=not lacking,
        detail="/usr/bin/python3 "
        + (f"lacks {', '.join(n for n, _ in lacking)}" if lacking else "has them all"),
        remedy=f"{_INSTALL} (Debian packages: {' '.join(p for _, p in lacking)})",
    )


def _namespaces() -> Finding:
    command = ["bwrap", "--unshare-user", "--unshare-all", "--disable-userns"]
    command += ["--uid", "1000", "--gid", "1000", "--ro-bind", "/", "/"]
    command += ["--dev", "/dev", "--proc", "/proc"]
    command += ["--size", "1000000", "--tmpfs", "/tmp", "--", "/usr/bin/true"]
    if os.geteuid() == 0:  # desktops of a root trainer are no root's
        command = ["setpriv", "--reuid", "61184", "--regid", "61184",
                   "--clear-groups", *command]  # fmt: skip
    status, said = _ask(command)
    if status == 0:
        return Finding(name="namespaces", ok=True, detail="a sandbox can be made")
    if "nknown option" in said:
        return Finding(
            name="namespaces", ok=False, detail=f"bubblewrap is too old: {said}",
            remedy="install bubblewrap 0.8 or newer",
        )  # fmt: skip
    return Finding(
        name="namespaces",
        ok=False,
        detail=f"no sandbox can be made: {said}",
        remedy=_namespace_remedy(),
    )


def _namespace_remedy(root: pathlib.Path = pathlib.Path("/")) -> str:
    for name, forbids, remedy in _SWITCHES:
        path = root / "proc" / "sys" / name
        if path.exists() and path.read_text().strip() == forbids:
            return remedy
    if any((root / name).exists() for name in (".dockerenv", "run/.containerenv")):
        return (
            "this is a container: start it with --security-opt seccomp=unconfined "
            "--security-opt apparmor=unconfined --security-opt systempaths=unconfined"
        )
    return "ask whoever runs this machine to allow unprivileged user namespaces"


def _temporary_folder() -> Finding:
    folder = tempfile.gettempdir()
    about = os.statvfs(folder)
    free = about.f_bavail * about.f_frsize >> 20
    return Finding(
        name="temporary folder",
        ok=free >= _ROOM_MB and len(folder) < 60,
        detail=f"{folder} has {free} MB free",
        remedy=f"{_ROOM_MB} MB are wanted, and a name under 60 characters: set TMPDIR",
    )


def _memory() -> Finding:
    with open("/proc/meminfo", encoding="utf-8") as file:
        lines = [line.split() for line in file]
    free = next(int(line[1]) >> 10 for line in lines if line[0] == "MemAvailable:")
    return Finding(
        name="memory",
        ok=free >= _MEMORY_MB,
        needed=False,
        detail=f"{free} MB available; a desktop takes 100 to 600 MB",
        remedy=f"free some: less than {_MEMORY_MB} MB is little",
    )


def _watches() -> Finding:
    """Each desktop takes a dozen of the file watches that the kernel allows a user."""
    path = pathlib.Path("/proc/sys/fs/inotify/max_user_instances")
    allowed = int(path.read_text())
    return Finding(
        name="file watches",
        ok=allowed >= _INOTIFY,
        needed=False,
        detail=f"{allowed} per user, about 12 per desktop",
        remedy=f"for many desktops: sudo sysctl -w "
        f"fs.inotify.max_user_instances={_INOTIFY}",
    )


def _control_groups() -> Finding:
    from stepjax.envs.desktop.sandbox import cgroups
    from stepjax.envs.desktop.sandbox.spec import Limits

    group = cgroups.make_group(f"doctor-{os.getpid()}", Limits(), 0)
    if group is not None:
        group.remove()
    return Finding(
        name="control groups",
        ok=group is not None,
        needed=False,
        detail="the kernel enforces memory, processes and CPU"
        if group
        else "not for this user; a watch in the trainer enforces memory and processes",
    )


def _root_variant() -> Finding:
    root = os.geteuid() == 0
    overlay = "overlay" in pathlib.Path("/proc/filesystems").read_text().split()
    sudo = shutil.which("sudo") is not None
    lacking = [] if root else ["the trainer must run as root"]
    lacking += [] if overlay else ["the kernel's overlay file system is not loaded"]
    lacking += [] if sudo else ["sudo is not installed"]
    return Finding(
        name="tasks that need root",
        ok=not lacking,
        needed=False,
        detail="; ".join(lacking) or "can run",
        remedy="only tasks that use sudo or system files need it; the others run",
    )


def _applications() -> Finding:
    lacking = [pair[1] for pair in _APPLICATIONS if shutil.which(pair[0]) is None]
    return Finding(
        name="applications",
        ok=not lacking,
        needed=False,
        detail=f"no {', '.join(lacking)}" if lacking else "all found",
        remedy=f"{_INSTALL}; tasks that use them are left out otherwise",
    )


def _trial() -> Finding:
    from stepjax.envs.desktop.sandbox import SandboxError, SandboxSpec, start_sandbox

    began = time.monotonic()
    try:
        with start_sandbox(SandboxSpec(), timeout=60.0) as desktop:
            seconds, megabytes = time.monotonic() - began, desktop.memory_mb()
    except SandboxError as error:
        return Finding(name="a desktop", ok=False, detail=str(error))
    return Finding(
        name="a desktop",
        ok=True,
        detail=f"usable after {seconds:.1f} s, takes {megabytes:.0f} MB",
    )


def _ask(command: list[str]) -> tuple[int, str]:
    """Exit status and last line of what a short program says."""
    try:
        done = subprocess.run(
            command, stdin=subprocess.DEVNULL, capture_output=True, text=True,
            errors="replace", timeout=30, check=False,
        )  # fmt: skip
    except (OSError, subprocess.TimeoutExpired) as error:
        return 127, " ".join(str(error).split())
    lines = (done.stdout + done.stderr).strip().splitlines()
    return done.returncode, lines[-1].strip() if lines else ""


if __name__ == "__main__":
    sys.exit(main())
