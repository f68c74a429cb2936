"""First process of a root variant's desktop; started by the command of `overlay.py`.

It runs in fresh namespaces under Debian's Python, so it uses the standard library
only: mounts the desktop's file systems, gives up what root in a container must not
have, starts the program inside as the user, and ends when that ends.
"""

import ctypes
import fcntl
import json
import os
import signal
import socket
import struct
import sys

__all__ = ["main"]

_LIBC = ctypes.CDLL(None, use_errno=True)
_NOSUID, _NODEV, _READ_ONLY, _REMOUNT, _BIND, _REC = 2, 4, 1, 32, 4096, 16384
_DETACH = 2
_PR_CAPBSET_DROP, _PR_SET_SECCOMP, _SECCOMP_FILTER = 24, 22, 2
# What docker leaves to root, without making devices and raw network packets: change
# owners, pass permissions, other users' files, ids, kill, low ports, chroot.
_CAPABILITIES = (0, 1, 3, 4, 5, 6, 7, 8, 10, 18, 29, 31)
_DEVICES = ("null", "zero", "full", "random", "urandom", "tty")
_PROC_READ_ONLY = ("sys", "sysrq-trigger", "irq", "bus", "fs")
_PROC_HIDDEN = ("kcore", "keys", "timer_list", "sched_debug", "kallsyms", "kmsg")
_USER = 1000


def main() -> int:
    """Build the desktop's world from a plan in the pipe given by number; run it."""
    with os.fdopen(int(sys.argv[1])) as file:
        plan = json.load(file)
    # /proc is still the host's, so this is the number the host knows us by.
    pid = int(os.readlink("/proc/self"))
    os.write(plan["info_fd"], json.dumps({"child-pid": pid}).encode())
    os.read(plan["block_fd"], 1)
    os.close(plan["info_fd"])
    os.close(plan["block_fd"])
    os.umask(0o022)
    _build_root(plan)
    _enter(plan["root"])
    socket.sethostname("vm")
    _raise_loopback()
    _install_filter(bytes.fromhex(plan["filter"]))
    _give_up_capabilities()
    child = os.fork()
    if child == 0:
        _become_user(plan)
    return _reap(child)


def _mount(
    source: str, target: str, kind: str = "", flags: int = 0, data: str = ""
) -> None:
    """Mount something, the target made if it is missing."""
    if not os.path.exists(target):
        if os.path.isdir(source) or kind:
            os.makedirs(target)
        else:
            os.makedirs(os.path.dirname(target), exist_ok=True)
            os.close(os.open(target, os.O_CREAT | os.O_WRONLY, 0o644))
    words = [word.encode() for word in (source, target, kind)]
    if _LIBC.mount(*words, ctypes.c_ulong(flags), data.encode()) != 0:
        code = ctypes.get_errno()
        raise OSError(code, f"mount {source} on {target}: {os.strerror(code)}")


def _bind(source: str, target: str, *, read_only: bool = False) -> None:
    """Show a file or folder at a second place."""
    _mount(source, target, flags=_BIND)
    if read_only:
        flags = _BIND | _REMOUNT | _READ_ONLY | _NOSUID | _NODEV
        _mount(source, target, flags=flags)


def _build_root(plan: dict) -> None:
    """Mount everything below the new root."""
    root, scratch = plan["root"], plan["scratch"]
    size = f"size={plan['scratch_mb']}m,nr_inodes=300k,mode=755"
    _mount("tmpfs", scratch, "tmpfs", _NODEV, size)
    _mount("tmpfs", root, "tmpfs", _NODEV, "size=16m,nr_inodes=10k,mode=755")
    for name in ("root", "home", "opt", "srv", "mnt", "media", "sys"):
        os.mkdir(f"{root}/{name}", 0o700 if name == "root" else 0o755)
    _layer(scratch, "usr", "/usr", f"{root}/usr")
    _layer(scratch, "etc", plan["etc"], f"{root}/etc")
    for name in ("bin", "sbin", "lib", "lib32", "lib64", "libx32"):
        if os.path.islink(f"/{name}"):
            os.symlink(os.readlink(f"/{name}"), f"{root}/{name}")
        elif os.path.isdir(f"/{name}"):
            _layer(scratch, name, f"/{name}", f"{root}/{name}")
    _make_devices(root)
    for place, megabytes in plan["tmpfs"].items():
        mode = 1777 if place in ("/tmp", "/dev/shm") else 755
        data = f"size={megabytes}m,nr_inodes=300k,mode={mode}"
        _mount("tmpfs", root + place, "tmpfs", _NOSUID | _NODEV, data)
    for name in plan["var"]:
        _layer(scratch, name.replace("/", "-"), f"/var/{name}", f"{root}/var/{name}")
    for name, mode in (("tmp", 0o1777), ("log", 0o755), ("lib/xkb", 0o755)):
        os.makedirs(f"{root}/var/{name}", exist_ok=True)
        os.chmod(f"{root}/var/{name}", mode)
    os.symlink("/run", f"{root}/var/run")
    for place, source in plan["binds"].items():
        _bind(source, root + place, read_only=True)
    for place, source in plan["links"].items():
        os.symlink(source, root + place)
    os.makedirs(f"{root}/run/user/{_USER}", 0o700)
    for place in ("/home/user", f"/run/user/{_USER}"):
        os.chown(root + place, _USER, _USER)
    _mount_proc(root)


