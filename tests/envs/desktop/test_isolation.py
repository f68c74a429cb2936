"""What a program inside can and cannot do to the machine; asked from inside."""

import os
import pathlib
import secrets
import socket
import subprocess
import sys
import tempfile

import pytest

from tests.envs.desktop import sandboxes
from tests.envs.desktop.sandboxes import dead, out, python, run, start

pytestmark = pytest.mark.desktop
VARIANTS = ["rootless", "root"]


@pytest.fixture(scope="module")
def possible():
    reason = sandboxes.missing()
    if reason:
        pytest.skip(reason)


def _skip_without_root(variant):
    if variant == "root" and os.geteuid() != 0:
        pytest.skip("the root variant needs root")


@pytest.fixture(scope="module", params=VARIANTS)
def shared(request, possible):
    """One sandbox of each variant for tests that do not end it."""
    _skip_without_root(request.param)
    with start(root=request.param == "root") as made:
        made.variant = request.param
        yield made


@pytest.fixture(params=VARIANTS)
def variant(request, possible):
    _skip_without_root(request.param)
    return request.param == "root"


def sudo(sandbox, *command):
    """A command as root inside, where there is one; else as the user."""
    if sandbox.variant == "rootless":
        return run(sandbox, *command)
    code = (
        "import subprocess, sys; done = subprocess.run(['sudo', '-S', '-p', '', '--',"
        " *sys.argv[1:]], input='password\\n', text=True); sys.exit(done.returncode)"
    )
    return python(sandbox, code, *command)


@pytest.fixture(params=["home", "temporary folder", "checkout", "environment"])
def canary(request, monkeypatch):
    """A secret of the host, and the file it is in."""
    secret = secrets.token_hex(16)
    if request.param == "environment":
        monkeypatch.setenv("STEPJAX_CANARY", secret)
        yield secret, None
        return
    folder = {
        "home": pathlib.Path.home(),
        "temporary folder": pathlib.Path(tempfile.gettempdir()),
        "checkout": sandboxes.ROOT,
    }[request.param]
    if not os.access(folder, os.W_OK):
        pytest.skip(f"{folder} cannot be written to")
    path = folder / f"canary-{os.getpid()}"
    path.write_text(secret)
    path.chmod(0o644)
    yield secret, path
    path.unlink()


def test_secrets_of_the_host_cannot_be_read(shared, canary):
    secret, path = canary
    if path is None:
        with start(root=shared.variant == "root") as made:
            made.variant = shared.variant
            texts = run(made, "sh", "-c", "cat /proc/*/environ")["out"]
            texts += sudo(made, "sh", "-c", "cat /proc/*/environ")["out"]
        assert "HOME=/home/user" in texts and secret not in texts
        return
    assert sudo(shared, "cat", str(path))["code"] != 0
    assert sudo(shared, "cat", f"/proc/1/root{path}")["code"] != 0
    found = sudo(shared, "find", "/", "-xdev", "-name", path.name)["out"]
    found += sudo(shared, "find", "/home", "/root", "/tmp", "/mnt", "/opt", "-name",
                  path.name)["out"]  # fmt: skip
    assert path.name not in found


def test_password_hashes_of_the_host_are_not_there(shared):
    done = sudo(shared, "cat", "/etc/shadow", "/etc/gshadow")
    if shared.variant == "rootless":
        assert done["code"] != 0
        return
    lines = [line.split(":") for line in done["out"].splitlines()]
    assert {line[0] for line in lines} <= {"root", "user", "sudo"}
    assert sudo(shared, "sh", "-c", "ls /etc/ssh/*key* /etc/ssl/private")["code"] != 0


def test_host_processes_are_invisible_and_out_of_reach(shared):
    with subprocess.Popen(
        [sys.executable, "-c", "import time; time.sleep(900)"]
    ) as one:
        try:
            listed = out(shared, "ps", "-eo", "pid=,args=")
            assert str(one.pid) not in [line.split()[0] for line in listed.splitlines()]
            assert "time.sleep(900)" not in listed
            assert len(listed.splitlines()) < 20
            sudo(shared, "kill", "-9", str(one.pid))
            assert one.poll() is None
        finally:
            one.kill()


def test_kill_of_everything_ends_only_the_desktop(variant):
    with start(root=variant) as made, start(root=variant) as other:
        made.variant = "root" if variant else "rootless"
        python(made, "import os; os.kill(-1, 9)")
        assert dead(made)
        assert other.alive()


REACH = """
import socket, sys
family, kind = getattr(socket, sys.argv[1]), socket.SOCK_STREAM
place = sys.argv[2] if family == socket.AF_UNIX else (sys.argv[2], int(sys.argv[3]))
if family == socket.AF_UNIX:
    place = place.replace("@", chr(0), 1)
with socket.socket(family, kind) as one:
    one.settimeout(5)
    try:
        one.connect(place)
    except OSError as error:
        sys.exit(str(error))
"""


