"""The processes of a run as seen by one of them: exchange of bytes, news of deaths.

Host data goes over the connections of the start, through process 0, and not through
collectives of the devices: it is ragged, processes may wait for each other for many
minutes, and whoever is waited for can be named. A connection that closes, or says
nothing for a while, is a process that died. jax would notice too, after minutes, and
answer with an abort; here the survivors end with one line.
"""

import collections
import contextlib
import os
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Protocol

from stepjax.launch.frames import (
    FAILED,
    PARTS,
    PING,
    Wire,
    join_parts,
    split_parts,
)

__all__ = ["Alone", "ConnectedPeers", "PeerLostError", "Peers"]

_GRACE = 10.0  # seconds for the main thread to end by itself after a loss
_PATIENCE = 20.0  # seconds before a wait is worth a word, and between two words

Say = Callable[[str], None]


class PeerLostError(RuntimeError):
    """Another process ended before the run did; the text is one line."""


class Peers(Protocol):
    """The processes of a run.

    Attributes:
      index: Number of this process, from 0: `jax.process_index()` once jax runs.
      count: How many there are.
      say: Told, in a few words, who is waited for.
    """

    index: int
    count: int
    say: Say

    def name(self, process_id: int) -> str:
        """A process in words."""
        ...

    def gather(self, label: str, data: bytes) -> list[bytes]:
        """What every process passes under this label, in order of the processes.

        All processes must make the same calls in the same order.

        Raises:
          PeerLostError: If a process ended, or made another call.
        """
        ...

    def exchange(self, label: str, parts: Sequence[bytes]) -> list[bytes]:
        """Of every process the part it passes for this one; `parts[q]` goes to q.

        Raises:
          PeerLostError: As `gather`.
        """
        ...


class Alone:
    """The only process of a run.

    Attributes:
      index: 0.
      count: 1.
      say: Never told anything.
    """

    index, count = 0, 1

    def __init__(self):
        """Nobody else."""
        self.say: Say = lambda text: None

    def name(self, process_id: int) -> str:
        """A process in words."""
        return f"process {process_id}"

    def gather(self, label: str, data: bytes) -> list[bytes]:
        """`data`, in a list."""
        del label
        return [data]

    def exchange(self, label: str, parts: Sequence[bytes]) -> list[bytes]:
        """`parts` as they are."""
        del label
        return list(parts)


