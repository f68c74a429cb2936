"""Starting one desktop."""

import contextlib
import json
import os
import pathlib
import secrets
import select
import shutil
import socket
import time

from stepjax.envs.desktop.sandbox import bubblewrap, cgroups, home, leftovers, overlay
from stepjax.envs.desktop.sandbox.base import Base, current_base
from stepjax.envs.desktop.sandbox.limits import limited, tmpfs_megabytes
from stepjax.envs.desktop.sandbox.running import Sandbox, one_line
from stepjax.envs.desktop.sandbox.seccomp import filter_program
from stepjax.envs.desktop.sandbox.spec import SandboxError, SandboxSpec

__all__ = ["start_sandbox"]

_HINT = "`python -m stepjax.envs.desktop doctor` explains what is missing."
_MAX_ANSWER = 65536


def start_sandbox(
    spec: SandboxSpec,
    *,
    golden_home: pathlib.Path | None = None,
    inside: pathlib.Path | None = None,
    timeout: float = 20.0,
) -> Sandbox:
    """A running desktop, ready to be used.

    What dead processes of this user left is removed at the first call.

    Args:
      spec: What to start.
      golden_home: A home folder whose files go over the bundled preferences.
      inside: Folder of the program inside, with `main.py`; None for the bundled one.
      timeout: How long it may take, seconds.

    Returns:
      The desktop; call `close` on it, or use it in a `with` statement.

    Raises:
      SandboxError: If it cannot be started; nothing is left running then.

    Example:
      with start_sandbox(SandboxSpec()) as desktop:
          desktop.alive()
    """
    deadline = time.monotonic() + timeout
    if spec.needs_root and os.geteuid() != 0:
        raise SandboxError(
            "SandboxSpec.needs_root=True needs a trainer that runs as root, and this "
            f"one runs as user {os.geteuid()}; leave out tasks that need root."
        )
    base = current_base()
    stage = base.stage(
        (inside or home.BUNDLED_INSIDE).resolve(),
        None if golden_home is None else golden_home.resolve(),
    )
    with contextlib.ExitStack() as on_failure:
        try:
            pipes = _Pipes(on_failure)
            sandbox = _spawn(base, spec, stage, pipes, on_failure)
            _wait_until_usable(sandbox, pipes, deadline, timeout, on_failure)
        except OSError as error:
            raise SandboxError(
                f"The desktop did not start: {error}. {_HINT}"
            ) from error
        pipes.close_ours()
        on_failure.pop_all()
    base.add(sandbox)
    return sandbox


class _Pipes:
    """Pipes between the host and a desktop; both ends are closed on failure."""

    def __init__(self, on_failure: contextlib.ExitStack):
        self._open: set[int] = set()
        self._filled: list[int] = []
        on_failure.callback(self._close_all)
        self.info, self.info_theirs = self._pipe()
        self.ready, self.ready_theirs = self._pipe()
        self.errors, self.errors_theirs = self._pipe()
        self.block_theirs, self.block = self._pipe()
        self.token_theirs, self.token = self._pipe()
        os.set_blocking(self.errors, False)

    def _pipe(self) -> tuple[int, int]:
        ends = os.pipe()
        self._open.update(ends)
        return ends

    def with_data(self, data: bytes) -> int:
        """End of a pipe that a few kB can be read from."""
        theirs, ours = self._pipe()
        os.write(ours, data)
        self.close(ours)
        self._filled.append(theirs)
        return theirs

    def close(self, *fds: int) -> None:
        for fd in fds:
            if fd in self._open:
                self._open.remove(fd)
                os.close(fd)

    def close_theirs(self) -> None:
        self.close(
            self.info_theirs, self.ready_theirs, self.errors_theirs,
            self.block_theirs, self.token_theirs, *self._filled,
        )  # fmt: skip

    def close_ours(self) -> None:
        """Close what is not needed once it runs; its errors stay open."""
        self.close(self.info, self.ready, self.block, self.token)

    def keep(self, fd: int) -> None:
        """Leave a descriptor to its new owner."""
        self._open.remove(fd)

    def _close_all(self) -> None:
        self.close(*list(self._open))


