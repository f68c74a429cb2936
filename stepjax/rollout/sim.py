"""Rollouts of the simulated desktop: every desktop of a round in one compiled scan."""

import dataclasses
import functools
import hashlib
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from stepjax.envs import sim
from stepjax.rollout.backend import Frame, TaskTable
from stepjax.types import ScreenPrompt, Trajectories

__all__ = ["SimBackend", "collect_sim", "demonstrate_sim"]

_DEMONSTRATED_TOGETHER = 1024
_MOST_STEPS = 15

SampleFn = Callable[..., tuple[jax.Array, jax.Array, jax.Array]]


def collect_sim(
    sample_fn: SampleFn,
    params: Any,
    pool: sim.SimPool,
    task_ids: jax.Array,
    seeds: jax.Array,
    indices: jax.Array,
    key: jax.Array,
    *,
    num_steps: int,
    temperature: float | jax.Array,
) -> Trajectories:
    """One trajectory of each task, all desktops stepped together.

    Args:
      sample_fn: `sample_fn(params, prompt, keys, *, temperature)`, as in
        `PointerPolicy.sample`.
      params: The policy's parameters.
      pool: The simulated world, from `sim.load_world`.
      task_ids: [M] int32. Task of each trajectory.
      seeds: [M] uint32. Seed of each desktop: layout, misclicks, pop-ups.
      indices: [M] int32. Number of each trajectory in its round; with `key` and the
        step it fixes the policy's draws, whatever else is collected beside it.
      key: Consumed.
      num_steps: L, the most steps of a trajectory.
      temperature: Of the policy; 0 is greedy.

    Returns:
      Trajectories [M, L, ...], all valid.
    """
    tasks = _limited(jax.vmap(sim.take_task, (None, 0))(pool, task_ids), num_steps)
    states = jax.vmap(sim.reset, (None, 0, 0))(pool, tasks, seeds)
    row_keys = jax.vmap(jax.random.fold_in, (None, 0))(key, indices)

    def one_step(states: sim.SimState, step: jax.Array):
        running = ~jax.vmap(sim.ended)(states)
        prompt = jax.vmap(sim.observe, (None, 0))(pool, states)
        keys = jax.vmap(jax.random.fold_in, (0, None))(row_keys, step)
        tokens, mask, log_prob = sample_fn(
            params, prompt, keys, temperature=temperature
        )
        record = {
            "prompt": prompt,
            "action_tokens": tokens,
            "token_mask": mask & running[:, None],
            "log_prob": log_prob,
            "step_mask": running,
            "state_hash": jax.vmap(sim.state_hash, (None, 0))(pool, states),
        }
        return jax.vmap(sim.step, (None, 0, 0))(pool, states, tokens), record

    states, records = jax.lax.scan(one_step, states, jnp.arange(num_steps))
    records = jax.tree.map(lambda leaf: jnp.swapaxes(leaf, 0, 1), records)
    return Trajectories(
        task_id=task_ids,
        reward=jax.vmap(sim.success, (None, 0))(pool, states),
        valid=jnp.ones(task_ids.shape, bool),
        **records,
    )


def demonstrate_sim(
    pool: sim.SimPool,
    tasks: sim.SimTask,
    seeds: jax.Array,
    key: jax.Array,
    *,
    num_steps: int,
) -> tuple[ScreenPrompt, jax.Array, jax.Array]:
    """What the demonstrator saw and did on each task, all desktops stepped together.

    Args:
      pool: The simulated world.
      tasks: [M, ...] Stacked tasks, usually from `sim.practice_tasks`.
      seeds: [M] uint32. Seed of each desktop.
      key: Consumed; decides what the demonstrator believes and when it wanders.
      num_steps: L, the most steps of an episode.

    Returns:
      Prompts [L, M, ...], action tokens [L, M, 3] int32, and [L, M] bool, True for
      steps that happened.
    """
    keys = jax.random.split(key, seeds.shape[0])
    beliefs = jax.vmap(sim.init_belief, (None, 0, 0))(pool, tasks, keys)
    tasks = _limited(tasks, num_steps)
    states = jax.vmap(sim.reset, (None, 0, 0))(pool, tasks, seeds)

    def one_step(states: sim.SimState, step: jax.Array):
        running = ~jax.vmap(sim.ended)(states)
        prompt = jax.vmap(sim.observe, (None, 0))(pool, states)
        row_keys = jax.vmap(jax.random.fold_in, (0, None))(keys, step)
        tokens = jax.vmap(sim.demonstrate, (None, 0, 0, 0))(
            pool, states, beliefs, row_keys
        )
        after = jax.vmap(sim.step, (None, 0, 0))(pool, states, tokens)
        return after, (prompt, tokens, running)

    return jax.lax.scan(one_step, states, jnp.arange(num_steps))[1]


def _limited(tasks: sim.SimTask, num_steps: int) -> sim.SimTask:
    """The tasks with a step limit of at most `num_steps`: episodes end by it."""
    limit = jnp.minimum(jnp.asarray(tasks.step_limit), num_steps)
    return dataclasses.replace(tasks, step_limit=limit)


