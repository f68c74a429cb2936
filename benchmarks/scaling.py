"""The compile check on several TPU slices, and its table: docs/scaling.md.

Every slice is compiled in a process of its own, minutes of one core each, and its
figures are kept in `runs/scaling`, so that an interrupted table goes on where it
stopped. `--effort quick` plans a little more memory than a run would. Slices with a
star are compiled without single rows, which takes half as long. The first table needs
no compiler: what operations and memory alone allow.
"""

import argparse
import json
import math
import subprocess
import sys
from pathlib import Path
from typing import Any

from benchmarks.measure import print_table
from stepjax.launch.check_args import batch_shape, parse_args, workload_of
from stepjax.launch.chips import CHIPS
from stepjax.launch.roofline import (
    MeshSizes,
    Round,
    decode_times,
    optimizer_times,
    pass_times,
    prefill_times,
    round_times,
)
from stepjax.models.qwen_vl.config import PRESETS

__all__ = ["run"]

FOLDER = Path("runs/scaling")
MODELS = ("qwen2-vl-7b", "qwen2.5-vl-7b")
GROUPS = ("--mesh.tensor", "4", "--effort", "quick", "--only-groups")
HALF = (*GROUPS, "--moments", "bfloat16")
SLICES = {
    "v5e:8x8": GROUPS,
    "v5p:2x2x4": GROUPS,
    "v6e:8x8": GROUPS,
    "v6e:4x4": HALF,
    "v5e:16x16": GROUPS,
    "v5e:4x4": HALF,
    "v5p:4x4x4": GROUPS,
}
"""Options by slice; `--only-groups` gives it a star."""

EFFICIENCY = 0.4
"""Share of the roofline that a round is predicted to reach; an assumption."""

_ROUND_COLUMNS = (
    "model",
    "slice",
    "chips",
    "prefill",
    "decode",
    "groups",
    "train",
    "model, all",
    "with environments",
)


def run(args: argparse.Namespace) -> None:
    """Compile what is not in the folder yet, then print the tables."""
    del args
    print_table(
        f"A round without transfers, in minutes at {EFFICIENCY:.0%} of the roofline",
        _ROUND_COLUMNS,
        [
            _round_row(model, name, *_limits(model, name, options))
            for name, options in SLICES.items()
            for model in MODELS
        ],
    )
    FOLDER.mkdir(parents=True, exist_ok=True)
    found = []
    for name, options in SLICES.items():
        for model in MODELS:
            path = FOLDER / f"{model}-{name.replace(':', '-')}.json"
            if not path.exists():
                _check(model, name, options, path)
            if path.exists():
                found.append(json.loads(path.read_text(encoding="utf-8")))
    if not found:
        raise RuntimeError("no slice could be compiled; nothing printed")
    print_table(
        "Programs",
        (
            "model",
            "slice",
            "fsdp x tensor",
            "train, GB a chip",
            "acting, GB a chip",
            "chip",
            "update, PFLOP",
            "s at least: operations",
            "memory",
            "links",
        ),
        [_program_row(result) for result in found],
    )
    print_table(
        f"A round, in minutes at {EFFICIENCY:.0%} of the roofline",
        _ROUND_COLUMNS,
        [
            _round_row(r["model"], _slice(r), r["chips"], r["round"])
            for r in found
            if "round" in r
        ],
    )


def _check(model: str, name: str, options: tuple[str, ...], path: Path) -> None:
    command = [sys.executable, "-m", "stepjax.launch.compile_check"]
    command += ["--model", model, "--topology", name, *options]
    command += ["--json", str(path)]
    print(f"compiling {model} for {name}", file=sys.stderr, flush=True)
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if not path.exists():
        print(done.stderr.strip(), file=sys.stderr, flush=True)


def _program_row(result: dict[str, Any]) -> list[str]:
    train, act, mesh = result["train"], result["act"], result["mesh"]
    times = train["times"]
    beside = act["total"] + result["resident"]
    memory = result["chip_memory"]

    def held(size: float) -> str:
        return f"{size / 1e9:.1f}" + ("" if size <= memory else " (too much)")

    return [
        result["model"],
        _slice(result),
        f"{mesh['fsdp']} x {mesh['tensor']}",
        held(train["total"]),
        held(beside),
        f"{memory / 1e9:.0f}",
        f"{train.get('run_flops', 0) / 1e15:.1f}",
        *(f"{times[name]:.2f}" for name in ("compute", "memory", "links")),
    ]


def _limits(
    model: str, name: str, options: tuple[str, ...]
) -> tuple[int, dict[str, float]]:
    """Chips of a slice, and least seconds of a round by operations and memory alone."""
    args, config = parse_args(["--model", model, *options]), PRESETS[model]
    kind, shape = name.split(":")
    chip, chips = CHIPS[kind], math.prod(map(int, shape.split("x")))
    mesh = MeshSizes(data=1, fsdp=chips // args.tensor, tensor=args.tensor)
    own = MeshSizes(data=1, fsdp=1, tensor=4)  # the chips of a host
    sizes, work = (config, chip, own), workload_of(args, config)
    micro, _, _ = batch_shape(args.rows_per_update, args.rows_per_pass, mesh.shards)
    plan, processes, free = Round(), chips // own.devices, {"link_seconds": 0.0}
    prefill = prefill_times(*sizes, work, prompts=4, scores=False, **free)
    decode = decode_times(*sizes, work, prompts=args.slots, group=1, **free)
    group_prefill = prefill_times(*sizes, work, prompts=8, scores=False, **free)
    others = args.group - 1
    group_decode = decode_times(*sizes, work, prompts=8, group=others, **free)
    of_group, of_single = (
        pass_times(
            config,
            chip,
            mesh,
            work,
            prompts=micro,
            group=size,
            remat=True,
            vision=True,
            scores=False,
            **free,
        )
        for size in (args.group, 1)
    )
    moment_bytes = 2 if args.moments == "bfloat16" else 4
    return chips, round_times(
        plan,
        processes=processes,
        prefill=prefill.scaled(1 / 4),
        decode=decode.scaled(1 / min(args.slots, plan.environments / processes)),
        group_prefill=group_prefill.scaled(1 / 8),
        group_decode=group_decode.scaled(1 / 8),
        rows_per_update=args.rows_per_update,
        group=args.group,
        micro_batch=micro,
        group_pass=of_group,
        single_pass=of_single,
        once=optimizer_times(config, chip, mesh, moment_bytes=moment_bytes, **free),
    )


def _round_row(model: str, name: str, chips: int, parts: dict[str, float]) -> list[str]:
    minutes = {
        name: seconds / 60 / (1 if name == "environments" else EFFICIENCY)
        for name, seconds in parts.items()
    }
    own = sum(value for name, value in minutes.items() if name != "environments")
    return [
        model,
        name,
        str(chips),
        *(f"{minutes[name]:.2f}" for name in ("prefill", "decode", "groups", "train")),
        f"{own:.1f}",
        f"{own + minutes['environments']:.1f}",
    ]


def _slice(result: dict[str, Any]) -> str:
    """Its name, with a star if single rows were left out."""
    return result["topology"] + ("" if result["settings"]["single_rows"] else " *")
