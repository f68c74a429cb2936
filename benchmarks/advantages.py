"""Group advantages of step samples, and the whole bookkeeping of a round around them.

Opponents: verl 0.9.1's vectorized function (the strong one) and its default (what most
people run), both called in their own environment, and tunix 0.1.7's formula, retyped.
Rewards are in the hundreds, so that an epsilon of 1e-6 in a denominator, which some add
and we do not, stays below the tolerance of the comparison.
"""

import argparse
import os
import subprocess
import tempfile
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

import stepjax
from benchmarks.measure import best_time, print_table, show_time

__all__ = ["run"]

SIZES = (1_024, 102_400, 1_024_000)
GROUP = 128
NUM_TASKS = 369
TOLERANCE = 1e-6
BYTES = 9  # of a step sample: reward and mask in, advantage out
LARGE = 64 * 2**20  # floats of an array that no cache holds

padded = jax.jit(jax.vmap(stepjax.group_advantages))
copy = jax.jit(lambda rewards, mask: jnp.where(mask, rewards * 2.0, 0.0))


@jax.jit
def pipeline(key, record, rewards, mask, task_ids):
    """Record, advantages and resampling of a round; rewards are [tasks, members]."""
    group_size = rewards.shape[1]
    record = stepjax.update_success_rate(
        record,
        jnp.repeat(task_ids, group_size),
        (rewards > 0.5).reshape(-1),
        mask.reshape(-1),
        group_size=group_size,
    )
    grouped = jax.vmap(stepjax.group_advantages)(rewards, mask)
    weighted = stepjax.success_rate_advantage(
        rewards, jnp.broadcast_to(record.rate[task_ids][:, None], rewards.shape)
    )
    slots, _ = stepjax.resample_tasks(
        key, task_ids, record.rate, group_size=min(group_size, 16)
    )
    return record, grouped, weighted, slots


def tunix_formula(rewards: np.ndarray) -> np.ndarray:
    """`tunix.rl.algo_core.compute_advantages` for equal groups, in numpy."""
    grouped = rewards.reshape(-1, GROUP)
    centered = grouped - grouped.mean(axis=-1, keepdims=True)
    return (centered / (grouped.std(axis=-1, ddof=1, keepdims=True) + 1e-6)).reshape(-1)


def verl_results(python: Path, rewards: np.ndarray) -> dict[str, np.ndarray] | None:
    """Advantages and seconds of verl's two functions; None without verl."""
    if not python.exists():
        return None
    with tempfile.TemporaryDirectory() as folder:
        source, target = Path(folder, "in.npz"), Path(folder, "out.npz")
        groups = np.repeat(np.arange(len(rewards) // GROUP), GROUP)
        np.savez(source, rewards=rewards, groups=groups)
        subprocess.run(
            [
                *(str(python), str(Path(__file__).with_name("verl_advantages.py"))),
                *(str(source), str(target), "20"),
            ],
            check=True,
            env={**os.environ, "VERL_FORCE_DEVICE": "cpu"},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        with np.load(target) as data:
            return dict(data)


def check_equal(name: str, ours: np.ndarray, theirs: np.ndarray) -> None:
    """Nothing, or an error if two implementations disagree."""
    worst = float(np.max(np.abs(ours - theirs)))
    if not worst <= TOLERANCE * max(1.0, float(np.max(np.abs(ours)))):
        raise RuntimeError(f"{name} differs from stepjax by {worst}; nothing timed")


def memory_bandwidth() -> float:
    """Bytes a second, read and written, while a large array is copied."""
    large = jnp.ones(LARGE, jnp.float32)
    seconds = best_time(lambda: _double(large), repeats=10)
    return 2 * large.nbytes / seconds


_double = jax.jit(lambda x: x * 2.0)


def measure(size: int, verl_python: Path, bandwidth: float) -> list[list[str]]:
    """Rows of the table for one number of step samples."""
    rng = np.random.default_rng(0)
    rewards = (rng.random(size) * 1000.0).astype(np.float32)
    groups = size // GROUP
    host_mask = np.ones((groups, GROUP), bool)
    device, mask = jnp.asarray(rewards).reshape(groups, GROUP), jnp.asarray(host_mask)
    ours = np.asarray(padded(device, mask)).reshape(-1)
    check_equal("tunix's formula", ours, tunix_formula(rewards))
    times = {}
    verl = verl_results(verl_python, rewards)
    if verl is not None:
        for name in ("default", "vectorized"):
            check_equal(f"verl's {name} function", ours, verl[name])
            times[f"verl {name}"] = float(verl[f"{name}_seconds"])
    times["tunix formula, numpy"] = best_time(lambda: tunix_formula(rewards))
    times["stepjax, from and to the host"] = best_time(
        lambda: np.asarray(padded(rewards.reshape(groups, GROUP), host_mask))
    )
    ids = jnp.arange(groups, dtype=jnp.int32) % NUM_TASKS
    record, key = stepjax.init_success_rate(NUM_TASKS), jax.random.key(0)
    unit = device / 1000.0
    times["stepjax, whole bookkeeping"] = best_time(
        lambda: pipeline(key, record, unit, mask, ids)
    )
    times["stepjax"] = best_time(lambda: padded(device, mask), repeats=200)
    times["same bytes in and out, in cache"] = best_time(
        lambda: copy(device, mask), repeats=200
    )
    limit = times["same bytes through memory"] = size * BYTES / bandwidth
    against = times.get("verl vectorized")
    return [
        [
            f"{size:,}",
            name,
            show_time(seconds),
            f"{against / seconds:.2f}x" if against else "verl not installed",
            f"{seconds / limit:.1f}x",
        ]
        for name, seconds in times.items()
    ]


def run(args: argparse.Namespace) -> None:
    """Print the table."""
    bandwidth, python = memory_bandwidth(), Path(args.verl_python)
    rows = [row for size in SIZES for row in measure(size, python, bandwidth)]
    print_table(
        f"Group advantages, groups of {GROUP}, float32",
        (
            "step samples",
            "implementation",
            "time",
            "speed / verl vectorized",
            "/ memory",
        ),
        rows,
    )
    print(
        "\n`/ memory`: against the time the same bytes take at "
        f"{bandwidth / 1e9:.1f} GB/s, measured on {LARGE * 4 // 2**20} MiB."
    )
    if not python.exists():
        print(f"\nverl rows are missing: no {python}; scripts/verl_venv.sh")
