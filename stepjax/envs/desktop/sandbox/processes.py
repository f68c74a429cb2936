"""What the host sees of the processes and files of one desktop.

Read through the desktop's own /proc, which lists nothing else: the cost does not grow
with the machine, and needs no table of who is whose child.
"""

import contextlib
import dataclasses
import os

__all__ = ["DesktopView", "Usage"]

_PAGE_MB = os.sysconf("SC_PAGE_SIZE") / (1 << 20)
_FOLDERS = ("home/user", "tmp", "dev/shm", "run", "var")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Usage:
    """What a desktop takes at one moment.

    Attributes:
      processes: Number of processes.
      threads: Number of threads, at least one for each process.
      resident_mb: Sum of resident sizes, MB; counts shared pages more than once.
    """

    processes: int
    threads: int
    resident_mb: float


class DesktopView:
    """Open handles on a desktop's /proc and file systems."""

    def __init__(self, init_pid: int):
        """Open them.

        Args:
          init_pid: The host's number of the first process inside, which must have its
            mounts by now.

        Raises:
          OSError: If it is gone.
        """
        flags = os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC
        self._files: dict[str, int] = {}
        self._proc = os.open(f"/proc/{init_pid}/root/proc", os.O_RDONLY | os.O_CLOEXEC)
        try:
            for name in _FOLDERS:
                self._files[name] = os.open(f"/proc/{init_pid}/root/{name}", flags)
        except OSError:
            self.close()
            raise

    def close(self) -> None:
        """Let go of the handles, and so of the memory its files are in."""
        for fd in (self._proc, *self._files.values()):
            os.close(fd)
        self._files = {}

    def usage(self) -> Usage:
        """Processes, threads and an upper bound of the memory, cheaply."""
        processes, threads, pages = 0, 0, 0
        for pid in self._pids():
            fields = self._read(f"{pid}/stat").rpartition(")")[2].split()
            if len(fields) > 21:
                processes += 1
                threads += int(fields[17])
                pages += int(fields[21])
        return Usage(processes=processes, threads=threads, resident_mb=pages * _PAGE_MB)

    def memory_mb(self) -> float:
        """Sum of proportional set sizes, MB: each shared page is counted once."""
        total = 0
        for pid in self._pids():
            for line in self._read(f"{pid}/smaps_rollup").splitlines():
                if line.startswith("Pss:"):
                    total += int(line.split()[1])
        return total / 1024

    def files_mb(self) -> float:
        """Memory the files in the home folder and in /tmp take, MB.

        Elsewhere they are shared memory, which their users' sizes include.
        """
        total = 0
        for name in ("home/user", "tmp"):
            about = os.fstatvfs(self._files[name])
            total += (about.f_blocks - about.f_bfree) * about.f_frsize
        return total / (1 << 20)

    def full_folder(self, max_files: int) -> str:
        """A folder that has no room left or too many files, "" if there is none."""
        for name, fd in self._files.items():
            about = os.fstatvfs(fd)
            if about.f_bavail == 0:
                return f"/{name} is full"
            if about.f_files - about.f_ffree > max_files:
                return f"/{name} holds more than {max_files} files"
        return ""

    def _pids(self) -> list[str]:
        with contextlib.suppress(OSError):  # the desktop is gone: no processes
            return [name for name in os.listdir(self._proc) if name.isdigit()]
        return []

    def _read(self, path: str) -> str:
        """Text of a file of its /proc, "" if the process has just ended."""
        try:
            fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC, dir_fd=self._proc)
        except OSError:
            return ""
        try:
            return os.read(fd, 65536).decode(errors="replace")
        except OSError:
            return ""
        finally:
            os.close(fd)
