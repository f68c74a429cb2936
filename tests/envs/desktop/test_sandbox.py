"""Starting and ending sandboxes, and what is said when it does not work."""

import errno
import json
import os
import pathlib
import signal
import struct
import tempfile
import threading
import xml.etree.ElementTree

import pytest

from stepjax.envs.desktop.sandbox import (
    Limits,
    SandboxError,
    SandboxSpec,
    base,
    bubblewrap,
    cgroups,
    home,
    limits,
    start_sandbox,
)
from stepjax.envs.desktop.sandbox.overlay import readable_copy
from stepjax.envs.desktop.sandbox.running import one_line
from stepjax.envs.desktop.sandbox.seccomp import filter_program
from tests.envs.desktop import sandboxes
from tests.envs.desktop.sandboxes import PATIENCE, STAND_IN, dead, out, run, start

GOLDEN = home.BUNDLED_HOME


@pytest.fixture(scope="module")
def possible():
    reason = sandboxes.missing()
    if reason:
        pytest.skip(reason)


@pytest.fixture
def desktop(possible):
    with start() as made:
        yield made


@pytest.mark.parametrize(
    ("kind", "settings", "named"),
    [
        (Limits, {"memory_mb": 1}, "memory_mb must be a whole number >= 64, got 1"),
        (Limits, {"disk_mb": 2.5}, "disk_mb"),
        (Limits, {"processes": True}, "processes"),
        (Limits, {"niceness": 20}, "niceness must be <= 19, got 20"),
        (Limits, {"cpu_cores": 0.0}, "cpu_cores"),
        (Limits, {"cpu_cores": float("nan")}, "cpu_cores"),
        (SandboxSpec, {"width": 0}, "width"),
        (SandboxSpec, {"height": "800"}, "height"),
        (SandboxSpec, {"limits": {"memory_mb": 100}}, "limits must be a Limits"),
    ],
)
def test_bad_settings_are_named(kind, settings, named):
    with pytest.raises(ValueError, match=named):
        kind(**settings)


def test_arguments_show_nothing_of_the_host(tmp_path):
    home.make_stage(tmp_path / "stage", STAND_IN, None)
    words = bubblewrap.bubblewrap_arguments(
        stage=tmp_path / "stage", spec=SandboxSpec(), info_fd=3, block_fd=4
    )
    for name in ("--unshare-all", "--disable-userns", "--die-with-parent"):
        assert name in words
    bound = [words[at + 1] for at, word in enumerate(words) if "bind" in word]
    writable = [word for word in words if word in ("--bind", "--dev-bind")]
    assert not writable
    roots = {pathlib.Path(path).parts[1] for path in bound}
    assert roots <= {"usr", "etc", "var", "bin", "sbin", "lib", "lib32", "lib64",
                     "libx32", tmp_path.parts[1]}  # fmt: skip
    hidden = {"/etc", "/var", "/etc/shadow", "/etc/ssh", "/etc/ssl", "/etc/sudoers"}
    assert not hidden & set(bound)


@pytest.mark.parametrize("machine", ["x86_64", "aarch64"])
def test_filter_ends_in_an_answer_on_every_way(machine):
    code = list(struct.iter_unpack("HBBI", filter_program(machine)))
    assert 50 < len(code) < 4096
    for at, (kind, yes, no, _) in enumerate(code):
        jumps = kind in (0x15, 0x35, 0x45)
        assert at + 1 + (max(yes, no) if jumps else 0) < len(code) or kind == 0x06
    assert code[-1] == (0x06, 0, 0, 0x7FFF0000)


def test_unknown_machines_are_named():
    with pytest.raises(SandboxError, match="x86_64 and aarch64, and this is a riscv64"):
        filter_program("riscv64")


def test_room_follows_the_screen():
    small = limits.tmpfs_megabytes(SandboxSpec())["/run"]
    large = limits.tmpfs_megabytes(SandboxSpec(width=7680, height=4320))["/run"]
    assert large >= small + 100


def test_the_end_of_what_a_desktop_says_is_one_line():
    assert one_line("a\n\x1b[31m b\tc\x00") == "a [31m b c"
    assert one_line("x" * 1000).startswith("...x") and len(one_line("x" * 1000)) < 400


