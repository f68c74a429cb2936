"""The simulated desktop for policies that see pictures: each step is drawn.

Episodes run as on real desktops, in a pool of environments. Demonstrations run in one
compiled scan, and only what the demonstrator saw and did is drawn and written down.
"""

import dataclasses
import functools
import hashlib
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from stepjax.envs import sim
from stepjax.envs.actions import Action, ActionKind
from stepjax.envs.base import Observation, Widget
from stepjax.envs.sim.drafts import write_instruction
from stepjax.envs.sim.tasks import practice_drafts, stack_tasks
from stepjax.envs.sim.widgets import list_widgets, spell
from stepjax.envs.sim.world import build_world
from stepjax.rollout.backend import TaskTable
from stepjax.rollout.host import HostBackend
from stepjax.rollout.recorder import Codec

__all__ = ["SimScreensBackend", "demonstrated_states", "sim_action"]

_MOST_STEPS = 15
_TOGETHER = 128  # demonstrations of one compiled scan


def sim_action(
    tokens: np.ndarray, widgets: Sequence[Widget], words: np.ndarray
) -> Action:
    """The action that the simulator's own tokens stand for, by place and by text.

    Args:
      tokens: [3] int. Kind, widget, word of the instruction.
      widgets: What is on the screen.
      words: [I] int. Word ids of the instruction.

    Returns:
      The action. A click is aimed at the middle of its widget, a text at nothing: the
      simulator types into the field that has the focus.
    """
    kind, widget, word = (int(token) for token in tokens)
    meant = ActionKind(kind)
    if meant == ActionKind.TYPE:
        return Action(kind=meant, text=spell(int(words[word])))
    if meant != ActionKind.CLICK:
        return Action(kind=meant)
    left, top, right, bottom = widgets[widget].box
    return Action(kind=meant, x=(left + right) / 2, y=(top + bottom) / 2)


def demonstrated_states(
    pool: sim.SimPool,
    tasks: sim.SimTask,
    seeds: jax.Array,
    key: jax.Array,
    *,
    num_steps: int,
    fallible: bool = True,
) -> tuple[sim.SimState, jax.Array, jax.Array, jax.Array]:
    """Every desktop that a demonstrator passed through, and what it did there.

    Args:
      pool: The simulated world.
      tasks: [M, ...] Stacked tasks.
      seeds: [M] uint32. Seed of each desktop.
      key: Consumed; decides what the demonstrator believes and when it wanders.
      num_steps: L, the most steps of an episode.
      fallible: Whether it errs and wanders, or knows everything.

    Returns:
      States [L, M, ...], tokens [L, M, 3] int32, [L, M] bool for steps that happened,
      and [M] bool for episodes that succeeded.
    """
    keys = jax.random.split(key, seeds.shape[0])
    beliefs = jax.vmap(sim.init_belief, (None, 0, 0))(pool, tasks, keys)
    limit = jnp.minimum(jnp.asarray(tasks.step_limit), num_steps)
    tasks = dataclasses.replace(tasks, step_limit=limit)
    states = jax.vmap(sim.reset, (None, 0, 0))(pool, tasks, seeds)

    def one_step(states: sim.SimState, step: jax.Array):
        running = ~jax.vmap(sim.ended)(states)
        row_keys = jax.vmap(jax.random.fold_in, (0, None))(keys, step)
        if fallible:
            tokens = jax.vmap(sim.demonstrate, (None, 0, 0, 0))(
                pool, states, beliefs, row_keys
            )
        else:
            tokens = jax.vmap(sim.oracle, (None, 0))(pool, states)
        after = jax.vmap(sim.step, (None, 0, 0))(pool, states, tokens)
        return after, (states, tokens, running)

    last, seen = jax.lax.scan(one_step, states, jnp.arange(num_steps))
    return *seen, jax.vmap(sim.success, (None, 0))(pool, last) > 0


