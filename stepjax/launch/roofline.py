"""The least time a step can take on a mesh of chips, and what a round is made of.

Three limits are looked at, each as if the others were free: operations at the chip's
peak, bytes between chip and memory, bytes over links. A step takes at least the largest
of them; if nothing overlaps, their sum.
"""

import dataclasses
import math

from stepjax.launch.chips import Chip
from stepjax.launch.work import (
    Workload,
    cache_bytes,
    forward_flops,
    num_params,
    train_flops,
)
from stepjax.models.qwen_vl.dimensions import QwenVLConfig

__all__ = [
    "MeshSizes",
    "Round",
    "Times",
    "decode_times",
    "optimizer_times",
    "pass_times",
    "prefill_times",
    "round_times",
]


@dataclasses.dataclass(frozen=True, kw_only=True)
class MeshSizes:
    """Devices along each axis of a mesh.

    Attributes:
      data: Along "data".
      fsdp: Along "fsdp".
      tensor: Along "tensor".
    """

    data: int
    fsdp: int
    tensor: int

    @property
    def shards(self) -> int:
        """Parts that rows are split into."""
        return self.data * self.fsdp

    @property
    def devices(self) -> int:
        """All devices."""
        return self.data * self.fsdp * self.tensor


@dataclasses.dataclass(frozen=True, kw_only=True)
class Times:
    """Seconds of a step by each limit, as if the others were free.

    Attributes:
      compute: Operations at the peak rate.
      memory: Bytes from and to a chip's memory.
      links: Bytes over links.
    """

    compute: float
    memory: float
    links: float

    @property
    def least(self) -> float:
        """Seconds if all overlap."""
        return max(self.compute, self.memory, self.links)

    @property
    def bound(self) -> str:
        """Which limit is the largest."""
        return max(dataclasses.asdict(self).items(), key=lambda item: item[1])[0]

    def scaled(self, factor: float) -> "Times":
        """The times of `factor` such steps."""
        return Times(
            compute=factor * self.compute,
            memory=factor * self.memory,
            links=factor * self.links,
        )

    def __add__(self, other: "Times") -> "Times":
        return Times(
            compute=self.compute + other.compute,
            memory=self.memory + other.memory,
            links=self.links + other.links,
        )


@dataclasses.dataclass(frozen=True, kw_only=True)
class Round:
    """What a round of training is expected to hold; the defaults are the paper's.

    Attributes:
      trajectories: Collected in a round.
      turns: Mean steps of a trajectory.
      success: Share of steps that are learned from. An assumption.
      augmented: Share of those whose step gets a group. An assumption.
      environments: Environments at a time.
      turn_seconds: What a step takes an environment, the model apart. An assumption.
    """

    trajectories: int = 256
    turns: float = 15.06
    success: float = 0.35
    augmented: float = 0.15
    environments: int = 128
    turn_seconds: float = 3.0

    @property
    def steps(self) -> float:
        """Steps of a round."""
        return self.trajectories * self.turns

    @property
    def groups(self) -> float:
        """Steps that get a group."""
        return self.steps * self.success * self.augmented

    @property
    def plain(self) -> float:
        """Steps that are learned from alone."""
        return self.steps * self.success * (1 - self.augmented)