def test_golden_home_is_well_formed(tmp_path):
    for path in GOLDEN.rglob("*"):
        assert not path.name.startswith("."), f"{path}: write dot_ for the dot"
        assert not path.is_symlink(), f"{path}: wheels hold no links"
        if path.suffix in (".xml", ".xcu"):
            xml.etree.ElementTree.parse(path)
        if path.name == "Preferences":
            json.loads(path.read_text())
    home.make_stage(tmp_path / "stage", STAND_IN, None)
    made = tmp_path / "stage" / "home"
    assert (made / ".config/openbox/rc.xml").is_file()
    assert os.access(made / ".local/bin/google-chrome", os.X_OK)
    assert os.readlink(made / ".local/bin/python") == "/usr/bin/python3"
    assert (made / "Desktop").is_dir()
    assert not (made / "README.md").exists()


def test_golden_home_of_the_user_goes_over_ours(tmp_path):
    (tmp_path / "mine/.config/openbox").mkdir(parents=True)
    (tmp_path / "mine/.config/openbox/rc.xml").write_text("mine")
    home.make_stage(tmp_path / "stage", STAND_IN, tmp_path / "mine")
    made = tmp_path / "stage/home/.config"
    assert (made / "openbox/rc.xml").read_text() == "mine"
    assert (made / "vlc/vlcrc").is_file()


@pytest.mark.parametrize("wrong", ["inside", "golden_home"])
def test_missing_folders_are_named(tmp_path, wrong):
    given = {"inside": STAND_IN, "golden_home": None, wrong: tmp_path / "nothing"}
    with pytest.raises(SandboxError, match=f"{wrong}=.*nothing"):
        home.make_stage(tmp_path / "stage", given["inside"], given["golden_home"])
    assert not (tmp_path / "stage").exists()


def test_copy_of_etc_leaves_secrets_out(tmp_path):
    etc, own = tmp_path / "etc", tmp_path / "own"
    (etc / "open").mkdir(parents=True)
    (etc / "closed").mkdir(mode=0o700)
    own.mkdir()
    for name, mode in (("open/a", 0o644), ("open/key", 0o600), ("closed/b", 0o644),
                       ("shadow", 0o640), ("passwd", 0o644)):  # fmt: skip
        (etc / name).write_text("host's")
        (etc / name).chmod(mode)
    (etc / "link").symlink_to("open/a")
    (own / "passwd").write_text("own")
    readable_copy(etc, tmp_path / "made", own)
    made = tmp_path / "made"
    assert (made / "open/a").read_text() == "host's"
    assert (made / "passwd").read_text() == "own"
    assert (made / "link").is_symlink()
    assert "host's" not in (made / "shadow").read_text()
    assert not (made / "open/key").exists() and not (made / "closed").exists()


@pytest.mark.parametrize("version", [1, 2])
def test_control_groups(tmp_path, monkeypatch, version):
    monkeypatch.setattr(cgroups.os, "geteuid", lambda: 0)
    monkeypatch.setattr(cgroups, "_own_group", lambda mounted, name: mounted)
    if version == 2:
        (tmp_path / "cgroup.controllers").write_text("memory pids cpu")
        (tmp_path / "cgroup.subtree_control").write_text("memory pids cpu")
    else:
        for name in ("memory", "pids", "cpu"):
            (tmp_path / name).mkdir()
    group = cgroups.make_group("t", Limits(cpu_cores=0.5), 100, root=tmp_path)
    assert group is not None
    written = {
        path.name: path.read_text()
        for folder in group.folders
        for path in folder.iterdir()
    }
    memory = str((2048 + 100) << 20)
    if version == 2:
        assert written == {
            "memory.max": memory, "pids.max": "1024", "cpu.max": "50000 100000"
        }  # fmt: skip
    else:
        assert written == {
            "memory.limit_in_bytes": memory, "pids.max": "1024",
            "cpu.cfs_period_us": "100000", "cpu.cfs_quota_us": "50000",
        }  # fmt: skip
    assert not group.killed_for_memory()
    (group.folders[0] / "memory.events").write_text("low 0\noom 1\noom_kill 1\n")
    assert group.killed_for_memory()


