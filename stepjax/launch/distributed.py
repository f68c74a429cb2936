"""The start of a run of one or many processes, and its end."""

import atexit
import contextlib
import json
import os
import sys
import threading
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import jax

from stepjax.launch.aborts import explained_aborts
from stepjax.launch.cluster import Cluster, LaunchError
from stepjax.launch.peers import Alone, ConnectedPeers, PeerLostError, Peers
from stepjax.launch.preflight import Facts
from stepjax.launch.relay import start_relay
from stepjax.launch.rendezvous import meet

__all__ = ["launched"]

_NEWS_SECONDS = 3.0  # a death may be felt a little before it is known
_EXIT_SECONDS = 30.0
_SHUTDOWN_SECONDS = 60
_SHOWN = 8  # processes named in a message


@contextlib.contextmanager
def launched(
    cluster: Cluster | None,
    facts: Facts,
    *,
    timeout: float = 300.0,
    heartbeat: float = 30.0,
) -> Iterator[Peers]:
    """A block in which the processes of a run know each other and share their devices.

    Entered before jax touches a device. First the processes meet and compare their
    facts, then jax starts, then they compare their devices and count each other as jax
    does: TPUs may go by the place in the slice, whatever number a process started with.
    If one ends early, for whatever reason, all others end within seconds of knowing,
    with code 1; with code 2 if they never started together.

    Args:
      cluster: From `find_cluster`; None for one process, which starts nothing.
      facts: From `gather_facts`.
      timeout: Seconds to wait for the other processes.
      heartbeat: Seconds of silence after which a process counts as dead.

    Yields:
      The processes of the run.

    Raises:
      LaunchError: If they cannot start together; all of them raise the same line.
      PeerLostError: If another process ended before this one.

    Example:
      >>> from stepjax.launch.preflight import gather_facts
      >>> with launched(None, gather_facts()) as peers:
      ...     peers.count
      1
    """
    if cluster is None:
        yield Alone()
        return
    wires, hosts = meet(cluster, facts, timeout=timeout)
    peers = ConnectedPeers(cluster.process_id, hosts, wires, heartbeat=heartbeat)
    try:
        _start_jax(cluster, timeout, heartbeat)
        _compare_devices(peers)
        with _aborts_of(peers):
            yield peers
            peers.finish()
            jax.distributed.shutdown()
    except BaseException as error:
        # jax and checkpoints would wait at exit for processes that are not coming.
        code = _exit_code(error)
        atexit.register(_leave, code)
        timer = threading.Timer(_EXIT_SECONDS, _leave, [code])
        timer.daemon = True
        timer.start()
        lost = None if isinstance(error, LaunchError) else _news(peers, error)
        peers.told()
        if lost is None:
            peers.fail(_in_one_line(error))
            raise
        if isinstance(error, PeerLostError):
            raise
        raise PeerLostError(lost) from error


def _aborts_of(peers: ConnectedPeers) -> contextlib.AbstractContextManager[None]:
    """A block in which a death that aborts CPU collectives is told as any other."""
    if jax.default_backend() != "cpu":
        return contextlib.nullcontext()

    def explain() -> str | None:
        lost = peers.lost(_NEWS_SECONDS)
        peers.told()
        return None if lost is None else f"{peers.name(peers.index)}: {lost}"

    return explained_aborts(explain)


def _news(peers: ConnectedPeers, error: BaseException) -> str | None:
    """What is known of a death that may be behind `error`."""
    behind = isinstance(error, RuntimeError | ValueError | OSError)
    return peers.lost(_NEWS_SECONDS if behind else 0.0)


def _start_jax(cluster: Cluster, timeout: float, heartbeat: float) -> None:
    address = cluster.address
    if cluster.process_id:
        address = start_relay(cluster.host, cluster.port, timeout=timeout)
    try:
        jax.distributed.initialize(
            address,
            cluster.num_processes,
            cluster.process_id,
            local_device_ids=cluster.local_devices,
            cluster_detection_method="deactivate",
            initialization_timeout=max(1, int(timeout)),
            heartbeat_timeout_seconds=max(100, int(4 * heartbeat)),
            shutdown_timeout_seconds=_SHUTDOWN_SECONDS,
        )
    except RuntimeError as error:
        raise LaunchError(
            f"jax could not connect process {cluster.process_id} to {cluster.address}: "
            f"{_in_one_line(error)}"
        ) from error


def _compare_devices(peers: ConnectedPeers) -> None:
    """An error if a process has other devices than process 0; jax's numbers for all."""
    own = {
        "number": jax.process_index(),
        "count": jax.local_device_count(),
        "kind": jax.local_devices()[0].device_kind,
        "all": jax.device_count(),
        "x64": jax.config.jax_enable_x64,  # pyright: ignore
    }
    seen = [
        json.loads(said) for said in peers.gather("devices", json.dumps(own).encode())
    ]
    for index, found in enumerate(seen):
        for name, what in _DEVICE_FACTS.items():
            if found[name] != seen[0][name]:
                raise LaunchError(
                    f"{peers.name(index)} {what.format(found[name])}, {peers.name(0)} "
                    f"{what.format(seen[0][name])}; look at the devices of both with: "
                    "python -c 'import jax; print(jax.devices())'"
                )
    _take_numbers(peers, [found["number"] for found in seen])


def _take_numbers(peers: ConnectedPeers, numbers: Sequence[int]) -> None:
    """Give the processes the numbers by which jax tells whose a device is."""
    try:
        peers.renumber(numbers)
    except ValueError as error:
        given = ", ".join(
            f"{peers.name(index)} {number}"
            for index, number in enumerate(numbers[:_SHOWN])
        )
        more = ", ..." if len(numbers) > _SHOWN else ""
        raise LaunchError(
            f"jax does not see the processes as one run: of {peers.count} numbers, "
            f"each once, it gives {given}{more}; on TPUs all hosts must be of one slice"
            " or of connected slices, and TPU_* variables must not say otherwise: see "
            "with: env | grep -E 'TPU_|MEGASCALE_'"
        ) from error


_DEVICE_FACTS: Mapping[str, str] = {
    "kind": "has devices of kind {}",
    "count": "sees {} devices of its own",
    "all": "sees {} devices in all",
    "x64": "has jax_enable_x64 = {}",
}


def _leave(code: int) -> None:
    """End the process without waiting for anybody; output is whole."""
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError):
            stream.flush()
    os._exit(code)


def _exit_code(error: BaseException) -> int:
    code: Any = getattr(error, "exit_code", 1)
    if isinstance(error, SystemExit):
        code = error.code if isinstance(error.code, int) else int(bool(error.code))
    return int(code)


def _in_one_line(error: BaseException) -> str:
    if isinstance(error, SystemExit | KeyboardInterrupt):
        return "it was asked to stop"
    return " ".join(str(error).split())[:500] or type(error).__name__
