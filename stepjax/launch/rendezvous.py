"""Processes find each other, and find out whether they can run together.

Process 0 listens on the very port that the run will use later, so a blocked port shows
before anything heavy starts. The others connect, say who they are, and are told either
who takes part or, in one line, what is wrong. The connections stay open: they carry the
heartbeat of the run.
"""

import contextlib
import dataclasses
import hashlib
import hmac
import json
import os
import queue
import socket
import threading
import time
from collections.abc import Mapping, Sequence
from typing import Any

from stepjax.launch.cluster import Cluster, LaunchError
from stepjax.launch.frames import HELLO, REFUSED, WELCOME, ForeignSpeechError, Wire
from stepjax.launch.preflight import Facts, difference

__all__ = ["SECRET_VARIABLE", "meet"]

SECRET_VARIABLE = "STEPJAX_LAUNCH_SECRET"
"""Environment variable that may hold a secret; only who knows it takes part."""

_LARGEST_HELLO = 4 << 20  # bytes
_HELLO_SECONDS = 10.0  # for one who has connected to say who it is
_LATE_SECONDS = 5.0  # for those that come after a start has failed
_TURN_SECONDS = 0.05  # between two looks at who has been heard
_RETRY_SECONDS = 0.25
_SHOWN = 8  # processes named in a message
_TOO_MUCH = (RecursionError, OverflowError)  # of JSON that means no good


def meet(
    cluster: Cluster, facts: Facts, *, timeout: float
) -> tuple[dict[int, Wire], list[str]]:
    """Open connections between process 0 and the others, once all fit together.

    Args:
      cluster: The place of this process.
      facts: What this process is like.
      timeout: Seconds to wait for the others.

    Returns:
      Wires by process id (process 0 has one to each other, the others one to process
      0), and the hosts of all processes in order.

    Raises:
      LaunchError: If a process is missing or unlike the others, or the port is blocked.
        Every process that arrived gets the same line.
    """
    deadline = time.monotonic() + timeout
    if cluster.process_id == 0:
        return _host(cluster, facts, deadline, timeout)
    return _join(cluster, facts, deadline, timeout)


# --- Process 0 ------------------------------------------------------------------------


def _host(
    cluster: Cluster, facts: Facts, deadline: float, timeout: float
) -> tuple[dict[int, Wire], list[str]]:
    here = _Arrivals(cluster, facts)
    with _listen(cluster) as listener:
        door = _Door(cluster, listener, deadline)
        try:
            while not here.complete():
                hello = door.next(deadline)
                if hello is None:
                    raise LaunchError(_missing(cluster, here, timeout))
                here.enter(hello)
            here.compare()
        except LaunchError as error:
            here.refuse(str(error))
            until = min(deadline, time.monotonic() + _LATE_SECONDS)
            for _ in range(here.expected):
                late = door.next(until)
                if late is None:
                    break
                _refuse(late.wire, str(error))
            raise
        finally:
            door.close()
    hosts = [here.met[index].host for index in range(cluster.num_processes)]
    for wire in here.wires.values():
        _try_send(wire, WELCOME, json.dumps(hosts).encode())
    return here.wires, hosts


def _listen(cluster: Cluster) -> socket.socket:
    try:
        if socket.has_dualstack_ipv6():
            return socket.create_server(
                ("", cluster.port), family=socket.AF_INET6, dualstack_ipv6=True
            )
        return socket.create_server(("", cluster.port))
    except OSError as error:
        raise LaunchError(
            f"port {cluster.port} of {socket.gethostname()} cannot be opened "
            f"({error.strerror}); see who has it with: ss -ltnp 'sport = "
            f":{cluster.port}', or {cluster.how_to_move()}"
        ) from error


@dataclasses.dataclass(frozen=True)
class _Hello:
    """What one that connected said of itself."""

    wire: Wire
    process_id: int
    num_processes: int
    facts: Facts