def test_a_group_beside_the_trainers_own(tmp_path, monkeypatch):
    own = tmp_path / "slice" / "trainer"
    own.mkdir(parents=True)
    for folder in (tmp_path, own.parent):
        (folder / "cgroup.subtree_control").write_text("memory pids cpu")
    (tmp_path / "cgroup.controllers").write_text("memory pids cpu")
    # Writing to a folder fails, as enabling controllers does where processes are.
    (own / "cgroup.subtree_control").mkdir()
    monkeypatch.setattr(cgroups.os, "geteuid", lambda: 0)
    monkeypatch.setattr(cgroups, "_own_group", lambda mounted, name: own)
    group = cgroups.make_group("t", Limits(), 100, root=tmp_path)
    assert group is not None
    assert group.folders == [own.parent / "stepjax-t"]


def test_ordinary_users_get_no_control_groups(monkeypatch, tmp_path):
    monkeypatch.setattr(cgroups.os, "geteuid", lambda: 1000)
    assert cgroups.make_group("t", Limits(), 0, root=tmp_path) is None


def test_groups_of_others_are_never_removed(tmp_path):
    (tmp_path / "other").mkdir()
    (tmp_path / "stepjax-1").mkdir()
    cgroups.remove_groups([
        str(tmp_path / "other"), str(tmp_path / "stepjax-1/../other"),
        str(tmp_path / "stepjax-1"), str(tmp_path / "stepjax-none"),
    ])  # fmt: skip
    assert [path.name for path in tmp_path.iterdir()] == ["other"]


def test_root_variant_needs_root(monkeypatch):
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    with pytest.raises(SandboxError, match="needs a trainer that runs as root"):
        start_sandbox(SandboxSpec(needs_root=True))


def test_full_temporary_folder_is_said(monkeypatch):
    def full(**settings):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(base, "_current", None)
    monkeypatch.setattr(tempfile, "mkdtemp", full)
    with pytest.raises(SandboxError, match="No space left on device.*TMPDIR"):
        start_sandbox(SandboxSpec(), inside=STAND_IN)


@pytest.mark.desktop
def test_usable_and_alive(desktop):
    assert desktop.alive() and desktop.why_dead() == ""
    assert out(desktop, "id", "-un") == "user\n"
    assert out(desktop, "id", "-u") == "1000\n"
    assert out(desktop, "hostname") == "vm\n"
    assert out(desktop, "pwd") == "/home/user\n"
    assert 1 < desktop.memory_mb() < 500
    assert desktop.socket.stat().st_uid == os.geteuid()
    assert desktop.folder.stat().st_mode & 0o777 == 0o700


@pytest.mark.desktop
def test_home_is_the_golden_one(desktop):
    assert "openbox_config" in out(desktop, "cat", "/home/user/.config/openbox/rc.xml")
    assert out(desktop, "python", "-c", "print(6 * 7)") == "42\n"
    assert "PYTHONPATH" not in out(desktop, "env")
    assert out(desktop, "gsettings", "get", "org.gnome.desktop.interface",
               "toolkit-accessibility") == "true\n"  # fmt: skip


@pytest.mark.desktop
def test_limits_are_in_force(possible):
    with start(disk_mb=64, processes=100, open_files=300) as made:
        table = out(made, "cat", "/proc/self/limits")
        rows = {line[:26].strip(): line[26:].split()[:2] for line in table.splitlines()}
        assert rows["Max processes"] == ["100", "100"]
        assert rows["Max open files"] == ["300", "300"]
        assert rows["Max core file size"] == ["0", "0"]
        sizes = out(made, "df", "--output=size", "-m", "/home/user", "/tmp").split()
        assert sizes[1:] == ["32", "32"]
        assert run(made, "cat", "/proc/self/oom_score_adj")["out"] == "500\n"


@pytest.mark.desktop
def test_wrong_token_is_refused(desktop):
    said = sandboxes.send(desktop, {"token": "0" * 32, "run": ["id"], "timeout": 1})
    assert said["code"] == 401


@pytest.mark.desktop
def test_close_twice_and_what_is_said_then(possible):
    made = start()
    made.close()
    made.close()
    assert not made.alive() and made.why_dead() == "it was closed"
    assert made.memory_mb() == 0 and not made.folder.exists()


