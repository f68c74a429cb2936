"""The command line of a comparison: its own flags, then settings all cells share."""

import argparse
import dataclasses
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from experiments.cli import parse
from experiments.compare_plan import Plan
from experiments.config import (
    METHOD_NAMES,
    AlgoConfig,
    EvalConfig,
    ExperimentConfig,
    OptimizerConfig,
)
from experiments.errors import UsageError, as_usage_error
from experiments.presets import MOBILE_PRESETS, Preset
from experiments.setting_checks import at_least, between, one_of, positive

__all__ = ["PROGRAM", "parse_plan"]

PROGRAM = "python -m experiments.compare"

_PRESET = Preset(
    config=ExperimentConfig(
        run_dir=Path("runs/compare"),
        rounds=64,
        algo=AlgoConfig(temperature=1.0, max_augmented_steps=256),
        optim=OptimizerConfig(learning_rate=1e-3),
    ),
    note="the settings all methods share",
)
_PHONES = Preset(
    config=dataclasses.replace(
        MOBILE_PRESETS["quick"].config,
        rounds=28,
        eval=EvalConfig(every=7, episodes_per_task=2),
    ),
    note="the settings all methods share on phones (--env miniwob-mobile), 28 rounds",
)
_BACKEND = "--env.backend"
_OURS = {
    "seed": "--seeds, a number of seeds",
    "algo.method": "--methods",
    "optim.learning-rate": "--learning-rates",
    "resume": "nothing: finished cells are kept, and others are run",
}


def parse_plan(arguments: Sequence[str]) -> Plan:
    """The comparison that a command line asks for.

    Args:
      arguments: What follows the program's name: the comparison's own flags, and any
        setting of an experiment for all its cells.

    Raises:
      UsageError: If a flag or a value is wrong.
      SystemExit: After `--help`, with code 0.
    """
    own, rest = _parser().parse_known_args(list(arguments))
    for argument in rest:
        name = argument.split("=", 1)[0].removeprefix("--").replace("_", "-")
        instead = _OURS.get(name.removeprefix("no-"))
        if instead is not None:
            raise UsageError(f"--{name} differs between the cells; use {instead}.")
    rest = [_BACKEND + arg[len("--env") :] if arg.partition("=")[0] == "--env" else arg
            for arg in rest]  # fmt: skip
    _, base = parse(PROGRAM, {"compare": _PRESET, "phones": _PHONES}, rest)
    chosen = any(argument.startswith("--eval.every") for argument in rest)
    with as_usage_error(ValueError):
        rates = tuple(sorted(set(_numbers("--learning-rates", own.learning_rates))))
        given = own.shared_learning_rate
        shared = rates[len(rates) // 2] if given is None else given
        plan = Plan(
            base=_evaluated_at_quarters(
                dataclasses.replace(base, run_dir=own.run_dir), chosen
            ),
            methods=tuple(dict.fromkeys(_words(own.methods))),
            seeds=own.seeds,
            grid_seeds=own.seeds if own.grid_seeds is None else own.grid_seeds,
            learning_rates=rates,
            shared_rate=shared,
            s_lows=tuple(sorted(set(_numbers("--s-low", own.s_low)))),
            workers=own.workers,
            report_only=own.report_only,
        )
        _check(plan)
    return plan


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog=PROGRAM,
        allow_abbrev=False,
        description="Train several methods at equal budgets over paired seeds and "
        "write tables and figures of the differences.",
        epilog="Every setting of an experiment may follow and then holds for all "
        "methods, such as --rounds 32 or --env.backend sim; for the list see "
        "python -m experiments.osworld --help.",
        exit_on_error=True,
    )
    parser.add_argument("--methods", default=",".join(METHOD_NAMES), metavar="A,B")
    parser.add_argument("--seeds", type=int, default=6, metavar="N")
    parser.add_argument(
        "--grid-seeds",
        type=int,
        metavar="N",
        help="seeds at the other learning rates than the shared one; default: as many",
    )
    parser.add_argument("--learning-rates", default="1e-3", metavar="X,Y")
    parser.add_argument(
        "--shared-learning-rate",
        type=float,
        metavar="X",
        help="the rate at which all are compared; default: the middle one",
    )
    parser.add_argument(
        "--s-low",
        default="",
        metavar="0.2,0.6,1.0",
        help="augmentation thresholds of STEP for Figure 5; default: no Figure 5",
    )
    parser.add_argument("--run-dir", type=Path, default=Path("runs/compare"))
    parser.add_argument("--workers", type=int, default=2, metavar="N")
    parser.add_argument(
        "--report-only",
        action="store_true",
        help="run nothing; tables and figures of the cells that are finished",
    )
    # argparse would print its usage over several lines.
    parser.error = _fail
    return parser


def _fail(message: str) -> Any:
    raise UsageError(message)


def _words(text: str) -> list[str]:
    return [word.strip() for word in text.split(",") if word.strip()]


def _numbers(flag: str, text: str) -> list[float]:
    try:
        return [float(word) for word in _words(text)]
    except ValueError:
        raise ValueError(
            f"{flag} must be numbers with commas between, got {text!r}."
        ) from None


def _evaluated_at_quarters(base: ExperimentConfig, chosen: bool) -> ExperimentConfig:
    """Rounds at which budgets are compared must be rounds with an evaluation."""
    if base.rounds % 4:
        raise ValueError(
            f"--rounds must be a multiple of 4, got {base.rounds}: success is compared "
            "at a quarter, a half and the whole of the budget."
        )
    quarter = base.rounds // 4
    every = base.eval.every if chosen else math.gcd(quarter, base.eval.every)
    if quarter % every:
        raise ValueError(
            f"--eval.every must divide a quarter of the rounds, {quarter}, got {every}."
        )
    return dataclasses.replace(base, eval=dataclasses.replace(base.eval, every=every))


def _check(plan: Plan) -> None:
    if not plan.methods:
        raise ValueError("--methods must name at least one method.")
    for method in plan.methods:
        one_of("--methods", method, METHOD_NAMES)
    at_least("--seeds", plan.seeds, 1)
    between("--grid-seeds", plan.grid_seeds, 0, plan.seeds)
    at_least("--workers", plan.workers, 1)
    if not plan.learning_rates:
        raise ValueError("--learning-rates must hold at least one number.")
    for rate in plan.learning_rates:
        positive("--learning-rates", rate)
    if plan.shared_rate not in plan.learning_rates:
        known = ", ".join(f"{rate:g}" for rate in plan.learning_rates)
        raise ValueError(
            f"--shared-learning-rate must be one of --learning-rates ({known}), "
            f"got {plan.shared_rate:g}."
        )
    for low in plan.s_lows:
        between("--s-low", low, 0.0, 1.0)
