"""The compile check on several TPU slices, and its table: docs/scaling.md.

Every slice is compiled in a process of its own, minutes of one core each, and its
figures are kept in `runs/scaling`, so that an interrupted table goes on where it
stopped. `--effort quick` plans a little more memory than a run would. Slices with a
star are compiled without single rows, which takes half as long.
"""

import argparse
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from benchmarks.measure import print_table

__all__ = ["run"]

FOLDER = Path("runs/scaling")
MODELS = ("qwen2-vl-7b", "qwen2.5-vl-7b")
COMMON = ("--mesh.tensor", "4", "--effort", "quick")
GROUPS = (*COMMON, "--only-groups")
HALF = (*GROUPS, "--moments", "bfloat16")
SLICES = {
    "v5e:8x8": COMMON,
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


def run(args: argparse.Namespace) -> None:
    """Compile what is not in the folder yet, then print the tables."""
    del args
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
            "update, s at least",
            "bound by",
        ),
        [_program_row(result) for result in found],
    )
    print_table(
        f"A round, in minutes at {EFFICIENCY:.0%} of the roofline",
        (
            "model",
            "slice",
            "chips",
            "prefill",
            "decode",
            "groups",
            "train",
            "model, all",
            "with environments",
        ),
        [_round_row(result) for result in found if "round" in result],
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
    bound = max(times, key=lambda key: times[key])
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
        f"{times[bound]:.2f}",
        bound,
    ]


def _round_row(result: dict[str, Any]) -> list[str]:
    parts = result["round"]
    minutes = {
        name: seconds / 60 / (1 if name == "environments" else EFFICIENCY)
        for name, seconds in parts.items()
    }
    own = sum(value for name, value in minutes.items() if name != "environments")
    return [
        result["model"],
        _slice(result),
        str(result["chips"]),
        *(f"{minutes[name]:.2f}" for name in ("prefill", "decode", "groups", "train")),
        f"{own:.1f}",
        f"{own + minutes['environments']:.1f}",
    ]


def _slice(result: dict[str, Any]) -> str:
    """Its name, with a star if single rows were left out."""
    return result["topology"] + ("" if result["settings"]["single_rows"] else " *")
