"""The least time a step can take on a mesh of chips, and what a round is made of.

Three limits are looked at, each as if the others were free: operations at the chip's
peak, bytes between chip and memory, bytes over links. A step takes at least the largest
of them; if nothing overlaps, their sum.
"""

import dataclasses

from stepjax.launch.chips import Chip
from stepjax.launch.work import (
    Workload,
    cache_bytes,
    forward_flops,
    num_params,
    train_flops,
)
from stepjax.models.qwen_vl.dimensions import QwenVLConfig

__all__ = ["MeshSizes", "Round", "Times", "round_times", "sample_times", "train_times"]


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


def train_times(
    config: QwenVLConfig,
    chip: Chip,
    mesh: MeshSizes,
    work: Workload,
    *,
    prompts: int,
    group: int,
    micro_batch: int,
    remat: bool,
    vision: bool,
    scores: bool,
    moment_bytes: int,
    link_seconds: float,
) -> Times:
    """Limits of one optimizer update.

    Args:
      config: The model.
      chip: The chip.
      mesh: The mesh.
      work: Shapes.
      prompts: Prompts of the update.
      group: Responses that share a prompt.
      micro_batch: Prompts of one pass, over all devices.
      remat: Whether layers are computed again.
      vision: Whether the vision tower learns.
      scores: Whether scores of attention pass through memory: not with a flash kernel.
      moment_bytes: Bytes of one moment, 4 or 2.
      link_seconds: From the compiled program's collectives.

    Returns:
      The times.
    """
    _, run = train_flops(config, work, group=group, remat=remat, vision=vision)
    parameters = sum(num_params(config).values())
    passes = 3 if remat else 2
    local = -(-prompts // mesh.shards)
    # Gathered in bfloat16, written and read once per pass; gradients likewise.
    weights = 2 * parameters * (2 * passes + 2) / mesh.tensor
    weights *= -(-prompts // micro_batch)
    entries = _entry_bytes(config, work, group, mesh.tensor, scores) * (passes + 1)
    update = parameters * (4 * 4 + 4 * moment_bytes) / mesh.devices
    moved = weights + local * entries + update
    return Times(
        compute=prompts * run / (mesh.devices * chip.flops),
        memory=moved / chip.memory_rate,
        links=link_seconds,
    )


def sample_times(
    config: QwenVLConfig,
    chip: Chip,
    mesh: MeshSizes,
    work: Workload,
    *,
    prompts: int,
    group: int,
    scores: bool,
    link_seconds: float,
) -> tuple[Times, Times]:
    """Limits of sampling `group` responses to each of `prompts` prompts.

    Args:
      config: The model.
      chip: The chip.
      mesh: The mesh; weights lie whole on each group of `tensor` devices.
      work: Shapes; responses are taken to have their full length.
      prompts: Prompts at once, over all devices.
      group: Responses to each.
      scores: As in `train_times`, in the prefill.
      link_seconds: From the compiled program's collectives; counted with decoding,
        which has nearly all of them.

    Returns:
      Of the prefill, and of decoding.
    """
    peak = mesh.devices * chip.flops
    read = sum(forward_flops(config, work, group=0, sampling=True).values())
    said = sum(forward_flops(config, work, group=group).values())
    said -= sum(forward_flops(config, work, group=0).values())
    parts = num_params(config)
    weights = 2 * sum(parts.values()) / mesh.tensor
    local = -(-prompts // mesh.shards)
    prefill = weights + local * _entry_bytes(config, work, 0, mesh.tensor, scores)
    spoken = 2 * (parts["layers"] + (parts["head"] or parts["embed"])) / mesh.tensor
    slots = work.prompt + group * work.response / 2
    kept = (
        local
        * cache_bytes(config, int(slots))
        / min(mesh.tensor, config.text.num_kv_heads)
    )
    return (
        Times(
            compute=prompts * read / peak, memory=prefill / chip.memory_rate, links=0.0
        ),
        Times(
            compute=prompts * said / peak,
            memory=work.response * (spoken + kept) / chip.memory_rate,
            links=link_seconds,
        ),
    )


def round_times(
    plan: Round,
    *,
    update: Times,
    update_prompts: int,
    single_share: float,
    prefill: Times,
    decode: Times,
    sample_rows: int,
    group_decode: Times,
) -> dict[str, float]:
    """Least seconds of a round by what it is spent on, the environments' aside.

    Args:
      plan: What a round holds.
      update: Of an update of `update_prompts` groups.
      update_prompts: Groups of an update.
      single_share: Operations of a row alone with its prompt, as a share of a group's.
      prefill: Of `sample_rows` prompts.
      decode: Of one response to each.
      sample_rows: Prompts sampled from at once.
      group_decode: Of a group of responses to each.

    Returns:
      Seconds of "prefill", "decode", "groups" (sampling them) and "train", and of
      "environments" by assumption.
    """
    batches, grouped = plan.steps / sample_rows, plan.groups / sample_rows
    trained = (plan.groups + single_share * plan.plain) / update_prompts
    waves = plan.trajectories / plan.environments
    return {
        "prefill": batches * prefill.least,
        "decode": batches * decode.least,
        "groups": grouped * (prefill.least + group_decode.least),
        "train": trained * update.least,
        "environments": waves * plan.turns * plan.turn_seconds,
    }


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
