"""What a process acts with on its own chips: memory, transfers and times."""

import dataclasses
from typing import Any

from stepjax.launch.collectives import transfer_seconds
from stepjax.launch.compiling import compile_program
from stepjax.launch.roofline import MeshSizes, decode_times, prefill_times
from stepjax.launch.topologies import Topology, describe_topology
from stepjax.models.qwen_vl.engine_sizes import EngineSizes

__all__ = ["check_acting"]

_WANTS_WHOLE = ("limited ICI routing", "Unexpected device_id")
"""What the compiler says of a part of a slice of v5e, and of v6e."""


def check_acting(
    config: Any, topology: Topology, mesh: Any, settings: Any
) -> dict[str, Any]:
    """Compile the programs of a process whose episodes run, for its own chips.

    Args:
      config: The model.
      topology: The slice.
      mesh: Of a run, on the slice.
      settings: A `stepjax.launch.programs.ProgramSettings`.

    Returns:
      The programs by name; "total" and "largest", with what is held beside each;
      "limit" if the compiler refused one; "slice", "chips" and "prefill_rows"; and
      "times" of "prefill" and "decode" while episodes run, "group_prefill" and
      "group_decode" after them.

    Raises:
      ValueError: If the compiler refuses for another reason than memory.
    """
    own, where = mesh, topology
    try:
        found, sizes = _compile(config, own, settings)
    except ValueError as error:
        if not any(words in str(error) for words in _WANTS_WHOLE):
            raise
        # For some kinds of chips the compiler wants a slice whole; a host's is enough.
        where = _host_slice(topology)
        own = _mesh_on(where, mesh.shape["tensor"])
        found, sizes = _compile(config, own, settings)
    seconds = {
        name: transfer_seconds(program.pop("items"), link_rate=topology.chip.link_rate)
        for name, program in found.items()
    }
    largest = max(found, key=lambda name: found[name]["total"])
    limits = [program["limit"] for program in found.values() if "limit" in program]
    return (
        found
        | {"total": found[largest]["total"], "largest": largest}
        | {"slice": where.name, "chips": sizes.devices}
        | {"prefill_rows": settings.prefill_rows}
        | ({"limit": limits[0]} if limits else {})
        | {"times": _times(config, topology, sizes, settings, seconds)}
    )


def _compile(config: Any, mesh: Any, settings: Any) -> tuple[dict[str, Any], MeshSizes]:
    from stepjax.launch.programs import lower_acting
    from stepjax.models.qwen_vl.acting import acting_mesh
    from stepjax.models.qwen_vl.model import make_qwen_vl

    sizes = MeshSizes(**acting_mesh(make_qwen_vl(config), mesh).shape)
    lowered, slots = lower_acting(config, mesh, settings)
    found = {
        name: compile_program(each, sizes.devices) for name, each in lowered.items()
    }
    for program in found.values():
        del program["collectives"]
    found["groups"]["total"] += slots  # still held; the other two have them as argument
    return found, sizes


def _times(
    config: Any,
    topology: Topology,
    sizes: MeshSizes,
    settings: Any,
    seconds: dict[str, float],
) -> dict[str, dict[str, float]]:
    """Of `prefill_rows` prompts, of `slots` whole responses, of `group_prompts` groups.

    Groups have one member already: the step that was taken. Of what their program
    sends, reading has what as many prompts take otherwise, and decoding the rest.
    """
    chip, work, others = topology.chip, settings.work, settings.group - 1
    read = seconds["join"] * settings.group_prompts / settings.prefill_rows
    scores = settings.attention == "plain"
    prefill = prefill_times(
        config,
        chip,
        sizes,
        work,
        prompts=settings.prefill_rows,
        scores=scores,
        link_seconds=seconds["join"],
    )
    calls = -(-work.response // EngineSizes.chunk)
    decode = decode_times(
        config,
        chip,
        sizes,
        work,
        prompts=settings.slots,
        group=1,
        link_seconds=calls * seconds["advance"],
    )
    group_prefill = prefill_times(
        config,
        chip,
        sizes,
        work,
        prompts=settings.group_prompts,
        scores=scores,
        link_seconds=min(read, seconds["groups"]),
    )
    group_decode = decode_times(
        config,
        chip,
        sizes,
        work,
        prompts=settings.group_prompts,
        group=others,
        link_seconds=max(0.0, seconds["groups"] - read),
    )
    found = {"prefill": prefill, "decode": decode}
    found |= {"group_prefill": group_prefill, "group_decode": group_decode}
    return {name: dataclasses.asdict(times) for name, times in found.items()}


def _host_slice(topology: Topology) -> Topology:
    """A slice with the chips of one process of `topology`, in their arrangement."""
    first = min(device.process_index for device in topology.devices)
    places = [d.coords for d in topology.devices if d.process_index == first]
    sizes = [max(axis) - min(axis) + 1 for axis in zip(*places, strict=True)]
    shape = "x".join(map(str, sizes[: topology.chip.dimensions]))
    return describe_topology(f"{topology.chip.name}:{shape}")


def _mesh_on(topology: Topology, tensor: int) -> Any:
    from stepjax.training.sharding import make_mesh

    return make_mesh(1, -1, tensor, devices=topology.devices)