class SimScreensBackend(HostBackend):
    """The simulated desktop, drawn, as a backend of the training loop."""

    def __init__(
        self,
        sample_fn: Callable[..., Any],
        *,
        codec: Codec,
        size: tuple[int, int],
        max_steps: int = _MOST_STEPS,
        num_envs: int = 16,
        practice_ids: np.ndarray | None = None,
        **options: Any,
    ):
        """A backend.

        Args:
          sample_fn: See `HostBackend`.
          codec: Encoding that the policy expects; for demonstrations with
            `encode_action`, `tokens_meant` and `remember`.
          size: Width and height of the pictures.
          max_steps: Step limit of an episode.
          num_envs: Desktops side by side.
          practice_ids: Tasks of the pool that are demonstrated, by one who knows; None
            for practice tasks outside the pool, by one who errs.
          **options: Further options of `HostBackend`.

        Raises:
          ValueError: If `max_steps` is above the 15 that the simulator's tasks allow.
        """
        if max_steps > _MOST_STEPS:
            raise ValueError(
                f"SimScreensBackend: max_steps must be <= {_MOST_STEPS}, the "
                f"simulator's own limit, got {max_steps}."
            )
        self._pool, self._size = sim.load_world(), size
        self._shown_ids = practice_ids
        table = sim.task_table()
        names = [field.name for field in dataclasses.fields(TaskTable)]
        super().__init__(
            "sim",
            lambda index: sim.SimEnvironment(
                self._pool, screenshots=True, size=size, max_steps=max_steps
            ),
            TaskTable(**{name: getattr(table, name) for name in names}),
            sample_fn,
            num_envs=num_envs,
            max_steps=max_steps,
            codec=codec,
            **options,
        )

    def demonstrations(self, num_episodes: int, seed: int) -> tuple[Any, np.ndarray]:
        """What a demonstrator did on practice tasks.

        Only episodes in which it succeeded are kept: a small policy that sees pixels
        has enough to learn from those.

        Args:
          num_episodes: Practice episodes.
          seed: Decides the tasks and everything that happens in them.

        Returns:
          Prompts [S, ...] and response tokens [S, A] int32 of all steps.
        """
        fill = -num_episodes % _TOGETHER
        tasks, texts = self._practice(num_episodes, seed)
        tasks = jax.tree.map(
            lambda leaf: np.concatenate([leaf, np.repeat(leaf[:1], fill, 0)]), tasks
        )
        run = _demonstrator(self.max_steps, self._shown_ids is None)
        prompts, tokens = [], []
        for at in range(0, num_episodes, _TOGETHER):
            part = jax.tree.map(lambda leaf, at=at: leaf[at : at + _TOGETHER], tasks)
            seeds = np.arange(at, at + _TOGETHER, dtype=np.uint32)
            key = jax.random.fold_in(jax.random.key(seed), at)
            found = jax.device_get(run(self._pool, part, seeds, key))
            for row in range(min(_TOGETHER, num_episodes - at)):
                if found[3][row]:
                    self._write_down(found, row, texts[at + row], prompts, tokens)
        if not tokens:
            return self._codec.empty_prompt(), np.zeros((0, self._codec.num_tokens))
        stacked = jax.tree.map(lambda *leaves: np.stack(leaves), *prompts)
        return stacked, np.stack(tokens)

    def _practice(self, count: int, seed: int) -> tuple[sim.SimTask, list[str]]:
        """Tasks [count, ...] to demonstrate, as arrays and in words."""
        if self._shown_ids is None:
            world, drafts = build_world(), practice_drafts(count, seed)
            tasks = stack_tasks(world, drafts, np.full(count, -1))
            return tasks, [write_instruction(world, draft) for draft in drafts]
        ids = np.resize(self._shown_ids, count)
        tasks = jax.tree.map(lambda leaf: np.asarray(leaf)[ids], self._pool.tasks)
        return tasks, [self.tasks.instruction(int(number), 0) for number in ids]

    def fingerprint(self) -> str:
        """Digest of the world, the tasks and the encoding."""
        shown = None if self._shown_ids is None else list(map(int, self._shown_ids))
        parts = (self._size, self.max_steps, self._codec, _TOGETHER, shown)
        digest = hashlib.sha256(repr(parts).encode())
        for leaf in jax.tree.leaves(self._pool):
            digest.update(np.ascontiguousarray(leaf).tobytes())
        return digest.hexdigest()

    def _write_down(
        self, found: tuple, row: int, text: str, prompts: list, tokens: list
    ) -> None:
        """One episode's prompts and responses."""
        states, done, ran, _ = found
        codec: Any = self._codec
        history: Sequence[Any] = ()
        width, height = self._size
        for step in np.flatnonzero(ran[:, row]):
            state = jax.tree.map(lambda leaf, at=(step, row): leaf[at], states)
            widgets = list_widgets(self._pool, state)
            seen = Observation(
                instruction=text,
                screenshot=sim.render(self._pool, state, width=width, height=height),
                widgets=widgets,
            )
            action = sim_action(done[step, row], widgets, state.task.words)
            prompt, context = codec.encode(seen, history)
            said = codec.encode_action(action, seen, context)
            if said is None:
                return
            prompts.append(prompt)
            tokens.append(said)
            history = codec.remember(history, said, action, seen, context)


@functools.cache
def _demonstrator(num_steps: int, fallible: bool) -> Callable[..., tuple]:
    return jax.jit(
        functools.partial(demonstrated_states, num_steps=num_steps, fallible=fallible)
    )
