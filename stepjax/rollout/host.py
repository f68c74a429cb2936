"""Rollouts through a pool of host environments: pages, desktops, phones.

The policy draws step l of trajectory m with `fold_in(fold_in(key, m), l)`. What a
trajectory does therefore depends on its task, its seed and that key alone: not on
which environment ran it, how long that took, or what it was batched with.
"""

import functools
import hashlib
from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np

from stepjax.envs.actions import Action
from stepjax.envs.base import Observation, Task
from stepjax.envs.pool import (
    Deadlines,
    EnvironmentPool,
    EpisodeResult,
    MakeEnvironment,
    Ready,
)
from stepjax.rollout.backend import Frame, TaskTable
from stepjax.rollout.encode import PointerCodec
from stepjax.rollout.frames import frame_of
from stepjax.rollout.guide import HABITS, Demonstrate, Guides, PointerGuides
from stepjax.rollout.recorder import Codec, Recorder
from stepjax.rollout.sampler import PonderingPolicy, Sampler
from stepjax.types import Trajectories

__all__ = ["HostBackend"]

SampleFn = Callable[..., tuple[jax.Array, jax.Array, jax.Array]]


class HostBackend:
    """A backend whose episodes run in a pool of environments.

    Attributes:
      name: What results are reported under.
      tasks: The tasks it offers.
      max_steps: Step limit of an episode.
      pool: The environments.
      results: What became of each episode of the latest `collect`.
    """

    def __init__(
        self,
        name: str,
        make_environment: MakeEnvironment,
        tasks: TaskTable,
        sample_fn: SampleFn,
        *,
        num_envs: int,
        max_steps: int = 15,
        codec: Codec | None = None,
        buckets: Sequence[int] = (8, 16, 32, 64),
        deadlines: Deadlines | None = None,
        max_retries: int = 2,
        report: Callable[[str], None] | None = None,
        demonstrate: Demonstrate | None = None,
        guides: Guides | None = None,
        practice_ids: np.ndarray | None = None,
        sampler: Sampler | None = None,
        draw: Callable[[Observation, Action | None], Frame] = frame_of,
        **pool_options: Any,
    ):
        """A backend; environments start with the first episodes.

        Args:
          name: What results are reported under.
          make_environment: Makes the environment of a place in the pool, given its
            index: an `Environment` or a `VectorEnvironment`.
          tasks: The tasks it offers.
          sample_fn: `sample_fn(params, prompt, keys [S], *, temperature)`, rows
            independent, as in `PointerPolicy.sample`.
          num_envs: Environments, or vector environments, in the pool.
          max_steps: Step limit of an episode.
          codec: Encoding the policy expects; None for the pointer policy's.
          buckets: Batch sizes the policy is compiled for, ascending.
          deadlines: Seconds that calls of the environments may take.
          max_retries: Times an episode is started over after a fault.
          report: Takes lines about faults and about what is waited for.
          demonstrate: `demonstrate(task, observation)`, what one who knows would do;
            for the pointer policy.
          guides: Makes demonstrators, for any policy; instead of `demonstrate`.
          practice_ids: Tasks that are demonstrated; None for the training tasks.
          sampler: Acts instead of `sample_fn`, each environment by itself.
          draw: Makes the pictures of a replay.
          **pool_options: Further options of `EnvironmentPool`.

        Raises:
          ValueError: If a number is out of range.
        """
        if max_steps < 1:
            raise ValueError(f"max_steps must be >= 1, got {max_steps}.")
        if not buckets or list(buckets) != sorted(set(buckets)) or buckets[0] < 1:
            raise ValueError(
                f"buckets must be ascending whole numbers >= 1, got {buckets}."
            )
        self.name = name
        self.tasks = tasks
        self.max_steps = max_steps
        self.results: list[EpisodeResult] = []
        self._codec: Codec = codec or PointerCodec()
        self._buckets = tuple(buckets)
        self._sample_fn = sample_fn
        self._sampler = sampler
        self._first_slot = 0
        self._frame_of = draw
        if guides is None and demonstrate is not None:
            guides = PointerGuides(demonstrate=demonstrate)
        self._guides = guides
        self._practice_ids = tasks.train_ids if practice_ids is None else practice_ids
        self._say = report or (lambda line: None)
        self.pool = EnvironmentPool(
            make_environment,
            num_envs=num_envs,
            deadlines=deadlines,
            max_retries=max_retries,
            batch_size=self._buckets[-1],
            report=report,
            **pool_options,
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
        """One trajectory per entry of `task_ids`; see `Backend.collect`.

        Returns:
          Trajectories [M, L, ...] with numpy leaves. Where an environment failed for
          good, `valid` is False and no step is marked.

        Raises:
          ValueError: If a task id is outside the table, or lengths differ.
          RuntimeError: If nothing but faults comes from the environments.
        """
        heat = np.float32(temperature)
        if self._sampler is not None:
            self._first_slot = first_slot
            self._sampler.start(params, key, temperature=float(heat))
            return self._play(task_ids, seeds, self._sampler)

        def choose(part: list[Ready], recorder: Recorder) -> tuple:
            prompt, rows, steps = recorder.prompts(part, self._bucket(len(part)))
            slots = rows + np.int32(first_slot)
            drawn = _draw(self._sample_fn, params, prompt, key, slots, steps, heat)
            return tuple(map(np.asarray, drawn))

        return self._play(task_ids, seeds, choose)

    def demonstrations(self, num_episodes: int, seed: int) -> tuple[Any, np.ndarray]:
        """What the demonstrator, wandering now and then, did on practice tasks.

        Args:
          num_episodes: Episodes, dealt out evenly over the practice tasks.
          seed: Decides the episodes and when it wanders.

        Returns:
          Prompts [S, ...] and action tokens [S, A] int32 of the steps it meant.

        Raises:
          ValueError: If the backend was made without a demonstrator.
        """
        if self._guides is None:
            raise ValueError(f"backend {self.name} was made without a demonstrator.")
        task_ids = np.resize(self._practice_ids, num_episodes)
        seeds = np.random.default_rng(seed).integers(2**31, size=num_episodes)
        tasks = [
            self._task(int(t), int(s)) for t, s in zip(task_ids, seeds, strict=True)
        ]
        guide = self._guides(tasks, seeds.tolist(), seed=seed)

        def choose(part: list[Ready], recorder: Recorder) -> tuple:
            recorder.prompts(part, self._bucket(len(part)))
            return guide.choose(part, recorder.contexts(part))

        found = self._play(task_ids, seeds, choose)
        meant = np.asarray(found.token_mask).any(axis=-1) & np.asarray(found.step_mask)
        kept = np.asarray(found.valid) & guide.worth_imitating(np.asarray(found.reward))
        meant &= kept[:, None]
        for line in guide.remarks():
            self._say(line)
        if not kept.all():
            failed = f"{np.sum(~kept)} of {num_episodes} demonstrations failed"
            self._say(f"{failed} and are left out")
        return jax.tree.map(
            lambda leaf: np.asarray(leaf)[meant], (found.prompt, found.action_tokens)
        )

    def fingerprint(self) -> str:
        """Digest of the tasks and sizes that demonstrations depend on."""
        habits = HABITS if self._guides is None else self._guides.habits
        parts = (self.name, self.max_steps, self.tasks.names, self._codec, habits)
        practiced = np.asarray(self._practice_ids).tolist()
        return hashlib.sha256(repr((parts, practiced)).encode()).hexdigest()

    def _play(
        self,
        task_ids: np.ndarray,
        seeds: np.ndarray,
        choose: Callable[[list[Ready], Recorder], tuple] | Sampler,
    ) -> Trajectories:
        """Trajectories in which `choose` gives tokens, mask and log-probabilities."""
        task_ids, seeds = np.asarray(task_ids, np.int32), np.asarray(seeds, np.uint32)
        self._check_ids(task_ids, seeds)
        recorder = Recorder(len(task_ids), self.max_steps, self._codec)
        if callable(choose):
            act = self._in_batches(choose, recorder)
        else:
            act = PonderingPolicy(choose, recorder, first_slot=self._first_slot)
        episodes = [
            (self._task(int(task_id), int(seed)), int(seed))
            for task_id, seed in zip(task_ids, seeds, strict=True)
        ]
        self.results = self.pool.run(episodes, act, max_steps=self.max_steps)
        return recorder.trajectories(task_ids, self.results)

    def _in_batches(
        self, choose: Callable[[list[Ready], Recorder], tuple], recorder: Recorder
    ) -> Callable[[list[Ready]], list[Action]]:
        size = self._buckets[-1]

        def act(ready: list[Ready]) -> list[Action]:
            parts = [ready[at : at + size] for at in range(0, len(ready), size)]
            return [
                action
                for part in parts
                for action in recorder.actions(part, *choose(part, recorder))
            ]

        return act

    def replay(self, task_id: int, seed: int, action_tokens: np.ndarray) -> list[Frame]:
        """Pictures of an episode that takes `action_tokens` [L, A], and of its end.

        Raises:
          ValueError: If the task id is outside the table, or there is no action.
          RuntimeError: If the environment fails, retries included.
        """
        tokens = np.asarray(action_tokens, np.int32)
        if tokens.ndim != 2 or not len(tokens):
            raise ValueError(
                f"action_tokens must have shape [L, A] with L >= 1, got {tokens.shape}."
            )
        self._check_ids(np.asarray([task_id]), np.asarray([seed]))
        seen: list[tuple[Observation, Action | None]] = []

        def act(ready: list[Ready]) -> list[Action]:
            step, observation = ready[0].step, ready[0].observation
            _, context = self._codec.encode(observation, ())
            action = self._codec.decode(tokens[step], observation, context)
            seen[step:] = [(observation, action)]
            return [action]

        (result,) = self.pool.run(
            [(self._task(task_id, seed), seed)],
            act,
            max_steps=len(tokens),
            pictures=True,
        )
        if not result.status.valid:
            raise RuntimeError(f"replay of task {task_id} failed: {result.error}")
        if result.final is not None:
            seen.append((result.final, None))
        return [self._frame_of(observation, action) for observation, action in seen]

    def metrics(self) -> dict[str, float]:
        """Totals since the start: episodes by status, faults, replacements, batches."""
        return self.pool.counts.metrics()

    def close(self) -> None:
        """Close the environments, and the sampler if it can be closed."""
        close = getattr(self._sampler, "close", None)
        if close is not None:
            close()
        self.pool.close()

    def _bucket(self, count: int) -> int:
        return next(size for size in self._buckets if size >= count)

    def _task(self, task_id: int, seed: int) -> Task:
        return Task(
            task_id=task_id,
            name=self.tasks.names[task_id],
            instruction=self.tasks.instruction(task_id, seed),
            domain=self.tasks.domains[task_id],
            infeasible=bool(self.tasks.infeasible[task_id]),
        )

    def _check_ids(self, task_ids: np.ndarray, seeds: np.ndarray) -> None:
        if task_ids.ndim != 1 or task_ids.shape != seeds.shape:
            raise ValueError(
                "task_ids and seeds must have the same shape [M], got "
                f"{task_ids.shape} and {seeds.shape}."
            )
        num_tasks = len(self.tasks.names)
        for index in np.flatnonzero((task_ids < 0) | (task_ids >= num_tasks)):
            raise ValueError(
                f"task_ids[{index}] = {task_ids[index]} is outside [0, {num_tasks})."
            )


@functools.partial(jax.jit, static_argnums=0)
def _draw(
    sample_fn: SampleFn,
    params: Any,
    prompt: Any,
    key: jax.Array,
    rows: jax.Array,
    steps: jax.Array,
    temperature: jax.Array,
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """`sample_fn` with each row's key; compiled once per bucket."""

    def key_of(row: jax.Array, step: jax.Array) -> jax.Array:
        return jax.random.fold_in(jax.random.fold_in(key, row), step)

    keys = jax.vmap(key_of)(rows, steps)
    return sample_fn(params, prompt, keys, temperature=temperature)