class _Door:
    """Where the others connect.

    Each is heard by a thread of its own: one that says nothing keeps nobody waiting.
    """

    def __init__(self, cluster: Cluster, listener: socket.socket, deadline: float):
        self._cluster, self._listener, self._deadline = cluster, listener, deadline
        self._heard: queue.SimpleQueue[_Hello] = queue.SimpleQueue()
        self._lock, self._closed = threading.Lock(), False
        listener.settimeout(_TURN_SECONDS)

    def next(self, until: float) -> _Hello | None:
        """The next that said who it is; None if there is none until then."""
        while True:
            with contextlib.suppress(queue.Empty):
                return self._heard.get_nowait()
            if time.monotonic() >= until:
                return None
            # Who has gone before being accepted is nobody.
            with contextlib.suppress(TimeoutError, ConnectionAbortedError):
                connection, _ = self._listener.accept()
                threading.Thread(
                    target=self._hear, args=[connection], daemon=True
                ).start()

    def close(self) -> None:
        """Hear nobody any more; the listener stays as it is."""
        with self._lock, contextlib.suppress(queue.Empty):
            self._closed = True
            while True:
                self._heard.get_nowait().wire.close()

    def _hear(self, connection: socket.socket) -> None:
        try:
            wire = Wire(connection)
        except OSError:
            connection.close()  # it is gone again
            return
        left = self._deadline - time.monotonic()
        hello = _hello(self._cluster, wire, max(0.0, min(_HELLO_SECONDS, left)))
        if hello is None:
            return
        with self._lock:
            if self._closed:
                wire.close()
            else:
                self._heard.put(hello)


def _hello(cluster: Cluster, wire: Wire, seconds: float) -> _Hello | None:
    """What is said first; None, with the wire closed, to whoever speaks otherwise."""
    try:
        kind, payload = wire.receive(_LARGEST_HELLO, within=seconds)
        wire.patience(_HELLO_SECONDS)
        if kind != HELLO:
            raise ValueError("not a hello")
        said = json.loads(payload)
        proof = str(said.pop("proof"))
        if not hmac.compare_digest(proof.encode(), _proof(said).encode()):
            _try_send(wire, REFUSED, _wrong_secret(cluster).encode())
            raise ValueError("a stranger")
        process_id, count = int(said["process_id"]), int(said["num_processes"])
        facts = Facts.from_json(json.dumps(said["facts"]).encode())
    except (OSError, LookupError, ValueError, TypeError, AttributeError, *_TOO_MUCH):
        wire.close()  # a port scanner, or a process that died at once
        return None
    return _Hello(wire, process_id, count, facts)


class _Arrivals:
    """Who has arrived at process 0.

    Attributes:
      wires: To each, by its number.
      met: Facts of each by its number, of process 0 too.
      died: Numbers of those that ended again.
    """

    def __init__(self, cluster: Cluster, facts: Facts):
        self._cluster = cluster
        self.wires: dict[int, Wire] = {}
        self.met: dict[int, Facts] = {0: facts}
        self.died: set[int] = set()
        self._unfit: list[Wire] = []

    def complete(self) -> bool:
        """Whether nobody is missing; those that died are, and may come again."""
        if len(self.met) == self._cluster.num_processes:
            for index in list(self.wires):
                self._forget_if_dead(index)
        return len(self.met) == self._cluster.num_processes

    @property
    def expected(self) -> int:
        """How many have not arrived, be it under a wrong number."""
        return self._cluster.num_processes - len(self.met) - len(self._unfit)

    def enter(self, hello: _Hello) -> None:
        """Note one that arrived; an error if it cannot be one of the run."""
        index = hello.process_id
        if hello.wire.ended():  # it may be in again by another connection
            hello.wire.close()
            self.died.add(index)
            return
        self._forget_if_dead(index)
        problem = self._problem(hello)
        if problem is not None:
            self._unfit.append(hello.wire)
            raise LaunchError(problem)
        self.wires[index], self.met[index] = hello.wire, hello.facts

    def compare(self) -> None:
        """An error if one is not like process 0."""
        for index in sorted(self.wires):
            problem = difference(self.met[0], self.met[index], index)
            if problem is not None:
                raise LaunchError(problem)

    def refuse(self, problem: str) -> None:
        """Tell all that arrived why they cannot start."""
        for wire in (*self.wires.values(), *self._unfit):
            _refuse(wire, problem)

    def _forget_if_dead(self, index: int) -> None:
        wire = self.wires.get(index)
        if wire is not None and wire.ended():
            wire.close()
            self.died.add(index)
            del self.wires[index], self.met[index]

    def _problem(self, hello: _Hello) -> str | None:
        cluster, met, process_id = self._cluster, self.met, hello.process_id
        count, host = hello.num_processes, hello.facts.host
        if count != cluster.num_processes:
            return (
                f"process {process_id} ({host}) expects {count} processes, process 0 "
                f"({met[0].host}) {cluster.num_processes}; {cluster.how_to_count()}"
            )
        if not 0 <= process_id < count:
            return (
                f"process {process_id} ({host}) cannot be: numbers of {count} "
                f"processes go from 0 to {count - 1}; {cluster.how_to_number()}"
            )
        if process_id in met:
            return (
                f"two processes say they are number {process_id}: one on "
                f"{met[process_id].host}, one on {host}; {cluster.how_to_number()}"
            )
        return None