def pass_times(
    config: QwenVLConfig,
    chip: Chip,
    mesh: MeshSizes,
    work: Workload,
    *,
    prompts: int,
    group: int,
    remat: bool,
    vision: bool,
    scores: bool,
    link_seconds: float,
) -> Times:
    """Limits of one forward and backward pass of the train step.

    Args:
      config: The model.
      chip: The chip.
      mesh: The mesh.
      work: Shapes.
      prompts: Prompts of the pass, over all devices.
      group: Responses that share a prompt.
      remat: Whether layers are computed again.
      vision: Whether the vision tower learns.
      scores: Whether scores of attention pass through memory: not with a flash kernel.
      link_seconds: From the collectives of the compiled pass.

    Returns:
      The times.
    """
    _, run = train_flops(config, work, group=group, remat=remat, vision=vision)
    passes = 3 if remat else 2
    # Gathered in bfloat16, written and read once per pass; gradients likewise.
    weights = 2 * _count(config) * (2 * passes + 2) / mesh.tensor
    entries = _entry_bytes(config, work, group, mesh.tensor, scores) * (passes + 1)
    moved = weights + -(-prompts // mesh.shards) * entries
    return Times(
        compute=prompts * run / (mesh.devices * chip.flops),
        memory=moved / chip.memory_rate,
        links=link_seconds,
    )


def optimizer_times(
    config: QwenVLConfig,
    chip: Chip,
    mesh: MeshSizes,
    *,
    moment_bytes: int,
    link_seconds: float,
) -> Times:
    """Limits of what an update does once, whatever its passes.

    Args:
      config: The model.
      chip: The chip.
      mesh: The mesh.
      moment_bytes: Bytes of one moment, 4 or 2.
      link_seconds: From the compiled train step's collectives outside its passes.

    Returns:
      The times.
    """
    moved = _count(config) * (4 * 4 + 4 * moment_bytes) / mesh.devices
    return Times(compute=0.0, memory=moved / chip.memory_rate, links=link_seconds)


def prefill_times(
    config: QwenVLConfig,
    chip: Chip,
    mesh: MeshSizes,
    work: Workload,
    *,
    prompts: int,
    scores: bool,
    link_seconds: float,
) -> Times:
    """Limits of reading prompts.

    Args:
      config: The model.
      chip: The chip.
      mesh: Of one process; weights lie whole on each group of `tensor` devices.
      work: Shapes.
      prompts: Prompts at once, over all devices.
      scores: As in `pass_times`.
      link_seconds: From the compiled program's collectives.

    Returns:
      The times.
    """
    read = sum(forward_flops(config, work, group=0, sampling=True).values())
    weights = 2 * _count(config) / mesh.tensor
    local = -(-prompts // mesh.shards)
    moved = weights + local * _entry_bytes(config, work, 0, mesh.tensor, scores)
    return Times(
        compute=prompts * read / (mesh.devices * chip.flops),
        memory=moved / chip.memory_rate,
        links=link_seconds,
    )


def decode_times(
    config: QwenVLConfig,
    chip: Chip,
    mesh: MeshSizes,
    work: Workload,
    *,
    prompts: int,
    group: int,
    link_seconds: float,
) -> Times:
    """Limits of saying `group` responses of full length to each of some prompts.

    Args:
      config: The model.
      chip: The chip.
      mesh: As in `prefill_times`.
      work: Shapes.
      prompts: Prompts at once, over all devices.
      group: Responses to each.
      link_seconds: From the compiled program's collectives.

    Returns:
      The times.
    """
    said = sum(forward_flops(config, work, group=group).values())
    said -= sum(forward_flops(config, work, group=0).values())
    parts = num_params(config)
    spoken = 2 * (parts["layers"] + (parts["head"] or parts["embed"])) / mesh.tensor
    local, slots = -(-prompts // mesh.shards), work.prompt + group * work.response / 2
    split = min(mesh.tensor, config.text.num_kv_heads)
    kept = local * cache_bytes(config, int(slots)) / split
    return Times(
        compute=prompts * said / (mesh.devices * chip.flops),
        memory=work.response * (spoken + kept) / chip.memory_rate,
        links=link_seconds,
    )


def round_times(
    plan: Round,
    *,
    processes: int,
    prefill: Times,
    decode: Times,
    group_prefill: Times,
    group_decode: Times,
    rows_per_update: int,
    group: int,
    micro_batch: int,
    group_pass: Times,
    single_pass: Times,
    once: Times,
) -> dict[str, float]:
    """Least seconds of a round by what it is spent on, the environments' aside.

    Args:
      plan: What a round holds.
      processes: That act, each for its share of the steps.
      prefill: Of a process, for one step.
      decode: Likewise.
      group_prefill: Of a process, for the group of one step.
      group_decode: Likewise, after that.
      rows_per_update: Rows of an update.
      group: Rows of a group.
      micro_batch: Prompts of a pass.
      group_pass: A pass of groups, over all processes.
      single_pass: A pass of rows with prompts of their own.
      once: What an update does once.

    Returns:
      Seconds of "prefill", "decode", "groups" (sampling them) and "train", and of
      "environments" by assumption.
    """
    updates = math.ceil((plan.groups * group + plan.plain) / rows_per_update)
    update = (
        group_pass.scaled(math.ceil(plan.groups / updates / micro_batch))
        + single_pass.scaled(math.ceil(plan.plain / updates / micro_batch))
        + once
    )
    waves = plan.trajectories / plan.environments
    return {
        "prefill": plan.steps / processes * prefill.least,
        "decode": plan.steps / processes * decode.least,
        "groups": plan.groups / processes * (group_prefill.least + group_decode.least),
        "train": updates * update.least,
        "environments": waves * plan.turns * plan.turn_seconds,
    }


def _count(config: QwenVLConfig) -> int:
    return sum(num_params(config).values())


def _entry_bytes(
    config: QwenVLConfig, work: Workload, group: int, tensor: int, scores: bool
) -> float:
    """Bytes that one pass over a row moves, with those of scores or without."""
    text, vision = config.text, config.vision
    tokens = work.prompt + group * max(work.response - 1, 0)
    heads = (2 * text.num_heads + 2 * text.num_kv_heads) * text.head_dim
    wide = 2 * (heads + 3 * text.intermediate_size) / tensor
    moved = text.num_layers * tokens * 2 * (12 * text.hidden_size + wide)
    patches = work.images * (work.height // vision.patch_size)
    patches *= work.width // vision.patch_size
    inner = 2 * (4 * vision.hidden_size + 3 * vision.intermediate_size) / tensor
    moved += vision.depth * patches * 2 * (12 * vision.hidden_size + inner)
    if scores:
        each = 4 * 2 + 2 * 2  # written and read in float32, then in bfloat16
        seen = work.prompt**2 / 2 + group * work.response * work.prompt
        moved += text.num_layers * text.num_heads * seen / tensor * each
        full = len(vision.full_attention_layers) if vision.window_size else vision.depth
        moved += full * vision.num_heads / tensor * float(patches) ** 2 * each
    return moved
