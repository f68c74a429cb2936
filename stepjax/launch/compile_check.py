"""Compiles the real train and acting steps for a TPU that is not there.

`python -m stepjax.launch.compile_check --model qwen2.5-vl-7b --topology v5e:8x8
--mesh.fsdp 16 --mesh.tensor 4` needs the `libtpu` package, one CPU core and about two
gigabytes of memory. It prints what each chip has to hold, compute and send, and exits
with 0 if the run fits, 1 if it does not (with what to change), 2 for a bad command.
"""

import argparse
import contextlib
import dataclasses
import importlib.metadata
import json
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from stepjax.launch.check_acting import check_acting
from stepjax.launch.check_args import (
    batch_shape,
    check_values,
    config_of,
    parse_args,
    workload_of,
)
from stepjax.launch.check_report import print_report, suggestion
from stepjax.launch.collectives import Collective, transfer_seconds
from stepjax.launch.compiling import compile_program
from stepjax.launch.roofline import (
    MeshSizes,
    Round,
    Times,
    optimizer_times,
    pass_times,
    round_times,
)
from stepjax.launch.topologies import Topology, describe_topology
from stepjax.launch.work import train_flops

__all__ = ["check", "main"]


def main(argv: Sequence[str] | None = None) -> int:
    """Check what the command line asks for; the exit code."""
    args = parse_args(argv)
    try:
        result = check(args)
    except (ValueError, ImportError) as error:
        print(f"compile_check: {error}", file=sys.stderr)
        return 2
    if args.json:
        text = json.dumps(result, indent=1) + "\n"
        Path(args.json).write_text(text, encoding="utf-8")
    print_report(result)
    return 0 if result["fits"] else 1


def check(args: argparse.Namespace) -> dict[str, Any]:
    """Compile what is asked for and work out its figures.

    Args:
      args: From `parse_args`.

    Returns:
      What `print_report` prints, and "fits"; of numbers, strings, dicts and lists.

    Raises:
      ValueError: If a setting is wrong, in one line.
      ImportError: If `libtpu` is missing.
    """
    check_values(args)
    topology = describe_topology(args.topology)
    import jax

    from stepjax.launch.programs import device_bytes, train_state_shapes

    config = config_of(args.model)
    mesh = _mesh_of_a_run(args, config, topology)
    sizes = MeshSizes(**mesh.shape)
    settings = _settings(args, config, sizes)
    result: dict[str, Any] = {
        "model": args.model,
        "topology": topology.name,
        "chips": sizes.devices,
        "chip_memory": topology.chip.memory,
        "mesh": dataclasses.asdict(sizes),
        "work": dataclasses.asdict(settings.work),
        "settings": {
            name: getattr(settings, name)
            for name in (
                *("group", "prompts", "single_rows", "micro_batch", "slots"),
                *("group_prompts", "remat", "moments", "attention", "sequence"),
            )
        }
        | {"effort": args.effort, "rows_per_update": args.rows_per_update},
        "versions": {
            "jax": jax.__version__,
            "libtpu": importlib.metadata.version("libtpu"),
        },
        # The train state stays where it is while a process acts.
        "resident": device_bytes(train_state_shapes(config, mesh, settings)),
    }
    with _effort(args.effort):
        if args.only in (None, "train"):
            result["train"] = _train(args, config, topology, sizes, mesh, settings)
            reused = result["train"].get("reused", 0)  # as it lies in memory
            result["resident"] = max(result["resident"], reused)
        if args.only in (None, "act"):
            result["act"] = check_acting(config, topology, mesh, settings)
    result["fits"] = _fits(result)
    result["suggestion"] = None if result["fits"] else suggestion(result)
    if args.only is None and result["fits"]:
        result["round"] = _round(args, result)
    return result


def _mesh_of_a_run(args: argparse.Namespace, config: Any, topology: Topology) -> Any:
    """The mesh that a run makes: devices that act together lie in one process."""
    from stepjax.models.qwen_vl.acting import groups_in_processes
    from stepjax.models.qwen_vl.model import make_qwen_vl
    from stepjax.models.qwen_vl.sharding import check_model_mesh
    from stepjax.training.sharding import make_mesh

    mesh = make_mesh(args.data, args.fsdp, args.tensor, devices=topology.devices)
    if mesh.size == 1:
        return mesh
    check_model_mesh(make_qwen_vl(config), mesh)
    return groups_in_processes(mesh)


def _settings(args: argparse.Namespace, config: Any, sizes: MeshSizes) -> Any:
    from stepjax.launch.programs import ProgramSettings

    micro, single, groups = batch_shape(
        args.rows_per_update, args.rows_per_pass, sizes.shards
    )
    return ProgramSettings(
        work=workload_of(args, config),
        group=args.group,
        prompts=groups,
        single_rows=0 if args.only_groups else single,
        micro_batch=micro,
        slots=args.slots,
        prefill_rows=min(4, args.slots),
        remat=args.remat,
        moments=args.moments,
        attention=args.attention,
        frozen=tuple(args.freeze),
        sequence=not args.no_sequence,
    )


