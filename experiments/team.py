"""The processes of a run at work on one round: shares, agreement, rows where needed.

Every process runs the episodes of its own share of the slots, in its own environments.
What credit depends on is small and goes to everybody, so that record, sampler and key
are computed alike everywhere, which a digest asserts each round. Prompts can be large
(screenshots) and stay where they were seen: processes agree on which rows make up each
mini-batch, exactly those a single process would choose, and move only the prompts of
rows that another process's devices must read.
"""

import dataclasses
import hashlib
import json
from collections.abc import Callable, Mapping
from typing import Any

import jax
import numpy as np

from experiments.errors import RunError
from experiments.placement import tree_digest
from stepjax.batching import concatenate_rows, prompt_ids, take_rows
from stepjax.launch.arrays import arrays_to_bytes, bytes_to_arrays
from stepjax.launch.peers import Alone, Peers
from stepjax.rollout.backend import Backend
from stepjax.training.step import Batch
from stepjax.types import StepBatch, Trajectories

__all__ = ["Team"]


class Team:
    """The processes of a run, one of them this one.

    Attributes:
      peers: How they talk.
      leads: True on the one process that writes the run folder.
      alone: True if there is one process only.
    """

    def __init__(
        self, peers: Peers | None = None, *, say: Callable[[str], None] | None = None
    ):
        """A team of `peers`, this process alone by default; `say` is told of waits."""
        self.peers: Peers = Alone() if peers is None else peers
        if say is not None:
            self.peers.say = say
        self.leads = self.peers.index == 0
        self.alone = self.peers.count == 1

    def share(self, total: int) -> slice:
        """The slots of this process among `total`; shares differ by one at most."""
        bounds = np.linspace(0, total, self.peers.count + 1).round().astype(int)
        return slice(int(bounds[self.peers.index]), int(bounds[self.peers.index + 1]))

    # --- Talk -------------------------------------------------------------------------

    def gather(self, label: str, tree: Any) -> Any:
        """Arrays of all processes, joined along the first axis in order of processes.

        Args:
          label: What it is about; all processes must ask in the same order.
          tree: Pytree of arrays that differ in the first axis only.

        Returns:
          A pytree of numpy arrays; `tree` itself if there is one process.
        """
        if self.alone:
            return tree
        said = self.peers.gather(label, arrays_to_bytes(tree))
        parts = [bytes_to_arrays(data, tree) for data in said]
        return jax.tree.map(lambda *leaves: np.concatenate(leaves), *parts)

    def any(self, label: str, wish: bool) -> bool:
        """Whether any process wishes it."""
        return wish if self.alone else b"1" in self._say(label, b"01"[wish : wish + 1])

    def total(self, label: str, numbers: Mapping[str, float]) -> dict[str, float]:
        """Numbers added up over the processes."""
        if self.alone:
            return dict(numbers)
        said = [json.loads(s) for s in self._say(label, json.dumps(numbers).encode())]
        return {name: sum(found.get(name, 0) for found in said) for name in numbers}

    def wait(self, label: str) -> None:
        """Wait until all processes are here."""
        self._say(label, b"")

    def from_leader(self, label: str, data: bytes) -> bytes:
        """What the leading process passes; the others may pass anything."""
        return self._say(label, data if self.leads else b"")[0]

    def assert_same(self, label: str, parts: Mapping[str, Any]) -> None:
        """Nothing if every process holds the same arrays.

        Args:
          label: Where the run is, for messages.
          parts: Pytrees by the name a person would use.

        Raises:
          RunError: If a process holds others; all processes raise the same.
        """
        if self.alone:
            return
        own = {name: tree_digest(tree) for name, tree in parts.items()}
        said = [json.loads(s) for s in self._say(label, json.dumps(own).encode())]
        for index, found in enumerate(said):
            differing = [name for name in own if found.get(name) != said[0].get(name)]
            if differing:
                raise RunError(
                    f"{label}: {self.peers.name(index)} has another {differing[0]} "
                    f"than {self.peers.name(0)}; the last checkpoint is whole: start "
                    "all again with the same command, and if it happens again, report "
                    "it."
                )

    def _say(self, label: str, data: bytes) -> list[bytes]:
        return self.peers.gather(label, data)

    # --- Episodes ---------------------------------------------------------------------

    def collect(
        self,
        backend: Backend,
        params: Any,
        task_ids: np.ndarray,
        seeds: np.ndarray,
        key: jax.Array,
        *,
        temperature: float,
    ) -> Trajectories:
        """Trajectories of this process's share of the slots; see `Backend.collect`.

        A slot's draws depend on its number in the whole round, so the trajectories of
        all processes together are those of a single one.
        """
        mine = self.share(len(task_ids))
        # Backends need not know rounds without episodes: one is run and dropped.
        asked = mine if mine.stop > mine.start else slice(0, 1)
        first = {} if self.alone else {"first_slot": asked.start}
        found = backend.collect(
            params,
            task_ids[asked],
            seeds[asked],
            key,
            temperature=temperature,
            **first,
        )
        count = mine.stop - mine.start
        return jax.tree.map(lambda leaf: leaf[:count], jax.device_get(found))

    # --- Rows -------------------------------------------------------------------------

    def pool_rows(self, label: str, *sets: StepBatch) -> tuple[StepBatch, StepBatch]:
        """The rows of all processes without prompts, and this process's own with them.

        Args:
          label: Where the run is.
          *sets: Sets of rows of this process. Of the result, all rows of the first set
            come first, in order of processes.

        Returns:
          Rows that are equal on all processes, whose prompts are addresses for
          `on_devices`, and this process's rows. Twice the same if it is alone.
        """
        own = concatenate_rows(*sets)
        if self.alone:
            return own, own
        first, addressed = 0, []
        for rows in sets:
            size = len(rows.weight)
            address = {
                "owner": np.full(size, self.peers.index, np.int32),
                "row": np.arange(first, first + size, dtype=np.int32),
            }
            addressed.append(dataclasses.replace(rows, prompt=address))
            first += size
        return concatenate_rows(*self.gather(label, tuple(addressed))), own

    def prompt_ids(self, label: str, rows: StepBatch, own: StepBatch) -> np.ndarray:
        """Numbers that are equal for rows of one prompt, wherever it was seen.

        Args:
          label: Where the run is.
          rows: Of all processes, from `pool_rows`.
          own: The rows of this process, with their prompts.

        Returns:
          [n] int32, the same on every process: `stepjax.batching.prompt_ids` of the
          rows that a single process would hold.
        """
        if self.alone:
            return prompt_ids(rows)
        seen = np.frombuffer(b"".join(_digests(own)), np.uint8).reshape(-1, _DIGEST)
        told = (np.array([len(seen)]), seen)
        sizes, digests = self.gather(label, told)
        first = np.cumsum(sizes) - sizes
        at = first[rows.prompt["owner"]] + rows.prompt["row"]
        return prompt_ids(dataclasses.replace(rows, prompt=digests[at]))

    def on_devices(self, batch: Batch, own: StepBatch, sharding: Any) -> Batch:
        """A batch of addresses as a batch of prompts, on the devices of all processes.

        Args:
          batch: Equal on all processes; prompts are addresses (`pool_rows`). Rows,
            groups of rows that share a prompt, or a tuple of both.
          own: The rows of this process, with their prompts.
          sharding: Of the rows of a batch over the devices.

        Returns:
          Global arrays; `batch` itself if this process is alone. Each process sends a
          prompt only to those whose devices read it and who did not see it themselves.
        """
        if self.alone:
            return batch
        if isinstance(batch, tuple):
            return tuple(self._part_on_devices(part, own, sharding) for part in batch)
        return self._part_on_devices(batch, own, sharding)

    def _part_on_devices(
        self, batch: StepBatch, own: StepBatch, sharding: Any
    ) -> StepBatch:
        readers = _readers(len(batch.weight), sharding)
        live = np.asarray(batch.weight) != 0
        live = live.any(axis=tuple(range(1, live.ndim)))  # of a group, any member
        batch = take_rows(batch, _near_owners(batch.prompt["owner"], live, readers))
        prompt, where = self._prompts_read_here(batch.prompt, own, readers)
        in_order = np.arange(len(where))
        plain = dataclasses.replace(batch, prompt=())
        return dataclasses.replace(
            _to_devices(plain, in_order, sharding),
            prompt=_to_devices(prompt, where, sharding),
        )

    def _prompts_read_here(
        self, address: Mapping[str, np.ndarray], own: StepBatch, readers: np.ndarray
    ) -> tuple[Any, np.ndarray]:
        """Prompts this process's devices read, and [S] where each row's is in them."""
        owner, row = address["owner"], address["row"]
        me, count = self.peers.index, self.peers.count

        def wanted(source: int, target: int) -> np.ndarray:
            """Rows of one process that another reads, each once, ascending."""
            return np.unique(row[readers[target] & (owner == source)])

        sent = [
            arrays_to_bytes(take_rows(own, wanted(me, q)).prompt) if q != me else b""
            for q in range(count)
        ]
        received = self.peers.exchange("prompts", sent)
        mine = np.flatnonzero(readers[me])
        prompt = jax.tree.map(
            lambda leaf: np.empty((len(mine), *np.shape(leaf)[1:]), leaf.dtype),
            own.prompt,
        )
        for q, data in enumerate(received):
            at = np.flatnonzero(owner[mine] == q)
            if q == me:
                found, index = own.prompt, row[mine[at]]
            else:
                found = bytes_to_arrays(data, own.prompt)
                index = np.searchsorted(wanted(q, me), row[mine[at]])
            for whole, part in zip(
                jax.tree.leaves(prompt), jax.tree.leaves(found), strict=True
            ):
                whole[at] = np.asarray(part)[index]
        where = np.full(len(owner), -1)
        where[mine] = np.arange(len(mine))
        return prompt, where