@pytest.mark.desktop
def test_last_words_of_a_program_that_ends(desktop):
    sandboxes.send(desktop, {"exit": 3, "say": "the X server\nhas died"})
    why = dead(desktop)
    assert why == "its program ended with status 3: the X server has died"


@pytest.mark.desktop
def test_killed_from_outside(desktop):
    os.kill(desktop.pid, signal.SIGKILL)
    assert "signal 9" in dead(desktop)
    assert sandboxes.wait_for(lambda: not sandboxes.descendants(desktop.pid))


@pytest.mark.desktop
def test_outlives_the_thread_that_started_it(possible):
    made = []
    thread = threading.Thread(target=lambda: made.append(start()))
    thread.start()
    thread.join()
    with made[0] as desktop:
        assert out(desktop, "sleep", "1") == ""
        assert desktop.alive()


@pytest.mark.desktop
def test_several_at_once(possible):
    made, threads = [], []
    for _ in range(3):
        threads.append(threading.Thread(target=lambda: made.append(start())))
        threads[-1].start()
    for thread in threads:
        thread.join()
    try:
        assert len({out(one, "readlink", "/proc/self/ns/pid") for one in made}) == 3
        made[0].close()
        assert [one.alive() for one in made] == [False, True, True]
    finally:
        for one in made:
            one.close()


FAULTY = {
    "says no": (
        "import os, sys; fd = int(sys.argv[sys.argv.index('--ready-fd') + 1]);"
        'os.write(fd, b\'{"ready": false, "why": "no\\\\nscreen"}\\n\')',
        "did not start: no screen",
    ),
    "ends": ("import sys; sys.exit('no bus')", "status 1: no bus"),
    "cannot be compiled": ("this is no program", "SyntaxError"),
    "says nonsense": (
        "import os, sys; fd = int(sys.argv[sys.argv.index('--ready-fd') + 1]);"
        "os.write(fd, b'yes' * 10000)",
        "did not start",
    ),
    "hangs": ("import time; time.sleep(600)", "not usable after 8 s"),
}


@pytest.mark.desktop
@pytest.mark.parametrize("fault", FAULTY)
def test_what_does_not_start_is_said_and_gone(possible, tmp_path, fault):
    code, named = FAULTY[fault]
    with start():
        pass  # what all desktops share is there now
    (tmp_path / "main.py").write_text(code + "\n")
    before = sandboxes.traces()
    with pytest.raises(SandboxError, match=named) as caught:
        start(inside=tmp_path, timeout=8.0 if fault == "hangs" else PATIENCE)
    assert "\n" not in str(caught.value)
    assert sandboxes.traces() == before


@pytest.mark.desktop
def test_without_bubblewrap(possible, monkeypatch):
    monkeypatch.setattr(bubblewrap.shutil, "which", lambda name: None)
    before = sandboxes.traces()
    with pytest.raises(SandboxError, match=r"bubblewrap.*scripts/install-desktop"):
        start()
    assert sandboxes.traces() == before


@pytest.mark.desktop
def test_without_namespaces(possible, monkeypatch, tmp_path):
    broken = tmp_path / "bwrap"
    broken.write_text(
        "#!/bin/sh\necho bwrap: No permissions to create a new namespace >&2\nexit 1\n"
    )
    broken.chmod(0o755)
    for folder in (tmp_path, *tmp_path.parents):
        ours = folder.stat().st_uid == os.getuid()
        if ours and folder.is_relative_to(tempfile.gettempdir()):
            folder.chmod(folder.stat().st_mode | 0o055)
    monkeypatch.setattr(bubblewrap, "find_bubblewrap", lambda: str(broken))
    with pytest.raises(SandboxError, match="No permissions.*doctor.*explains"):
        start()


@pytest.mark.desktop
def test_long_temporary_folder_is_said(possible, monkeypatch, tmp_path):
    long = tmp_path / ("x" * 100)
    long.mkdir()
    here = base.current_base()
    monkeypatch.setattr(here, "new_folder", lambda: long)
    with pytest.raises(SandboxError, match="too long.*TMPDIR"):
        start()