@contextlib.contextmanager
def _effort(name: str) -> Iterator[None]:
    import jax

    setting = "jax_exec_time_optimization_effort"
    before = getattr(jax.config, setting)
    jax.config.update(setting, {"full": before, "quick": -1.0}[name])
    try:
        yield
    finally:
        jax.config.update(setting, before)


def _train(
    args: argparse.Namespace,
    config: Any,
    topology: Topology,
    sizes: MeshSizes,
    mesh: Any,
    settings: Any,
) -> dict[str, Any]:
    from stepjax.launch import programs

    scopes = (programs.GROUP_PASS, programs.SINGLE_PASS)
    lowered = programs.lower_train_step(config, mesh, settings)
    found = compile_program(lowered, sizes.devices, scopes)
    seconds = _link_seconds(found.pop("items"), scopes, topology.chip.link_rate)
    if not settings.single_rows:  # left out: a pass sends weights above all
        seconds[scopes[1]] = seconds[scopes[0]] or seconds[None]
    remat = settings.remat != "none"
    trained = not any("vision" in pattern for pattern in settings.frozen)
    update = -(-args.rows_per_update // settings.group)  # prompts, if all are grouped
    passes = -(-update // settings.micro_batch)
    model, run = train_flops(
        config, settings.work, group=settings.group, remat=remat, vision=trained
    )
    of_group, of_single = (
        pass_times(
            config,
            topology.chip,
            sizes,
            settings.work,
            prompts=settings.micro_batch,
            group=group,
            remat=remat,
            vision=trained,
            scores=settings.attention == "plain",
            link_seconds=seconds[scope],
        )
        for group, scope in zip((settings.group, 1), scopes, strict=True)
    )
    once = optimizer_times(
        config,
        topology.chip,
        sizes,
        moment_bytes=2 if settings.moments == "bfloat16" else 4,
        link_seconds=seconds[None],
    )
    return found | {
        "update_prompts": update,
        "model_flops": update * model,
        "run_flops": update * run,
        "times": dataclasses.asdict(of_group.scaled(passes) + once),
        "group_pass": dataclasses.asdict(of_group),
        "single_pass": dataclasses.asdict(of_single),
        "once": dataclasses.asdict(once),
    }


def _link_seconds(
    items: list[Collective], scopes: tuple[str, str], link_rate: float
) -> dict[str | None, float]:
    """Seconds of a trip of each of the two loops, and of what is outside of them.

    A loop of one trip at most is none to the compiler: it counts as outside.
    """
    if any(item.loop == "" for item in items):
        raise ValueError(
            "the compiled train step has a loop that is neither over groups nor over "
            "single rows, so its transfers cannot be added up; please report it."
        )
    return {
        loop: transfer_seconds(
            [item for item in items if item.loop == loop], link_rate=link_rate
        )
        for loop in (None, *scopes)
    }


def _fits(result: dict[str, Any]) -> bool:
    """Whether all programs fit, the train state staying where it is meanwhile."""
    found = [result[name] for name in ("train", "act") if name in result]
    largest = result.get("train", {}).get("total", 0.0)
    if "act" in result:
        largest = max(largest, result["act"]["total"] + result["resident"])
    refused = any("limit" in program for program in found)
    return largest <= result["chip_memory"] and not refused


def _round(args: argparse.Namespace, result: dict[str, Any]) -> dict[str, float]:
    names = [field.name for field in dataclasses.fields(Round)]
    plan = Round(**{name: getattr(args, f"round_{name}") for name in names})
    train, act, settings = result["train"], result["act"], result["settings"]
    processes = result["chips"] // act["chips"]
    # Slots without an environment decode too.
    busy = min(settings["slots"], plan.environments / processes)
    times = {name: Times(**found) for name, found in act["times"].items()}
    one = 1 / settings["group_prompts"]
    return round_times(
        plan,
        processes=processes,
        prefill=times["prefill"].scaled(1 / act["prefill_rows"]),
        decode=times["decode"].scaled(1 / busy),
        group_prefill=times["group_prefill"].scaled(one),
        group_decode=times["group_decode"].scaled(one),
        rows_per_update=settings["rows_per_update"],
        group=settings["group"],
        micro_batch=settings["micro_batch"],
        group_pass=Times(**train["group_pass"]),
        single_pass=Times(**train["single_pass"]),
        once=Times(**train["once"]),
    )


if __name__ == "__main__":
    sys.exit(main())