_DIGEST = 16  # bytes


def _digests(rows: StepBatch) -> list[bytes]:
    """What tells the prompts of rows apart, in few bytes each."""
    leaves = [np.asarray(leaf) for leaf in jax.tree.leaves(rows.prompt)]
    found = []
    for row in range(len(rows.weight)):
        digest = hashlib.blake2b(digest_size=_DIGEST)
        for leaf in leaves:
            digest.update(np.ascontiguousarray(leaf[row]).view(np.uint8).data)
        found.append(digest.digest())
    return found


def _to_devices(tree: Any, where: np.ndarray, sharding: Any) -> Any:
    """Global arrays whose row i is `leaf[where[i]]`, for the rows read here."""
    everything = (slice(None),)

    def place(leaf: Any) -> jax.Array:
        host = np.asarray(leaf)
        return jax.make_array_from_callback(
            (len(where), *host.shape[1:]),
            sharding,
            lambda index: host[where[(index or everything)[0]]],
        )

    return jax.tree.map(place, tree)


def _near_owners(owner: np.ndarray, live: np.ndarray, readers: np.ndarray) -> Any:
    """[S] int: an order of the rows in which most are read by who owns them.

    Rows of weight keep to the places of rows with weight; the rest stays.
    """
    order = np.arange(len(owner))
    home = readers.argmax(axis=0)  # the first of the processes that read a place
    rows, places = np.flatnonzero(live), np.flatnonzero(live)
    for process in range(len(readers)):
        own, near = rows[owner[rows] == process], places[home[places] == process]
        fit = min(len(own), len(near))
        order[near[:fit]] = own[:fit]
        rows, places = np.setdiff1d(rows, own[:fit]), np.setdiff1d(places, near[:fit])
    order[places] = rows
    return order


def _readers(size: int, sharding: Any) -> np.ndarray:
    """[processes, S] bool: whose devices read which rows of a batch.

    Processes are counted as by `Peers`, which `launched` lets count as jax does.
    """
    reads = np.zeros((jax.process_count(), size), bool)
    for device, index in sharding.devices_indices_map((size,)).items():
        reads[device.process_index, index[0]] = True
    return reads
