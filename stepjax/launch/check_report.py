"""What a compile check found, in words."""

import collections
from collections.abc import Mapping
from typing import Any

__all__ = ["print_report", "suggestion"]

_UNITS = ((1e18, "E"), (1e15, "P"), (1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k"))


def print_report(result: Mapping[str, Any]) -> None:
    """Print the figures of `compile_check.check`."""
    mesh, work, settings = result["mesh"], result["work"], result["settings"]
    axes = ", ".join(f"{name} {size}" for name, size in mesh.items())
    print(f"{result['model']} on {result['topology']}: {result['chips']} chips, {axes}")
    print(
        f"prompts of {work['prompt']:,} tokens with {work['images']} screenshot(s) of "
        f"{work['width']} x {work['height']}, responses of {work['response']}"
    )
    if "train" in result:
        print(
            f"\nTrain step: room for {settings['single_rows']} rows alone and "
            f"{settings['prompts']} prompts x {settings['group']} responses, "
            f"{settings['micro_batch']} prompts at a time, moments in "
            f"{settings['moments']}, remat {settings['remat']}"
        )
        _print_train(result["train"], result["chip_memory"], settings)
    if "act" in result:
        _print_acting(result["act"], settings, result)
    if "round" in result:
        print("\nA round takes at least (see docs/scaling.md for what is assumed)")
        for name, seconds in result["round"].items():
            print(f"  {name:13} {seconds:8.1f} s")
    verdict = "fits" if result["fits"] else "does not fit: " + result["suggestion"]
    print(f"\nIt {verdict}" + ("." if result["fits"] else ""))


def suggestion(result: Mapping[str, Any]) -> str:
    """What to change so that a run fits: the first thing that is not done yet.

    Args:
      result: Of `compile_check.check`.

    Returns:
      One sentence.
    """
    mesh, settings = result["mesh"], result["settings"]
    train, memory = result.get("train", {}), result["chip_memory"]
    if train.get("total", 0) <= memory and "limit" not in train:
        found = _acting_suggestion(settings)
    else:
        found = _train_suggestion(mesh, settings)
    return found or (
        "take a slice with more or larger chips (more --mesh.fsdp, or --mesh.tensor as "
        "far as it divides the model's heads)."
    )


def _acting_suggestion(settings: Mapping[str, Any]) -> str | None:
    if settings["slots"] > 1:
        fewer = settings["slots"] // 2
        return (
            f"let fewer responses grow, --slots {fewer} (in a run --policy.slots "
            f"{fewer})."
        )
    return _smaller_moments(settings)


def _train_suggestion(
    mesh: Mapping[str, int], settings: Mapping[str, Any]
) -> str | None:
    shards = mesh["data"] * mesh["fsdp"]
    if mesh["data"] > 1:
        return f"split the state over more chips, --mesh.data 1 --mesh.fsdp {shards}."
    if settings["micro_batch"] > shards:
        return (
            f"take fewer prompts at a time, --rows-per-pass {shards} (in a run "
            f"--policy.rows-per-pass {shards})."
        )
    if settings["remat"] != "full":
        return (
            "compute layers again in the backward pass, --remat full (in a run "
            "--policy.remat full)."
        )
    if not settings["sequence"] and mesh["tensor"] > 1:
        return "split what layers keep, without --no-sequence (as a run does)."
    return _smaller_moments(settings)


def _smaller_moments(settings: Mapping[str, Any]) -> str | None:
    if settings["moments"] == "bfloat16":
        return None
    return (
        "halve the optimizer's moments, --moments bfloat16 (in a run "
        "--optim.moments-dtype bfloat16)."
    )


def _print_train(
    found: Mapping[str, Any], memory: float, settings: Mapping[str, Any]
) -> None:
    if "limit" in found:
        print(
            f"  memory        {_show(found['total'])}B per chip, the compiler stops at "
            f"{_show(found['limit'])}B"
        )
        return
    parts = [f"{name} {_show(found[name])}B" for name in ("arguments", "temporaries")]
    print(
        f"  memory        {_show(found['total'])}B per chip of {_show(memory)}B: "
        + ", ".join(parts)
    )
    for line in _collective_lines(found["collectives"]):
        print(f"  {line}")
    print(f"  compiled in   {found['seconds']:.0f} s")
    print(
        f"  an update of {found['update_prompts']} prompts x {settings['group']} "
        f"responses: {_show(found['model_flops'])}FLOP, "
        f"{_show(found['run_flops'])}FLOP with what is computed again"
    )
    _print_times("time", found["times"])


def _print_acting(
    found: Mapping[str, Any], settings: Mapping[str, Any], result: Mapping[str, Any]
) -> None:
    print(f"\nActing: {settings['slots']} responses under way in each process")
    if found["slice"] != result["topology"]:
        print(
            f"  compiled for  {found['slice']}, the chips of one process: the compiler "
            f"takes no program for a part of {result['topology']}"
        )
    whole = _show(result["chip_memory"])
    for name, does, parts in (
        ("join", "reads prompts", ("prefill",)),
        ("advance", "decodes", ("decode",)),
        ("groups", "groups", ("group_prefill", "group_decode")),
    ):
        program = found[name]
        if "limit" in program:
            said = f"the compiler stops at {_show(program['limit'])}B"
        else:
            said = f"compiled in {program['seconds']:.0f} s"
        total = _show(program["total"] + result["resident"])
        print(
            f"  {does:13} {total}B per chip of {whole}B with the train state beside "
            f"it, {said}"
        )
        for part in () if "limit" in program else parts:
            _print_times(part.replace("_", " "), found["times"][part])


def _collective_lines(items: list[dict[str, Any]]) -> list[str]:
    """One line per kind and group size, largest first."""
    sums: dict[tuple, list[float]] = collections.defaultdict(lambda: [0, 0.0])
    for item in items:
        entry = sums[item["kind"], item["devices"], item["loop"]]
        entry[0] += item["times"]
        entry[1] += item["times"] * item["size"]
    ordered = sorted(sums.items(), key=lambda pair: -pair[1][1])
    return [
        f"{'sends' if index == 0 else '':13} {kind} among {devices}: "
        f"{int(count):,} times, {_show(size)}B"
        + (f" in each {loop.replace('_', ' ')}" if loop else "")
        for index, ((kind, devices, loop), (count, size)) in enumerate(ordered)
    ]


def _print_times(name: str, times: Mapping[str, float]) -> None:
    bound = max(times, key=lambda key: times[key])
    parts = ", ".join(f"{key} {value:.3g}" for key, value in times.items())
    print(
        f"  {name:13} at least {times[bound]:.3g} s, bound by {bound} "
        f"(seconds: {parts})"
    )


def _show(number: float) -> str:
    for size, unit in _UNITS:
        if number >= size:
            return f"{number / size:.3g} {unit}"
    return f"{number:.3g} "