def _missing(cluster: Cluster, here: _Arrivals, timeout: float) -> str:
    met = here.met
    absent = [index for index in range(cluster.num_processes) if index not in met]
    word = "process" if len(absent) == 1 else "processes"
    did = ", ".join(f"{index} ({met[index].host})" for index in sorted(met)[:_SHOWN])
    died = [index for index in absent if index in here.died]
    ended = f", but ended again: {_numbers(died)}" if died else ""
    return (
        f"{word} {_numbers(absent)} of {cluster.num_processes} did not arrive within "
        f"{timeout:g} s (arrived: {did}{', ...' if len(met) > _SHOWN else ''}{ended}); "
        f"{cluster.how_to_start(absent[0])}"
    )


def _numbers(indices: Sequence[int]) -> str:
    more = ", ..." if len(indices) > _SHOWN else ""
    return ", ".join(map(str, indices[:_SHOWN])) + more


# --- The others -----------------------------------------------------------------------


def _join(
    cluster: Cluster, facts: Facts, deadline: float, timeout: float
) -> tuple[dict[int, Wire], list[str]]:
    wire = _connect(cluster, deadline, timeout)
    hello: dict[str, Any] = {
        "process_id": cluster.process_id,
        "num_processes": cluster.num_processes,
        "facts": json.loads(facts.to_json()),
    }
    hello["proof"] = _proof(hello)
    try:
        # Process 0 gives up in time and says why; a little more than its patience.
        wire.patience(timeout + _HELLO_SECONDS)
        wire.send(HELLO, json.dumps(hello).encode())
        kind, payload = wire.receive(_LARGEST_HELLO)
        said = payload.decode(errors="replace")
    except ForeignSpeechError as error:
        wire.close()
        raise LaunchError(_not_ours(cluster)) from error
    except OSError as error:
        wire.close()
        raise LaunchError(
            f"process 0 at {cluster.address} went away during the start "
            f"({error}); its own output says why, or another program holds the port: "
            f"see with: ss -ltnp 'sport = :{cluster.port}' on {cluster.host}"
        ) from error
    if kind != WELCOME:
        wire.close()
        raise LaunchError(said if kind == REFUSED else _not_ours(cluster))
    return {0: wire}, [str(host) for host in json.loads(said)]


def _connect(cluster: Cluster, deadline: float, timeout: float) -> Wire:
    reason = "no answer"
    while True:
        left = deadline - time.monotonic()
        if left <= 0:
            raise LaunchError(_unreachable(cluster, reason, timeout))
        try:
            place = (cluster.host, cluster.port)
            return Wire(socket.create_connection(place, timeout=min(left, 10.0)))
        except TimeoutError:
            reason = "no answer, as from a firewall"
        except OSError as error:  # not up yet, or its name is not known yet
            reason = (error.strerror or str(error)).lower()
            time.sleep(min(_RETRY_SECONDS, max(left, 0.0)))


def _unreachable(cluster: Cluster, reason: str, timeout: float) -> str:
    me = f"process {cluster.process_id} ({socket.gethostname()})"
    return (
        f"{me} cannot reach process 0 at {cluster.address} for {timeout:g} s "
        f"({reason}); start process 0 there, and if it runs, open the port: try nc -vz "
        f"{cluster.host} {cluster.port}; on Google Cloud run: gcloud compute "
        f"firewall-rules create stepjax --allow=tcp:{cluster.port} "
        "--source-ranges=10.0.0.0/8"
    )


def _not_ours(cluster: Cluster) -> str:
    return (
        f"{cluster.address} answers, but is not the start of a run: another program, "
        f"or a run that goes on already, holds the port; see on {cluster.host} with: "
        f"ss -ltnp 'sport = :{cluster.port}', or {cluster.how_to_move()}"
    )


def _proof(said: Mapping[str, Any]) -> str:
    """Shows that who said this knows the secret, without telling it."""
    secret = os.environ.get(SECRET_VARIABLE, "").strip()
    body = json.dumps(said, sort_keys=True)
    return hmac.new(secret.encode(), body.encode(), hashlib.sha256).hexdigest()


def _wrong_secret(cluster: Cluster) -> str:
    return (
        f"process 0 at {cluster.address} has another secret; set {SECRET_VARIABLE} to "
        "the same on every host, or on none"
    )


def _refuse(wire: Wire, problem: str) -> None:
    _try_send(wire, REFUSED, problem.encode())
    wire.close()


def _try_send(wire: Wire, kind: bytes, payload: bytes) -> None:
    try:
        wire.send(kind, payload)
    except OSError:
        pass  # its own output tells why it is gone