def _task_table() -> TaskTable:
    table = sim.task_table()
    return TaskTable(
        names=table.names,
        domains=table.domains,
        train_ids=table.train_ids,
        unseen_ids=table.unseen_ids,
        infeasible=table.infeasible,
        instruction=table.instruction,
    )


class SimBackend:
    """The simulated desktop as a backend of the training loop.

    Trajectories are collected in chunks of a fixed size, so that training rounds and
    evaluations of any length share one compilation.

    Attributes:
      name: "sim".
      tasks: The 369 tasks and their splits.
      max_steps: Most steps of a trajectory.
    """

    name = "sim"

    def __init__(
        self, sample_fn: SampleFn, *, max_steps: int = 15, chunk_size: int = 256
    ):
        """Backend that acts with `sample_fn`.

        Args:
          sample_fn: See `collect_sim`.
          max_steps: Most steps of a trajectory.
          chunk_size: Desktops stepped together.

        Raises:
          ValueError: If `max_steps` or `chunk_size` is below 1, or `max_steps` above
            the 15 steps that the simulator's tasks allow.
        """
        if max_steps > _MOST_STEPS:
            raise ValueError(
                f"SimBackend: max_steps must be <= {_MOST_STEPS}, the simulator's own "
                f"limit, got {max_steps}."
            )
        for name, value in {"max_steps": max_steps, "chunk_size": chunk_size}.items():
            if value < 1:
                raise ValueError(f"SimBackend: {name} must be >= 1, got {value}.")
        self.tasks = _task_table()
        self.max_steps = max_steps
        self._chunk_size = chunk_size
        self._pool = sim.load_world()
        self._collect = jax.jit(
            functools.partial(collect_sim, sample_fn, num_steps=max_steps)
        )

    def collect(
        self,
        params: Any,
        task_ids: np.ndarray,
        seeds: np.ndarray,
        key: jax.Array,
        *,
        temperature: float,
        first_slot: int = 0,
    ) -> Trajectories:
        """One trajectory per entry of `task_ids`; see `Backend.collect`."""
        count, size = len(task_ids), self._chunk_size
        fill = -count % size
        task_ids = np.pad(np.asarray(task_ids, np.int32), (0, fill))
        seeds = np.pad(np.asarray(seeds, np.uint32), (0, fill))
        chunks = [
            self._collect(
                params,
                self._pool,
                task_ids[at : at + size],
                seeds[at : at + size],
                np.arange(at, at + size, dtype=np.int32) + np.int32(first_slot),
                key,
                temperature=np.float32(temperature),
            )
            for at in range(0, count, size)
        ]
        whole = jax.tree.map(lambda *parts: np.concatenate(parts)[:count], *chunks)
        return whole

    def demonstrations(
        self, num_episodes: int, seed: int
    ) -> tuple[ScreenPrompt, np.ndarray]:
        """What a fallible demonstrator did on practice tasks, none of them in the pool.

        Args:
          num_episodes: Practice episodes.
          seed: Decides the tasks and everything that happens in them.

        Returns:
          Prompts [S, ...] and action tokens [S, 3] int32 of all steps.
        """
        chunk = (
            _DEMONSTRATED_TOGETHER  # not the chunk size: results must not depend on it
        )
        count = -(-num_episodes // chunk) * chunk
        practice = sim.practice_tasks(count, seed)
        run = jax.jit(functools.partial(demonstrate_sim, num_steps=self.max_steps))
        kept = []
        for at in range(0, count, chunk):
            tasks = jax.tree.map(lambda leaf, at=at: leaf[at : at + chunk], practice)
            seeds = np.arange(at, at + chunk, dtype=np.uint32)
            key = jax.random.fold_in(jax.random.key(seed), at)
            prompt, tokens, ran = jax.device_get(run(self._pool, tasks, seeds, key))
            kept.append(jax.tree.map(lambda leaf, ran=ran: leaf[ran], (prompt, tokens)))
        return jax.tree.map(lambda *parts: np.concatenate(parts), *kept)

    def fingerprint(self) -> str:
        """Digest of the world and its tasks: what a cached warm start depends on."""
        digest = hashlib.sha256(str(self.max_steps).encode())
        depends = (self._pool, sim.practice_tasks(64, seed=0))
        for path, leaf in jax.tree_util.tree_leaves_with_path(depends):
            digest.update(jax.tree_util.keystr(path).encode())
            digest.update(np.ascontiguousarray(leaf).tobytes())
        return digest.hexdigest()

    def replay(self, task_id: int, seed: int, action_tokens: np.ndarray) -> list[Frame]:
        """Pictures of a trajectory, one per action and one of the end."""
        return [
            Frame(
                image=frame.image,
                instruction=frame.instruction,
                action=frame.action,
                box=frame.box,
            )
            for frame in sim.replay_frames(self._pool, task_id, seed, action_tokens)
        ]

    def close(self) -> None:
        """Nothing to release."""
