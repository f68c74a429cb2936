"""Compiles the real train, sampling and acting steps for a TPU that is not there.

`python -m stepjax.launch.compile_check --model qwen2.5-vl-7b --topology v5e:8x8
--mesh.fsdp 16 --mesh.tensor 4` needs the `libtpu` package, one CPU core and about two
gigabytes of memory. It prints what each chip has to hold, compute and send, and exits
with 0 if the run fits, 1 if it does not (with what to change), 2 for a bad command.
"""

import argparse
import collections
import contextlib
import dataclasses
import importlib.metadata
import json
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from stepjax.launch.check_args import config_of, parse_args, workload_of
from stepjax.launch.check_report import print_report, suggestion
from stepjax.launch.collectives import transfer_seconds
from stepjax.launch.compiling import compile_program
from stepjax.launch.roofline import (
    MeshSizes,
    Round,
    Times,
    round_times,
    sample_times,
    train_times,
)
from stepjax.launch.topologies import Topology, describe_topology
from stepjax.launch.work import forward_flops, train_flops

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
    topology = describe_topology(args.topology)
    import jax

    from stepjax.launch.programs import ProgramSettings
    from stepjax.training.sharding import make_mesh

    config = config_of(args.model)
    mesh = make_mesh(args.data, args.fsdp, args.tensor, devices=topology.devices)
    sizes = MeshSizes(**mesh.shape)
    work = workload_of(args, config)
    prompts = -(-max(1, args.rows_per_update // args.group) // sizes.shards)
    micro = args.micro_batch or sizes.shards
    prompts = -(-prompts * sizes.shards // micro) * micro
    rows = args.sample_rows or -(-256 // sizes.shards) * sizes.shards
    single = 0 if args.only_groups else -(-args.rows_per_update // micro) * micro
    for name, value in (("--micro-batch", micro), ("--sample-rows", rows)):
        if value % sizes.shards:
            raise ValueError(
                f"{name} {value} is not divisible by data * fsdp = {sizes.shards}; "
                f"choose {-(-value // sizes.shards) * sizes.shards}."
            )
    settings = ProgramSettings(
        work=work,
        group=args.group,
        prompts=prompts,
        single_rows=single,
        micro_batch=micro,
        sample_rows=rows,
        slots=args.slots,
        remat=args.remat,
        moments=args.moments,
        attention=args.attention,
        frozen=tuple(args.freeze),
        sequence=not args.no_sequence,
    )
    result: dict[str, Any] = {
        "model": args.model,
        "topology": topology.name,
        "chips": sizes.devices,
        "chip_memory": topology.chip.memory,
        "mesh": dataclasses.asdict(sizes),
        "work": dataclasses.asdict(work),
        "settings": {
            name: getattr(settings, name)
            for name in (
                *("group", "prompts", "single_rows", "micro_batch"),
                *("sample_rows", "slots", "remat"),
            )
        }
        | {"moments": args.moments, "attention": args.attention}
        | {"effort": args.effort}
        | {"sequence": settings.sequence},
        "versions": {
            "jax": jax.__version__,
            "libtpu": importlib.metadata.version("libtpu"),
        },
    }
    with _effort(args.effort):
        if args.only in (None, "train"):
            result["train"] = _train(config, topology, mesh, sizes, settings)
        if args.only in (None, "sample"):
            result["sample"] = _sample(config, topology, mesh, sizes, settings)
        if args.only in (None, "act"):
            result["act"] = _act(config, topology, mesh, settings)
    result["fits"], result["resident"] = _fits(result)
    result["suggestion"] = None if result["fits"] else suggestion(result)
    if args.only is None and result["fits"]:
        result["round"] = _round(args, config, topology, sizes, settings, result)
    return result


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
    config: Any, topology: Topology, mesh: Any, sizes: MeshSizes, settings: Any
) -> dict[str, Any]:
    from stepjax.launch.programs import lower_train_step

    found = compile_program(lower_train_step(config, mesh, settings), sizes.devices)
    remat, group = settings.remat != "none", settings.group
    trained = not any("vision" in pattern for pattern in settings.frozen)
    model, run = train_flops(
        config, settings.work, group=group, remat=remat, vision=trained
    )
    times = train_times(
        config,
        topology.chip,
        sizes,
        settings.work,
        prompts=settings.prompts,
        group=group,
        micro_batch=settings.micro_batch,
        remat=remat,
        vision=trained,
        scores=settings.attention == "plain",
        moment_bytes=2 if settings.moments == "bfloat16" else 4,
        link_seconds=transfer_seconds(
            found.pop("items"),
            link_rate=topology.chip.link_rate,
            repeats=settings.prompts // settings.micro_batch,
        ),
    )
    return found | {
        "model_flops": settings.prompts * model,
        "run_flops": settings.prompts * run,
        "times": dataclasses.asdict(times),
    }


def _sample(
    config: Any, topology: Topology, mesh: Any, sizes: MeshSizes, settings: Any
) -> dict[str, Any]:
    from stepjax.launch.programs import lower_sampling

    found = compile_program(lower_sampling(config, mesh, settings), sizes.devices)
    seconds = transfer_seconds(found.pop("items"), link_rate=topology.chip.link_rate)
    flops = forward_flops(config, settings.work, group=settings.sample_group)
    prefill, decode = sample_times(
        config,
        topology.chip,
        sizes,
        settings.work,
        prompts=settings.sample_rows,
        group=settings.sample_group,
        scores=settings.attention == "plain",
        link_seconds=seconds,
    )
    total = settings.sample_rows * sum(flops.values())
    return found | {
        "model_flops": total,
        "run_flops": total,
        "prefill": dataclasses.asdict(prefill),
        "decode": dataclasses.asdict(decode),
    }


def _act(config: Any, topology: Topology, mesh: Any, settings: Any) -> dict[str, Any]:
    """The programs of a process whose episodes run; each needs only its own chips."""
    from stepjax.models.qwen_vl.acting import groups_in_processes

    own, where = groups_in_processes(mesh), topology.name
    try:
        found = _compile_acting(config, own, settings)
    except ValueError as error:
        if "limited ICI routing" not in str(error):
            raise
        # For some kinds of chips the compiler wants a slice whole; a host's is enough.
        host = _host_slice(topology)
        own, where = _mesh_on(host, own.shape["tensor"]), host.name
        found = _compile_acting(config, own, settings)
    largest = max(found, key=lambda name: found[name]["total"])
    return (
        found
        | {"total": found[largest]["total"], "largest": largest, "slice": where}
        | {name: found[largest][name] for name in ("limit",) if name in found[largest]}
    )


def _compile_acting(config: Any, mesh: Any, settings: Any) -> dict[str, Any]:
    from stepjax.launch.programs import lower_acting

    lowered = lower_acting(config, mesh, settings)
    found = {name: compile_program(each, 1) for name, each in lowered.items()}
    for program in found.values():
        del program["items"], program["collectives"]
    return found


def _host_slice(topology: Topology) -> Topology:
    """A slice with the chips of one process of `topology`."""
    counts = collections.Counter(d.process_index for d in topology.devices)
    shape = {1: "1x1", 4: "2x2", 8: "2x4"}[counts[0]]
    return describe_topology(f"{topology.chip.name}:{shape}")


def _mesh_on(topology: Topology, tensor: int) -> Any:
    from stepjax.training.sharding import make_mesh

    return make_mesh(1, -1, tensor, devices=topology.devices)


def _fits(result: dict[str, Any]) -> tuple[bool, float]:
    """Whether all programs fit, the train state staying where it is meanwhile."""
    train = result.get("train", {})
    samplers = [result[name] for name in ("sample", "act") if name in result]
    resident = train.get("arguments", 0.0) if samplers else 0.0
    beside = max((found["total"] for found in samplers), default=0.0)
    largest = max(train.get("total", 0.0), beside + resident)
    refused = any("limit" in found for found in (train, *samplers))
    return largest <= result["chip_memory"] and not refused, resident


def _round(
    args: argparse.Namespace,
    config: Any,
    topology: Topology,
    sizes: MeshSizes,
    settings: Any,
    result: dict[str, Any],
) -> dict[str, float]:
    names = [field.name for field in dataclasses.fields(Round)]
    plan = Round(**{name: getattr(args, f"round_{name}") for name in names})
    remat = settings.remat != "none"
    single, group = (
        train_flops(config, settings.work, group=size, remat=remat, vision=True)[1]
        for size in (1, settings.group)
    )
    decode = Times(**result["sample"]["decode"])
    together = sample_times(
        config,
        topology.chip,
        sizes,
        settings.work,
        prompts=settings.sample_rows,
        group=settings.group,
        scores=settings.attention == "plain",
        link_seconds=settings.group * decode.links,
    )[1]
    return round_times(
        plan,
        update=Times(**result["train"]["times"]),
        update_prompts=settings.prompts,
        single_share=single / group,
        prefill=Times(**result["sample"]["prefill"]),
        decode=decode,
        sample_rows=settings.sample_rows,
        group_decode=together,
    )


if __name__ == "__main__":
    sys.exit(main())
