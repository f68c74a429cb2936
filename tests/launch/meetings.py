"""Several processes of a run, played by threads of one."""

import concurrent.futures
import contextlib
import dataclasses
import socket
from collections.abc import Callable, Iterator, Sequence

from stepjax.launch.cluster import Cluster
from stepjax.launch.peers import ConnectedPeers
from stepjax.launch.preflight import Facts
from stepjax.launch.rendezvous import meet

FACTS = Facts(
    host="host",
    folder="/home/user/stepjax",
    commit="aaa",
    python="3.12",
    packages={"jax": "0.12.0", "numpy": "2.4.6"},
    source={"stepjax/types.py": "1", "experiments/loop.py": "2"},
    settings={"algo.group_size": 16, "seed": 0},
)


def facts(index: int, **changes) -> Facts:
    return dataclasses.replace(FACTS, host=f"host-{index}", **changes)


def free_port() -> int:
    with socket.create_server(("localhost", 0)) as server:
        return server.getsockname()[1]


def cluster(port: int, count: int, index: int) -> Cluster:
    return Cluster(host="localhost", port=port, num_processes=count, process_id=index)


def together(*calls: Callable[[], object]) -> list[object]:
    """What each call returned or raised, all running at once."""

    def outcome(call: Callable[[], object]) -> object:
        try:
            return call()
        except Exception as error:
            return error

    with concurrent.futures.ThreadPoolExecutor(len(calls)) as pool:
        return list(pool.map(outcome, calls))


def meet_all(
    count: int, *, timeout: float = 20.0, known: Sequence[Facts] = (), port: int = 0
) -> list[object]:
    """What `meet` gave or raised in each of `count` processes."""
    port = port or free_port()
    known = list(known) or [facts(index) for index in range(count)]
    return together(
        *(
            lambda index=index: meet(
                cluster(port, count, index), known[index], timeout=timeout
            )
            for index in range(count)
        )
    )


@contextlib.contextmanager
def connected(count: int, heartbeat: float = 20.0) -> Iterator[list[ConnectedPeers]]:
    """Peers that met; `ended` of each lists the codes it would have ended with."""
    peers = []
    for index, (wires, hosts) in enumerate(meet_all(count)):
        codes: list[int] = []
        one = ConnectedPeers(index, hosts, wires, heartbeat=heartbeat, end=codes.append)
        one.ended = codes
        peers.append(one)
    try:
        yield peers
    finally:
        for one in peers:
            one.told()
            for wire in one._wires.values():
                wire.close()