@pytest.mark.parametrize(
    "place",
    [("AF_INET", "1.1.1.1", "53"), ("AF_INET", "10.0.0.1", "80"),
     ("AF_INET6", "2606:4700:4700::1111", "53"), ("AF_INET", "169.254.169.254", "80")],
    ids=lambda place: place[1],
)  # fmt: skip
def test_no_network(shared, place):
    assert python(shared, REACH, *place)["code"] == 1
    names = out(shared, "ls", "/sys/class/net") if _exists(shared, "/sys/class") else ""
    assert set(names.split()) <= {"lo"}


def _exists(sandbox, path):
    return run(sandbox, "test", "-e", path)["code"] == 0


def test_no_services_of_the_host(shared):
    with socket.create_server(("127.0.0.1", 0)) as one:
        port = str(one.getsockname()[1])
        assert python(shared, REACH, "AF_INET", "127.0.0.1", port)["code"] == 1
    name = f"stepjax-test-{os.getpid()}"
    with socket.socket(socket.AF_UNIX) as one:
        one.bind(f"\0{name}")
        one.listen()
        assert python(shared, REACH, "AF_UNIX", f"@{name}")["code"] == 1
    assert not _exists(shared, "/run/dbus/system_bus_socket")
    assert not _exists(shared, str(shared.socket))


def test_own_loopback_works(shared):
    code = (
        "import socket; one = socket.create_server(('127.0.0.1', 9222));"
        "socket.create_connection(('localhost', 9222), 5)"
    )
    assert python(shared, code) == {"code": 0, "out": "", "err": ""}


@pytest.mark.parametrize(
    "path",
    ["/opt/stepjax/inside/main.py", "/opt/stepjax/home/.bashrc", "/dev/null2",
     "/proc/sys/kernel/core_pattern", "/proc/sysrq-trigger", "/proc/sys/vm/swappiness"],
)  # fmt: skip
def test_what_cannot_be_written(shared, path):
    done = sudo(shared, "sh", "-c", f"echo x > {path}")
    if path == "/dev/null2" and shared.variant == "root":
        assert not pathlib.Path(path).exists()
        return
    assert done["code"] != 0


@pytest.mark.parametrize(
    "command",
    [("mount", "-t", "tmpfs", "x", "/mnt"), ("mknod", "/tmp/disk", "b", "8", "0"),
     ("umount", "-l", "/proc/sys"), ("unshare", "--user", "--map-root-user", "true"),
     ("chroot", "/proc/1/root/..", "ls", "/root/canary"), ("dmesg",),
     ("insmod", "/tmp/x.ko"), ("date", "-s", "2001-01-01")],
    ids=lambda command: command[0],
)  # fmt: skip
def test_what_even_root_cannot_do(shared, command):
    assert sudo(shared, *command)["code"] != 0


FILTERED = """
import ctypes, errno, os, socket, sys
call = ctypes.CDLL(None, use_errno=True).syscall
intel = os.uname().machine == "x86_64"
for name, number, wanted in (
    ("keyctl", 250 if intel else 219, errno.EPERM),
    ("unshare", 272 if intel else 97, errno.EPERM),
    ("clone into a user namespace", 56 if intel else 220, errno.EPERM),
    ("clone3", 435, errno.ENOSYS),
    ("io_uring_setup", 425, errno.EPERM),
    ("bpf", 321 if intel else 280, errno.EPERM),
):
    ctypes.set_errno(0)
    if call(number, 0x10000000, 0, 0, 0, 0) == 0 and "clone" in name:
        os._exit(0)
    print(name, ctypes.get_errno() == wanted)
for family in (40, 38, 31, 17):  # to the hypervisor, ciphers, bluetooth, raw packets
    try:
        socket.socket(family, socket.SOCK_STREAM)
        print(family, "open")
    except OSError as error:
        print(family, error.errno == errno.EAFNOSUPPORT)
socket.socketpair()
socket.socket(socket.AF_INET6)
"""


def test_system_calls_that_are_refused(shared):
    done = python(shared, FILTERED)
    assert done["code"] == 0, done
    lines = done["out"].splitlines()
    assert len(lines) == 10 and all(line.endswith("True") for line in lines), lines


def test_threads_and_processes_work_under_the_filter(shared):
    code = (
        "import subprocess, threading; one = threading.Thread(target=print, args=(1,));"
        "one.start(); one.join(); subprocess.run(['/bin/echo', '2'], check=True)"
    )
    assert sorted(python(shared, code)["out"].split()) == ["1", "2"]


def test_capabilities_are_given_up(shared):
    status = sudo(shared, "cat", "/proc/self/status")["out"]
    rows = dict(line.split(":", 1) for line in status.splitlines())
    kept = int(rows["CapBnd"], 16) | int(rows["CapEff"], 16)
    # module, raw I/O, trace, admin, boot, nice, resource, time, devices, bpf, perfmon
    for number in (12, 13, 16, 17, 19, 21, 22, 23, 24, 25, 27, 38, 39):
        assert not kept & 1 << number, number
    assert (kept == 0) == (shared.variant == "rootless")


