"""Processes find each other, and find out whether they can run together.

Process 0 listens on the very port that the run will use later, so a blocked port shows
before anything heavy starts. The others connect, say who they are, and are told either
who takes part or, in one line, what is wrong. The connections stay open: they carry the
heartbeat of the run.
"""

import hashlib
import hmac
import json
import os
import socket
import time
from collections.abc import Mapping
from typing import Any

from stepjax.launch.cluster import Cluster, LaunchError
from stepjax.launch.frames import HELLO, REFUSED, WELCOME, ForeignSpeechError, Wire
from stepjax.launch.preflight import Facts, difference

__all__ = ["SECRET_VARIABLE", "meet"]

SECRET_VARIABLE = "STEPJAX_LAUNCH_SECRET"
"""Environment variable that may hold a secret; only who knows it takes part."""

_LARGEST_HELLO = 4 << 20  # bytes
_HELLO_SECONDS = 10.0  # for one who has connected to say who it is
_RETRY_SECONDS = 0.25
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
    wires: dict[int, Wire] = {}
    met: dict[int, Facts] = {0: facts}
    try:
        with _listen(cluster) as listener:
            while len(met) < cluster.num_processes:
                listener.settimeout(max(deadline - time.monotonic(), 0.01))
                try:
                    connection, _ = listener.accept()
                except TimeoutError:
                    raise LaunchError(_missing(cluster, met, timeout)) from None
                _receive_hello(cluster, Wire(connection), wires, met)
        for process_id in sorted(wires):
            problem = difference(facts, met[process_id], process_id)
            if problem is not None:
                raise LaunchError(problem)
    except LaunchError as error:
        for wire in wires.values():
            _try_send(wire, REFUSED, str(error).encode())
            wire.close()
        raise
    hosts = [met[index].host for index in range(cluster.num_processes)]
    for wire in wires.values():
        _try_send(wire, WELCOME, json.dumps(hosts).encode())
    return wires, hosts


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
            f":{cluster.port}', or choose another: --launch.coordinator "
            f"{cluster.host}:{_next_port(cluster)}"
        ) from error


def _receive_hello(
    cluster: Cluster, wire: Wire, wires: dict[int, Wire], met: dict[int, Facts]
) -> None:
    """Enter one that connected; whoever speaks otherwise is sent away unheard."""
    wire.patience(_HELLO_SECONDS)
    try:
        kind, payload = wire.receive(_LARGEST_HELLO)
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
        return
    problem = None
    if count != cluster.num_processes:
        problem = (
            f"process {process_id} ({facts.host}) expects {count} processes, process 0 "
            f"({met[0].host}) {cluster.num_processes}; give all the same "
            "--launch.num-processes"
        )
    elif not 0 <= process_id < count:
        problem = (
            f"process {process_id} ({facts.host}) cannot be: numbers of {count} "
            f"processes go from 0 to {count - 1}; give it its own --launch.process-id"
        )
    elif process_id in met:
        problem = (
            f"two processes say they are number {process_id}: one on "
            f"{met[process_id].host}, one on {facts.host}; give each its own "
            "--launch.process-id"
        )
    if problem is not None:
        _try_send(wire, REFUSED, problem.encode())
        wire.close()
        raise LaunchError(problem)
    wires[process_id], met[process_id] = wire, facts


def _missing(cluster: Cluster, met: Mapping[int, Facts], timeout: float) -> str:
    absent = [index for index in range(cluster.num_processes) if index not in met]
    names = ", ".join(map(str, absent[:8])) + (", ..." if len(absent) > 8 else "")
    word = "process" if len(absent) == 1 else "processes"
    did = ", ".join(f"{index} ({met[index].host})" for index in sorted(met)[:8])
    return (
        f"{word} {names} of {cluster.num_processes} did not arrive within {timeout:g} s"
        f" (arrived: {did}{', ...' if len(met) > 8 else ''}); "
        f"{cluster.how_to_start(absent[0])}"
    )


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
        f"ss -ltnp 'sport = :{cluster.port}', or choose another: --launch.coordinator "
        f"{cluster.host}:{_next_port(cluster)}"
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


def _next_port(cluster: Cluster) -> int:
    return cluster.port + 1 if cluster.port < 65535 else 1024


def _try_send(wire: Wire, kind: bytes, payload: bytes) -> None:
    try:
        wire.send(kind, payload)
    except OSError:
        pass  # its own output tells why it is gone