def _layer(scratch: str, name: str, lower: str, target: str) -> None:
    """A folder of the host that can be changed here without changing it there."""
    upper, work = f"{scratch}/{name}-upper", f"{scratch}/{name}-work"
    os.mkdir(upper, os.stat(lower).st_mode & 0o7777)
    os.mkdir(work)
    data = f"lowerdir={lower},upperdir={upper},workdir={work}"
    _mount("overlay", target, "overlay", _NODEV, data)


def _make_devices(root: str) -> None:
    """A small /dev."""
    _mount("tmpfs", f"{root}/dev", "tmpfs", _NOSUID, "size=1m,nr_inodes=1k,mode=755")
    for name in _DEVICES:
        _bind(f"/dev/{name}", f"{root}/dev/{name}")
    _mount(
        "devpts", f"{root}/dev/pts", "devpts", 0, "newinstance,ptmxmode=0666,mode=620"
    )
    os.symlink("pts/ptmx", f"{root}/dev/ptmx")
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        os.symlink(f"/proc/self/fd/{number}", f"{root}/dev/{name}")
    os.symlink("/proc/self/fd", f"{root}/dev/fd")


def _mount_proc(root: str) -> None:
    """A /proc of this namespace in which the kernel's switches cannot be touched."""
    proc = f"{root}/proc"
    _mount("proc", proc, "proc", _NOSUID | _NODEV | 8)
    for name in _PROC_READ_ONLY:
        if os.path.exists(f"{proc}/{name}"):
            _bind(f"{proc}/{name}", f"{proc}/{name}", read_only=True)
    for name in _PROC_HIDDEN:
        if os.path.exists(f"{proc}/{name}"):
            _bind("/dev/null", f"{proc}/{name}")


def _enter(root: str) -> None:
    """Make `root` the root and let go of the old one."""
    os.chdir(root)
    number = {"x86_64": 155, "aarch64": 41}[os.uname().machine]
    if _LIBC.syscall(number, b".", b".") != 0:
        code = ctypes.get_errno()
        raise OSError(code, f"pivot_root: {os.strerror(code)}")
    # The old root now lies over the new one, at the same place.
    if _LIBC.umount2(b".", _DETACH) != 0:
        code = ctypes.get_errno()
        raise OSError(code, f"umount of the old root: {os.strerror(code)}")
    os.chdir("/")


def _raise_loopback() -> None:
    """Start the namespace's own loopback device."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as one:
        fcntl.ioctl(one, 0x8914, struct.pack("16sh14x", b"lo", 0x41))


def _install_filter(program: bytes) -> None:
    """Refuse the system calls that the desktop must not make, from here on.

    Before capabilities go: with them, programs that become root, such as `sudo`, keep
    working under the filter.
    """
    code = ctypes.create_string_buffer(program, len(program))
    header = struct.pack("HP", len(program) // 8, ctypes.addressof(code))
    if _LIBC.prctl(_PR_SET_SECCOMP, _SECCOMP_FILTER, header, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "installing the filter of system calls")


def _give_up_capabilities() -> None:
    """Keep only what root in a container may do, for this and all later processes."""
    last = int(open("/proc/sys/kernel/cap_last_cap").read())
    for number in range(last + 1):
        if number not in _CAPABILITIES:
            _LIBC.prctl(_PR_CAPBSET_DROP, number, 0, 0, 0)
    kept = sum(1 << number for number in _CAPABILITIES)
    header = struct.pack("Ii", 0x20080522, 0)
    low, high = kept & 0xFFFFFFFF, kept >> 32
    data = struct.pack("6I", low, low, 0, high, high, 0)
    if _LIBC.capset(header, data) != 0:
        raise OSError(ctypes.get_errno(), "capset")


def _become_user(plan: dict) -> None:
    """Turn into the program inside."""
    os.setsid()
    os.setgroups([_USER, 27])
    os.setgid(_USER)
    os.setuid(_USER)
    os.execve(plan["command"][0], plan["command"], plan["variables"])


def _reap(child: int) -> int:
    """Wait for all processes; the child's status once it has ended."""
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    while True:
        pid, status = os.wait()
        if pid == child:
            code = os.waitstatus_to_exitcode(status)
            return code if code >= 0 else 128 - code


if __name__ == "__main__":
    sys.exit(main())