def test_system_of_the_host_stays_as_it_is(shared):
    name = f"stepjax-{os.getpid()}"
    for folder in ("/usr/bin", "/etc", "/var/lib/dpkg"):
        done = sudo(shared, "touch", f"{folder}/{name}")
        assert (done["code"] == 0) == (shared.variant == "root"), done
        assert not pathlib.Path(folder, name).exists()


def test_token_and_socket_are_out_of_reach(shared):
    code = """
import ctypes, os, sys
main = 2
for name in ("environ", "mem", "maps", "fd/3", "cwd/x"):
    try:
        print(name, open(f"/proc/{main}/{name}", "rb").read(10))
    except OSError:
        continue
pidfd = os.pidfd_open(main)
for number in range(64):  # pidfd_getfd: the sockets of the program inside
    if ctypes.CDLL(None).syscall(438, pidfd, number, 0) >= 0:
        print("descriptor", number)
"""
    done = python(shared, code)
    assert done == {"code": 0, "out": "", "err": ""}
    texts = run(shared, "sh", "-c", "cat /proc/*/cmdline | tr '\\0' ' '")["out"]
    assert "inside.main" in texts
    assert shared.token not in texts and str(shared.folder) not in texts


def test_nothing_survives_a_revert(variant):
    code = "import os, sys; [open(path, 'w') for path in sys.argv[1:]]"
    paths = [
        f"{folder}/left" for folder in ("/home/user", "/tmp", "/dev/shm", "/var/tmp")
    ]
    with start(root=variant) as made:
        made.variant = "root" if variant else "rootless"
        assert python(made, code, *paths)["code"] == 0
        if variant:
            assert (
                sudo(made, "sh", "-c", "echo x > /etc/left; rm /usr/bin/w")["code"] == 0
            )
            assert not _exists(made, "/usr/bin/w")
        _leave_running(made, "import time; time.sleep(987)")
        link = sandboxes.namespace(made)
    assert not sandboxes.members(link)
    with start(root=variant) as made:
        assert not [path for path in [*paths, "/etc/left"] if _exists(made, path)]
        assert "987" not in out(made, "ps", "-e", "-o", "args=")
        assert _exists(made, "/usr/bin/env")


FORKS = """
import os, time
while True:
    try:
        os.fork()
    except OSError:
        time.sleep(0.1)
"""


def test_fork_bomb_is_noticed(variant):
    with start(root=variant, processes=64) as made:
        link = sandboxes.namespace(made)
        _leave_running(made, FORKS)
        assert "64 are allowed" in dead(made)
        assert not sandboxes.members(link)


MEMORY = """
import os, time
for _ in range(8):
    if os.fork() == 0:
        kept = bytearray(60 << 20)
        for at in range(0, len(kept), 4096):
            kept[at] = 1
        time.sleep(600)
time.sleep(600)
"""


def test_memory_hog_is_noticed(variant):
    with start(root=variant, memory_mb=200, disk_mb=16) as made:
        _leave_running(made, MEMORY)
        why = dead(made)
        assert "of memory" in why and "200" in why
        link = made.folder
        assert link.exists()
    assert not link.exists()


def test_one_process_cannot_have_more_than_the_desktop(variant):
    with start(root=variant, memory_mb=200) as made:
        done = python(made, "kept = bytearray(300 << 20)")
        assert "MemoryError" in done["err"] and made.alive()


DISK = """
import os, sys, time
os.chdir(sys.argv[1])
block = bytes(1 << 20)
for number in range(10**6):
    try:
        with open(f"file{number}", "wb") as file:
            file.write(block * 4)
    except OSError:
        time.sleep(600)
"""


@pytest.mark.parametrize("folder", ["/home/user", "/tmp", "/dev/shm", "/var/tmp"])
def test_full_disk_is_noticed(possible, folder):
    with start(disk_mb=32) as made:
        _leave_running(made, DISK, folder)
        top = "/var" if folder == "/var/tmp" else folder
        assert dead(made) == f"{top} is full"


def test_full_system_disk_is_contained(possible):
    if os.geteuid() != 0:
        pytest.skip("the root variant needs root")
    with start(disk_mb=32, root=True) as made:
        made.variant = "root"
        done = sudo(made, "dd", "if=/dev/zero", "of=/usr/full", "bs=1M", "count=200")
        assert "No space left" in done["err"]


def _leave_running(sandbox, code, *arguments):
    starter = (
        "import subprocess, sys; subprocess.Popen(['/usr/bin/python3', '-c', "
        "*sys.argv[1:]], start_new_session=True, stdin=subprocess.DEVNULL, "
        "stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)"
    )
    sandboxes.python(sandbox, starter, code, *arguments)
