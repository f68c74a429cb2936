"""The simulated desktop: bare steps a second, with the policy, and a round's time."""

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.measure import best_time, print_table, show_rate, show_time
from stepjax.envs import sim
from stepjax.models.pointer import make_pointer_policy
from stepjax.rollout.sim import SimBackend

__all__ = ["run"]

DESKTOPS = (256, 4096)
STEPS = 15
ROUNDS = 5


def bare_steps(desktops: int) -> float:
    """Steps a second of the environment alone, with arbitrary actions."""
    pool = sim.load_world()
    ids = jnp.arange(desktops) % len(sim.task_table().names)
    tasks = jax.vmap(sim.take_task, (None, 0))(pool, ids)
    states = jax.vmap(sim.reset, (None, 0, 0))(
        pool, tasks, jnp.arange(desktops, dtype=jnp.uint32)
    )
    actions = jax.random.randint(
        jax.random.key(0), (STEPS, desktops, 3), 0, jnp.array([2, 16, 1])
    )

    @jax.jit
    def episode(pool, states, actions):
        step = jax.vmap(sim.step, (None, 0, 0))
        last, _ = jax.lax.scan(lambda s, a: (step(pool, s, a), None), states, actions)
        return jax.vmap(sim.success, (None, 0))(pool, last)

    seconds = best_time(lambda: episode(pool, states, actions), repeats=10)
    return desktops * STEPS / seconds


def policy_steps(desktops: int) -> float:
    """Steps a second with the pointer policy choosing every action."""
    policy = make_pointer_policy()
    backend = SimBackend(policy.sample, max_steps=STEPS, chunk_size=256)
    pool = sim.load_world()
    start = sim.reset(pool, sim.take_task(pool, jnp.int32(0)), jnp.uint32(0))
    blank = jax.tree.map(lambda leaf: leaf[None], sim.observe(pool, start))
    params = policy.init(jax.random.key(0), blank)
    ids = np.arange(desktops, dtype=np.int32) % len(backend.tasks.names)
    seeds = np.arange(desktops, dtype=np.uint32)
    seconds = best_time(
        lambda: (
            backend.collect(
                params, ids, seeds, jax.random.key(1), temperature=1.0
            ).reward
        ),
        repeats=5,
    )
    return desktops * STEPS / seconds


def round_times() -> dict[str, float]:
    """Mean seconds of each part of a round of the default run, first round left out."""
    with tempfile.TemporaryDirectory() as folder:
        subprocess.run(
            [
                *(sys.executable, "-m", "experiments.osworld"),
                *("--run-dir", folder, "--rounds", str(ROUNDS)),
            ],
            check=True,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
        )
        text = Path(folder, "metrics.jsonl").read_text(encoding="utf-8")
    rows = [json.loads(line) for line in text.splitlines()][2:]
    names = sorted({name for row in rows for name in row if name.startswith("time/")})
    return {
        name: float(np.mean([row.get(name, 0.0) for row in rows])) for name in names
    }


def run(args: argparse.Namespace) -> None:
    """Print both tables."""
    del args
    print_table(
        "Simulated desktop, environment steps",
        ("desktops at once", "environment alone", "with the pointer policy"),
        [
            [f"{n:,}", show_rate(bare_steps(n)), show_rate(policy_steps(n))]
            for n in DESKTOPS
        ],
    )
    print_table(
        "A round of `python -m experiments.osworld`, mean after the first",
        ("part", "time"),
        [[name, show_time(seconds)] for name, seconds in round_times().items()],
    )