def _spawn(
    base: Base,
    spec: SandboxSpec,
    stage: pathlib.Path,
    pipes: _Pipes,
    on_failure: contextlib.ExitStack,
) -> Sandbox:
    folder = base.new_folder()
    on_failure.callback(shutil.rmtree, folder, ignore_errors=True)
    token = secrets.token_hex(16)
    with _listen(folder / "socket") as listener:
        fds = [listener.fileno(), pipes.token_theirs, pipes.ready_theirs]
        program = [
            "/usr/bin/python3", "-s", "-m", "inside.main",
            "--listen-fd", str(fds[0]), "--token-fd", str(fds[1]),
            "--ready-fd", str(fds[2]),
            "--width", str(spec.width), "--height", str(spec.height),
        ]  # fmt: skip
        fds += [pipes.info_theirs, pipes.block_theirs]
        if spec.needs_root:
            command, plan = overlay.overlay_command(
                folder=folder, stage=stage, spec=spec, command=program,
                info_fd=fds[3], block_fd=fds[4],
            )  # fmt: skip
            fds.append(pipes.with_data(plan.encode()))
            command.append(str(fds[5]))
        else:
            arguments = bubblewrap.bubblewrap_arguments(
                stage=stage, spec=spec, info_fd=fds[3], block_fd=fds[4]
            )
            fds.append(pipes.with_data(filter_program()))
            arguments += ["--seccomp", str(fds[5])]
            fds.append(pipes.with_data("\0".join(arguments).encode()))
            command = _unprivileged(base.unprivileged) + [
                bubblewrap.find_bubblewrap(), "--args", str(fds[6]), "--",
                *limited(program, spec.limits),
            ]  # fmt: skip
        process = base.spawn(command, fds, pipes.errors_theirs)
    pipes.close_theirs()
    pipes.keep(pipes.errors)
    sandbox = Sandbox(
        spec=spec, folder=folder, token=token, process=process, errors=pipes.errors,
        on_close=base.discard,
    )  # fmt: skip
    on_failure.callback(sandbox.close)
    return sandbox


def _unprivileged(number: int | None) -> list[str]:
    """What to put before a command that must not run as root."""
    if number is None:
        return []
    ids = ["--reuid", str(number), "--regid", str(number)]
    return ["/usr/bin/setpriv", *ids, "--clear-groups"]


def _listen(path: pathlib.Path) -> socket.socket:
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        listener.bind(str(path))
        listener.listen(64)
    except OSError as error:
        listener.close()
        if "too long" in str(error):
            raise SandboxError(
                f"The temporary folder's name is too long for a socket: {path} has "
                f"{len(str(path))} characters, 107 are possible; set TMPDIR."
            ) from error
        raise
    return listener


def _wait_until_usable(
    sandbox: Sandbox,
    pipes: _Pipes,
    deadline: float,
    timeout: float,
    on_failure: contextlib.ExitStack,
) -> None:
    info = _read_answer(pipes.info, deadline, sandbox, timeout)
    init_pid = int(str(info["child-pid"]))
    limits = sandbox.spec.limits
    room = sum(tmpfs_megabytes(sandbox.spec).values())
    name = f"{os.getpid()}-{sandbox.pid}"
    group = cgroups.make_group(name, limits, room)
    if group is not None:
        on_failure.callback(group.remove)
        group.add(init_pid)
    sandbox.attach(init_pid, group)
    leftovers.note_sandbox(
        sandbox.folder,
        [sandbox.pid, init_pid],
        [str(folder) for folder in group.folders] if group else [],
    )
    with contextlib.suppress(BrokenPipeError):  # told below by the answer
        os.write(pipes.token, f"{sandbox.token}\n".encode())
        os.write(pipes.block, b"1")
    pipes.close(pipes.token, pipes.block)
    answer = _read_answer(pipes.ready, deadline, sandbox, timeout)
    if answer.get("ready") is not True:
        why = one_line(str(answer.get("why", "it does not say why")))
        raise SandboxError(f"The desktop did not start: {why}. {_HINT}")
    sandbox.open_view(init_pid)


def _read_answer(
    fd: int, deadline: float, sandbox: Sandbox, timeout: float
) -> dict[str, object]:
    """A JSON object from a pipe; bubblewrap's spans lines, ours is one."""
    text = b""
    poll = select.poll()
    poll.register(fd, select.POLLIN)
    while len(text) < _MAX_ANSWER:
        left = deadline - time.monotonic()
        if left <= 0 or not poll.poll(left * 1000):
            words = sandbox.last_words()
            said = f"; it said: {words}" if words else ""
            raise SandboxError(
                f"The desktop was not usable after {timeout:g} s{said}. {_HINT}"
            )
        new = os.read(fd, 4096)
        text += new
        with contextlib.suppress(ValueError):
            answer = json.loads(text)
            if isinstance(answer, dict):
                return answer
        if not new:
            break
    sandbox.wait(2.0)  # it is about to end, and will have said why
    sandbox.end("it closed its pipe without an answer")
    raise SandboxError(f"The desktop did not start: {sandbox.why_dead()}. {_HINT}")
