"""A tiny vision-language model learns from drawn screens: cloning, then STEP rounds.

    python -m benchmarks.vlm_learning

The model starts from random weights, in a Hugging Face folder as real ones do. It sees
screenshots of the simulator and answers in the language of UI-TARS. The order of things
on the screen differs from episode to episode, so that it must look to succeed. Cloning
ends when each task is solved often enough for rounds to learn from. Printed are shares
of episodes that succeed, greedy and sampled: with random weights, after cloning,
for each round, and at the end.
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
_TASKS = ("libreoffice_impress-143", "os-212")
_UNSEEN = ("libreoffice_impress-154", "gimp-059")
_SHOWN_EACH = 16  # greedy episodes of a task in an evaluation during the run
_SHOWN_LAST = 256  # episodes of a task before and after, greedy and sampled
_SHOWN_CLONED = 64  # episodes of a task between two stretches of cloning
_STRETCHES = 20
_STRETCH = 25  # updates of cloning after the first ones, before it is looked again
_MOST_REPEATS = 4  # of a step whose response is rare


def main() -> None:
    """Run the experiment and print what happens, one JSON object a line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.vlm_learning")
    parser.add_argument("--tasks", nargs="+", default=_TASKS, help="(%(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="(%(default)s)")
    parser.add_argument("--episodes", type=int, default=1536, help="(%(default)s)")
    parser.add_argument("--clone-steps", type=int, default=300, help="(%(default)s)")
    parser.add_argument(
        "--taught",
        type=float,
        default=0.25,
        help="cloning ends when so many sampled episodes of each task succeed "
        "(%(default)s)",
    )
    parser.add_argument("--clone-rate", type=float, default=1e-3, help="(%(default)s)")
    parser.add_argument("--batch-size", type=int, default=64, help="(%(default)s)")
    parser.add_argument("--rounds", type=int, default=150, help="(%(default)s)")
    parser.add_argument(
        "--learning-rate", type=float, default=3e-4, help="(%(default)s)"
    )
    parser.add_argument("--width", type=int, default=64, help="times 16 (%(default)s)")
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
    say(
        tasks=args.tasks,
        instructions=[
            backend.tasks.instruction(int(t), 0) for t in backend.tasks.train_ids
        ],
    )
    say(stage="random weights", **_success(backend, params))
    prompt, tokens = backend.demonstrations(args.episodes, seed=args.seed + 1)
    say(stage="demonstrations", steps=len(tokens))
    chosen = _balanced(tokens)
    prompt, tokens = jax.tree.map(lambda leaf: leaf[chosen], (prompt, tokens))
    tokens = jnp.asarray(tokens)

    def clone(params: Any, stretch: int, steps: int) -> Any:
        return clone_policy(
            policy.evaluate,
            params,
            prompt,
            tokens,
            policy.mask_of(tokens),
            key=jax.random.fold_in(jax.random.key(args.seed + 1), stretch),
            num_steps=steps,
            batch_size=args.batch_size,
            learning_rate=args.clone_rate,
            b2=0.98,
            warmup_steps=steps // 10,
            steps_per_report=_STRETCH,
            report=lambda done, loss: say(update=done, nats_per_token=round(loss, 4)),
        )

    params = clone(params, 0, args.clone_steps)
    for stretch in range(1, _STRETCHES + 1):
        seen = _success(backend, params, _SHOWN_CLONED, first_seed=55_000)
        say(stretch=stretch, **seen)
        if min(seen["sampled_by_task"]) >= args.taught:
            break
        params = clone(params, stretch, _STRETCH)
    else:
        raise RuntimeError(
            f"after {_STRETCHES} stretches of cloning a task still succeeds in less "
            f"than {args.taught:.0%} of episodes; lower --taught or raise "
            "--clone-steps."
        )
    say(stage="cloned", **_success(backend, params))
    result = train(config, backend=backend, policy=policy, start_params=params)
    for line in (result.run_dir / "metrics.jsonl").read_text().splitlines():
        found = json.loads(line)
        kept = ("round", "eval/", "train/success", "augment/steps", "update/")
        say(**{key: value for key, value in found.items() if key.startswith(kept)})
    say(stage="trained", **_success(backend, result.params))
    backend.close()


def _balanced(tokens: np.ndarray) -> np.ndarray:
    """Indices of rows, those of rare responses several times.

    Which row of a menu is right has as many answers as the menu has rows, and is all
    that takes looking; opening the menu and ending the episode have one.
    """
    found = np.unique(tokens, axis=0, return_inverse=True, return_counts=True)
    _, kinds, counts = found
    often = np.clip(counts.max() // counts, 1, _MOST_REPEATS)
    return np.repeat(np.arange(len(tokens)), often[kinds.reshape(-1)])


def _settings(args: argparse.Namespace, folder: Path) -> ExperimentConfig:
    """The run's settings; the checkpoint is written on the way."""
    tiny = PRESETS["tiny-qwen2.5-vl"]
    text = dataclasses.replace(
        tiny.text,
        hidden_size=args.width,
        intermediate_size=2 * args.width,
        num_layers=2,
        num_heads=args.width // 16,
    )
    vision = dataclasses.replace(
        tiny.vision,
        hidden_size=args.width,
        intermediate_size=2 * args.width,
        num_heads=args.width // 16,
        depth=2,
        full_attention_layers=(1,),
    )
    model = dataclasses.replace(tiny, text=text, vision=vision)
    write_tiny_checkpoint(folder / "model", model, plain=True)
    (folder / "wording.txt").write_text("{instruction}", encoding="utf-8")
    return ExperimentConfig(
        run_dir=folder / "run",
        rounds=args.rounds,
        seed=args.seed,
        env=EnvConfig(max_steps=8),
        policy=PolicyConfig(
            name="qwen-vl",
            checkpoint=folder / "model",
            wording=folder / "wording.txt",
            max_pixels=_PIXELS,
            max_new_tokens=17,
            prompt_tokens=96,
            past_responses=0,
            dtype="float32",
            remat="none",
            slots=16,
            coordinates="grid",
            match_pixels=60.0,
        ),
        algo=AlgoConfig(
            tasks_per_round=len(args.tasks),
            method="step_balanced",
            group_size=32,
            temperature=1.0,
            rows_per_update=64,
            max_augmented_steps=16,
        ),
        optim=OptimizerConfig(
            learning_rate=args.learning_rate, warmup_updates=40, b2=0.98
        ),
        mesh=MeshConfig(data=1),
        checkpoint=CheckpointConfig(save_every=args.rounds),
        eval=EvalConfig(every=25, episodes_per_task=_SHOWN_EACH),
    )


def _backend(
    config: ExperimentConfig, policy: Any, args: argparse.Namespace
) -> SimScreensBackend:
    """The simulator with only the tasks that are asked for."""
    shown = policy.codec.prompts
    options = {
        "codec": policy.codec,
        "sampler": policy.sampler,
        "size": (shown.width, shown.height),
        "max_steps": config.env.max_steps,
        "num_envs": 16,
    }
    every = SimScreensBackend(policy.sample, **options).tasks
    ids = np.array([every.names.index(name) for name in args.tasks], np.int32)
    backend = SimScreensBackend(policy.sample, practice_ids=ids, **options)
    others = np.array([every.names.index(name) for name in _UNSEEN], np.int32)
    backend.tasks = dataclasses.replace(every, train_ids=ids, unseen_ids=others)
    return backend


def _success(
    backend: SimScreensBackend,
    params: Any,
    episodes: int = _SHOWN_LAST,
    first_seed: int = 77_000,
) -> dict[str, Any]:
    """Shares of episodes that succeed, greedy and sampled, and by task."""
    task_ids = np.repeat(backend.tasks.train_ids, episodes)
    seeds = (np.arange(len(task_ids)) + first_seed).astype(np.uint32)
    shares: dict[str, Any] = {}
    for name, temperature in (("greedy", 0.0), ("sampled", 1.0)):
        found = backend.collect(
            params, task_ids, seeds, jax.random.key(0), temperature=temperature
        )
        won = (np.asarray(found.reward) > 0).reshape(-1, episodes)
        shares[name] = float(won.mean())
        shares[f"{name}_by_task"] = won.mean(axis=1).tolist()
    return shares


if __name__ == "__main__":
    main()
