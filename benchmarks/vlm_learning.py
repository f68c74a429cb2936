"""A tiny vision-language model learns from drawn screens: cloning, then STEP rounds.

    python -m benchmarks.vlm_learning

The model starts from random weights, in a Hugging Face folder as real ones do. It sees
screenshots of the simulator and answers in the language of UI-TARS. The order of things
on the screen differs from episode to episode, so that it must look to succeed. Printed
is the share of greedy episodes that succeed: before, after behavior cloning, and after
each round that is evaluated.
"""

import argparse
import dataclasses
import json
import tempfile
import time
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from experiments.config import (
    AlgoConfig,
    CheckpointConfig,
    EnvConfig,
    EvalConfig,
    ExperimentConfig,
    MeshConfig,
    OptimizerConfig,
    PolicyConfig,
)
from experiments.loop import train
from experiments.model_setup import make_model_policy
from stepjax.models.qwen_vl.config import PRESETS
from stepjax.models.qwen_vl.tiny import write_tiny_checkpoint
from stepjax.rollout.sim_screens import SimScreensBackend
from stepjax.training.cloning import clone_policy

__all__ = ["main"]

_PIXELS = 28 * 28 * 60  # 252 x 168
_SHOWN_EACH = 16  # greedy episodes of a task in a test


def main() -> None:
    """Run the experiment and print what happens, one JSON object a line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.vlm_learning")
    parser.add_argument("--tasks", type=int, default=2, help="(%(default)s)")
    parser.add_argument("--goals", type=int, default=1, help="(%(default)s)")
    parser.add_argument("--max-steps", type=int, default=8, help="(%(default)s)")
    parser.add_argument("--episodes", type=int, default=2048, help="(%(default)s)")
    parser.add_argument("--clone-steps", type=int, default=1500, help="(%(default)s)")
    parser.add_argument("--clone-rate", type=float, default=1e-3, help="(%(default)s)")
    parser.add_argument("--batch-size", type=int, default=64, help="(%(default)s)")
    parser.add_argument("--rounds", type=int, default=100, help="(%(default)s)")
    parser.add_argument(
        "--learning-rate", type=float, default=3e-4, help="(%(default)s)"
    )
    parser.add_argument("--width", type=int, default=64, help="times 32 (%(default)s)")
    parser.add_argument("--layers", type=int, default=3, help="(%(default)s)")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        _run(args, Path(folder))


def _run(args: argparse.Namespace, folder: Path) -> None:
    config = _settings(args, folder)
    policy = make_model_policy(config.policy, config.env)
    backend = _backend(config, policy, args)
    began = time.perf_counter()

    def say(**what: Any) -> None:
        what["seconds"] = round(time.perf_counter() - began, 1)
        print(json.dumps(what), flush=True)

    params = policy.load() if policy.load else None
    names = [backend.tasks.names[task] for task in backend.tasks.train_ids]
    say(
        tasks=names,
        instructions=[
            backend.tasks.instruction(int(t), 0) for t in backend.tasks.train_ids
        ],
    )
    say(stage="random weights", success=_success(backend, params))
    prompt, tokens = backend.demonstrations(args.episodes, seed=1)
    say(stage="demonstrations", steps=len(tokens))
    params = clone_policy(
        policy.evaluate,
        params,
        prompt,
        jnp.asarray(tokens),
        policy.mask_of(jnp.asarray(tokens)),
        key=jax.random.key(1),
        num_steps=args.clone_steps,
        batch_size=args.batch_size,
        learning_rate=args.clone_rate,
        b2=0.98,
        report=lambda done, loss: say(update=done, nats_per_token=round(loss, 4)),
    )
    say(stage="cloned", success=_success(backend, params))
    result = train(config, backend=backend, policy=policy, start_params=params)
    for line in (result.run_dir / "metrics.jsonl").read_text().splitlines():
        found = json.loads(line)
        kept = ("round", "eval/", "train/success", "augment/steps", "update/")
        say(**{key: value for key, value in found.items() if key.startswith(kept)})
    say(stage="trained", success=_success(backend, result.params))
    backend.close()


def _settings(args: argparse.Namespace, folder: Path) -> ExperimentConfig:
    """The run's settings; the checkpoint is written on the way."""
    tiny = PRESETS["tiny-qwen2.5-vl"]
    text = dataclasses.replace(
        tiny.text,
        hidden_size=args.width,
        intermediate_size=2 * args.width,
        num_layers=args.layers,
        num_heads=args.width // 16,
    )
    vision = dataclasses.replace(
        tiny.vision,
        hidden_size=args.width,
        intermediate_size=2 * args.width,
        num_heads=args.width // 16,
    )
    model = dataclasses.replace(tiny, text=text, vision=vision)
    write_tiny_checkpoint(folder / "model", model, plain=True)
    (folder / "wording.txt").write_text("{instruction}", encoding="utf-8")
    return ExperimentConfig(
        run_dir=folder / "run",
        rounds=args.rounds,
        env=EnvConfig(max_steps=args.max_steps),
        policy=PolicyConfig(
            name="qwen-vl",
            checkpoint=folder / "model",
            wording=folder / "wording.txt",
            max_pixels=_PIXELS,
            max_new_tokens=24,
            prompt_tokens=160,
            past_responses=0,
            dtype="float32",
            remat="none",
            slots=16,
            coordinates="grid",
            match_pixels=60.0,
        ),
        algo=AlgoConfig(
            tasks_per_round=args.tasks,
            group_size=8,
            temperature=1.0,
            rows_per_update=32,
            max_augmented_steps=16,
        ),
        optim=OptimizerConfig(learning_rate=args.learning_rate),
        mesh=MeshConfig(data=1),
        checkpoint=CheckpointConfig(save_every=args.rounds),
        eval=EvalConfig(every=10, episodes_per_task=_SHOWN_EACH),
    )


def _backend(
    config: ExperimentConfig, policy: Any, args: argparse.Namespace
) -> SimScreensBackend:
    """The simulator with only the first few feasible tasks of so many goals."""
    shown = policy.codec.prompts
    options = {
        "codec": policy.codec,
        "sampler": policy.sampler,
        "size": (shown.width, shown.height),
        "max_steps": config.env.max_steps,
        "num_envs": 16,
    }
    every = SimScreensBackend(policy.sample, **options).tasks
    from stepjax.envs import sim

    goals = np.asarray(sim.load_world().tasks.num_goals)
    fitting = [
        int(task)
        for task in every.train_ids
        if goals[task] == args.goals and not every.infeasible[task]
    ]
    ids = np.array(fitting[: args.tasks], np.int32)
    backend = SimScreensBackend(policy.sample, practice_ids=ids, **options)
    others = np.array(fitting[args.tasks : args.tasks + 2], np.int32)
    backend.tasks = dataclasses.replace(every, train_ids=ids, unseen_ids=others)
    return backend


def _success(backend: SimScreensBackend, params: Any) -> float:
    """Share of greedy episodes that succeed."""
    task_ids = np.repeat(backend.tasks.train_ids, _SHOWN_EACH)
    seeds = (np.arange(len(task_ids)) + 77_000).astype(np.uint32)
    found = backend.collect(params, task_ids, seeds, jax.random.key(0), temperature=0.0)
    return float(np.mean(np.asarray(found.reward) > 0))


if __name__ == "__main__":
    main()
