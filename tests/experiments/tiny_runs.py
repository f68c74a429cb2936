"""Runs with a tiny vision-language model: a checkpoint, its arguments, its outcome."""

import dataclasses
import json

import pytest

from experiments import backends, cli
from experiments.presets import PRESETS
from stepjax.envs import sim

PROGRAM = "python -m experiments.osworld"


def parse(*args):
    return cli.parse(PROGRAM, PRESETS, args)[1]


class GenerousEnvironment(sim.SimEnvironment):
    """Episodes of odd seeds succeed, whatever is done."""

    def reset(self, task, seed):
        self.solved = float(seed % 2)
        return super().reset(task, seed)

    def evaluate(self):
        return self.solved


def few_tasks(opened):
    """A function that opens what `opened` does, with four tasks to train on."""

    def few(config, policy, report):
        backend = opened(config, policy, report)
        backend.tasks = dataclasses.replace(
            backend.tasks,
            train_ids=backend.tasks.train_ids[:4],
            unseen_ids=backend.tasks.unseen_ids[:2],
        )
        return backend

    return few


def make_sim_generous(monkeypatch):
    """Gives the simulator six tasks that are solved by every other episode."""
    monkeypatch.setattr(sim, "SimEnvironment", GenerousEnvironment)
    few = few_tasks(backends._open_sim_screens)
    monkeypatch.setattr(backends, "_open_sim_screens", few)


def arguments(checkpoint, run_dir, **more):
    flags = {
        "run-dir": run_dir,
        "rounds": 2,
        "env.backend": "sim",
        "env.max-steps": 2,
        "env.num-envs": 4,
        "policy": "qwen-vl",
        "policy.checkpoint": checkpoint,
        "policy.wording": checkpoint / "wording.txt",
        "policy.max-pixels": 28 * 28 * 24,
        "policy.max-new-tokens": 6,
        "policy.prompt-tokens": 192,
        "policy.past-responses": 1,
        "policy.slots": 4,
        "policy.rows-per-pass": 4,
        "policy.dtype": "float32",
        "policy.remat": "none",
        "algo.method": "step",
        "algo.tasks-per-round": 2,
        "algo.group-size": 4,
        "algo.augment-threshold": 1.0,
        "algo.rows-per-update": 8,
        "optim.learning-rate": 1e-3,
        "mesh.data": -1,
        "eval.every": 2,
        **more,
    }
    return [part for name, value in flags.items() for part in (f"--{name}", str(value))]


def run(args):
    from experiments import osworld

    with pytest.raises(SystemExit) as stop:
        cli.main(PROGRAM, PRESETS, osworld.run, args)
    return stop.value.code


def metrics_of(folder):
    lines = (folder / "metrics.jsonl").read_text().splitlines()
    return [json.loads(line) for line in lines]
