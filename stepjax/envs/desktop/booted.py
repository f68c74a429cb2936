"""A desktop that has booted: its sandbox, the client that talks to it, what it does."""

import enum
import itertools
from collections.abc import Callable
from typing import Any, Protocol

__all__ = ["Boot", "Desktop", "DesktopPhase", "SandboxLike", "boot_desktop"]

_NUMBERS = itertools.count()


class DesktopPhase(enum.Enum):
    """What a desktop is doing, in the words that progress shows."""

    BOOTING = "booting"
    SPARE = "spare"
    SETTING_UP = "setting up"
    PREPARED = "prepared"
    ACTING = "acting"
    EVALUATING = "evaluating"
    ENDING = "ending"


class SandboxLike(Protocol):
    """What is asked of a sandbox here; see `stepjax.envs.desktop.sandbox`."""

    def alive(self) -> bool:
        """True while the desktop runs; cheap, and from any thread."""
        ...

    def why_dead(self) -> str:
        """One line about the end of a desktop that is not alive."""
        ...

    def close(self) -> None:
        """End everything of it; never raises, may be called twice."""
        ...


class Desktop:
    """One desktop that runs.

    Attributes:
      sandbox: What holds its processes.
      client: What talks to its server.
      needs_root: True for the variant in which sudo works.
      phase: What it is doing; only counted, never acted on.
      number: Counts desktops of this process, for messages.
    """

    def __init__(self, sandbox: SandboxLike, client: Any, *, needs_root: bool = False):
        self.sandbox = sandbox
        self.client = client
        self.needs_root = needs_root
        self.phase = DesktopPhase.SPARE
        self.number = next(_NUMBERS)

    def alive(self) -> bool:
        """True while the desktop runs."""
        return self.sandbox.alive()

    def why_dead(self) -> str:
        """One line about the end of a desktop that is not alive."""
        return " ".join(self.sandbox.why_dead().split()) or "no reason is known"

    def close(self) -> None:
        """End the desktop, then let go of the connection to it."""
        try:
            self.sandbox.close()
        finally:
            self.client.close()


Boot = Callable[[bool], Desktop]
"""`boot(needs_root)`: a desktop that has shown a picture, or an exception."""


def boot_desktop(
    spec: Any,
    *,
    start_sandbox: Callable[..., Any] | None = None,
    connect: Callable[..., Any] | None = None,
    timeout: float = 30.0,
) -> Desktop:
    """A desktop that has booted and shown its first picture.

    Args:
      spec: `SandboxSpec` of the sandbox.
      start_sandbox: Starts it; None for `stepjax.envs.desktop.sandbox.start_sandbox`.
      connect: `connect(socket, token)` makes the client; None for `DesktopClient`.
      timeout: Seconds that starting may take.

    Raises:
      SandboxError: If it does not start.
      DesktopError: If it starts but shows no picture.
    """
    start_sandbox = start_sandbox or _default_start()
    connect = connect or _default_connect()
    sandbox = start_sandbox(spec, timeout=timeout)
    client = None
    try:
        client = connect(sandbox.socket, sandbox.token)
        client.act((), settle_ms=0)  # "ready" is a claim, a picture is the proof
    except BaseException:
        sandbox.close()
        if client is not None:
            client.close()
        raise
    return Desktop(sandbox, client, needs_root=spec.needs_root)


def _default_start() -> Callable[..., Any]:
    from stepjax.envs.desktop.sandbox import start_sandbox

    return start_sandbox


def _default_connect() -> Callable[..., Any]:
    from stepjax.envs.desktop.client import DesktopClient

    return DesktopClient