class ConnectedPeers:
    """Processes connected through process 0, each watching the others live.

    Two numbers tell a process: its place at the start, by which it has its wires and
    its name in messages, and its number, which starts as the same and may be replaced.

    Attributes:
      index: Number of this process.
      count: How many there are.
      hosts: Their hosts, in order of their places.
      say: Told, in a few words, who is waited for; may be replaced.
    """

    def __init__(
        self,
        index: int,
        hosts: Sequence[str],
        wires: Mapping[int, Wire],
        *,
        heartbeat: float,
        end: Callable[[int], None] = os._exit,
    ):
        """Peers over the wires of `meet`; threads watch them from now on.

        Args:
          index: Number of this process.
          hosts: Host of every process.
          wires: As `meet` returns them; owned from now on.
          heartbeat: Seconds of silence after which a process counts as dead.
          end: What ends this process if its main thread cannot; for tests.
        """
        self.index, self.count, self.hosts = index, len(hosts), tuple(hosts)
        self.say: Say = lambda text: None
        self._place, self._places = index, tuple(range(self.count))  # of each number
        self._wires = dict(wires)
        self._end = end
        self._news = threading.Condition()
        self._inbox: dict[int, collections.deque[bytes]] = {
            peer: collections.deque() for peer in self._wires
        }
        self._lost: str | None = None
        self._told = self._closed = False
        for peer, wire in self._wires.items():
            wire.patience(heartbeat)
            self._thread(self._read, peer, wire)
            self._thread(self._beat, wire, heartbeat / 4)

    def name(self, process_id: int) -> str:
        """A process in words, under the number it was started with."""
        return self._name(self._places[process_id])

    def _name(self, place: int) -> str:
        return f"process {place} ({self.hosts[place]})"

    def renumber(self, numbers: Sequence[int]) -> None:
        """Count the processes otherwise from now on; all must do so at the same call.

        Args:
          numbers: New number of each process, in order of the present ones.

        Raises:
          ValueError: If two get the same number, or one none of those that there are.
        """
        if sorted(numbers) != list(range(self.count)):
            raise ValueError(
                f"numbers must be 0 to {self.count - 1}, each once, got "
                f"{list(numbers)}."
            )
        order = [list(numbers).index(number) for number in range(self.count)]
        self._places = tuple(self._places[old] for old in order)
        self.index = numbers[self.index]

    # --- Exchange ---------------------------------------------------------------------

    def gather(self, label: str, data: bytes) -> list[bytes]:
        """See `Peers`."""
        return self._by_number(self._meet(label, [data]))

    def exchange(self, label: str, parts: Sequence[bytes]) -> list[bytes]:
        """See `Peers`."""
        if len(parts) != self.count:
            raise ValueError(f"parts must be {self.count}, one each, got {len(parts)}.")
        by_place = [parts[self._places.index(place)] for place in range(self.count)]
        return self._by_number(self._meet(label, by_place))

    def _by_number(self, found: Sequence[bytes]) -> list[bytes]:
        return [found[place] for place in self._places]

    def _meet(self, label: str, parts: Sequence[bytes]) -> list[bytes]:
        """What each process has for this one; order is by place, not by number."""
        if self._place:
            self._send(0, PARTS, join_parts([label.encode(), *parts]))
            return split_parts(self._take(0, label))
        given = {0: [bytes(part) for part in parts]}
        for peer in sorted(self._wires):
            said, *theirs = split_parts(self._take(peer, label))
            if said != label.encode():
                text = (
                    f"{self._name(peer)} is at {said.decode(errors='replace')!r}, "
                    f"{self._name(0)} at {label!r}: they computed different things; "
                    "start all again with the same command"
                )
                self._lose(text)
                raise self._loss()
            given[peer] = theirs

        def for_peer(peer: int) -> list[bytes]:
            return [
                theirs[0] if len(theirs) == 1 else theirs[peer]
                for theirs in (given[index] for index in range(self.count))
            ]

        for peer in self._wires:
            self._send(peer, PARTS, join_parts(for_peer(peer)))
        return for_peer(0)

    def _send(self, peer: int, kind: bytes, payload: bytes) -> None:
        try:
            self._wires[peer].send(kind, payload)
        except OSError as error:
            self._lose(self._gone(peer, str(error)))
            raise self._loss() from error

    def _take(self, peer: int, label: str) -> bytes:
        began = time.monotonic()
        with self._news:
            while not self._inbox[peer]:
                if self._lost is not None:
                    raise self._loss()
                if not self._news.wait(_PATIENCE):
                    waited = time.monotonic() - began
                    self.say(f"{label}: {self._name(peer)}, for {waited:.0f} s")
            return self._inbox[peer].popleft()

    # --- Life and death ---------------------------------------------------------------

    def lost(self, within: float = 0.0) -> str | None:
        """What is known of a process that ended, waiting up to `within` seconds."""
        with self._news:
            self._news.wait_for(lambda: self._lost is not None, within)
            return self._lost

    def told(self) -> None:
        """The main thread is ending the process and tells why by itself."""
        self._told = True

    def finish(self) -> None:
        """Wait until every process is done; from then on nobody is missed."""
        self.gather("the end of the run", b"")
        self._closed = True

    def fail(self, error: str) -> None:
        """Let the others know that `error` ends this process."""
        if self._closed:
            return
        self._closed = True
        self._tell(f"{self._name(self._place)} stopped: {error}")

    def _read(self, peer: int, wire: Wire) -> None:
        try:
            while True:
                kind, payload = wire.receive()
                if kind == PARTS:
                    with self._news:
                        self._inbox[peer].append(payload)
                        self._news.notify_all()
                elif kind == FAILED:
                    self._lose(payload.decode(errors="replace"))
                    return
        except OSError as error:
            self._lose(self._gone(peer, str(error)))

    def _gone(self, peer: int, how: str) -> str:
        silent = "timed out" in how
        why = "says nothing any more" if silent else "is gone: it was killed or crashed"
        return (
            f"{self._name(peer)} {why}; this process stops too. The last checkpoint is "
            "whole: start all processes again with the same command"
        )

    def _lose(self, text: str) -> None:
        with self._news:
            first = self._set_lost(text)
        if first and self._place == 0:
            self._tell(text)

    def _set_lost(self, text: str) -> bool:
        """Whether this is the first loss; the lock must be held."""
        if self._lost is not None or self._closed:
            return False
        self._lost = text
        self._news.notify_all()
        self._thread(self._end_soon)
        return True

    def _end_soon(self) -> None:
        """End the process though its main thread waits for the dead."""
        deadline = time.monotonic() + _GRACE
        while not self._told and time.monotonic() < deadline:
            time.sleep(0.1)
        with contextlib.suppress(OSError, ValueError):  # nobody may be listening
            if self._told:
                time.sleep(_GRACE)  # for the exit, which may wait for the dead too
            else:
                text = f"{self._name(self._place)}: {self._lost}"
                print(text, file=sys.stderr, flush=True)
            sys.stdout.flush()
        self._end(1)

    def _loss(self) -> PeerLostError:
        return PeerLostError(self._lost or "another process ended")

    def _beat(self, wire: Wire, every: float) -> None:
        # One thread each: while one wire is slow the others must not seem dead.
        while not self._closed and self._lost is None:
            with contextlib.suppress(OSError):  # whoever reads from it tells
                wire.send(PING)
            time.sleep(every)

    def _tell(self, text: str) -> None:
        """Let the others know why this is the end, those that are slow if they can."""

        def tell(wire: Wire) -> None:
            with contextlib.suppress(OSError):  # this is the one that is gone
                wire.send(FAILED, text.encode())

        threads = [self._thread(tell, wire) for wire in self._wires.values()]
        deadline = time.monotonic() + _GRACE / 2
        for thread in threads:
            thread.join(max(deadline - time.monotonic(), 0.0))

    def _thread(
        self, work: Callable[..., None], *arguments: object
    ) -> threading.Thread:
        thread = threading.Thread(
            target=work, args=arguments, daemon=True, name=f"stepjax-{work.__name__}"
        )
        thread.start()
        return thread
