"""Every setting of an experiment, with its unit, its default and its check.

Nothing here imports jax, so that `--help` answers at once.
"""

import dataclasses
import math
from pathlib import Path
from typing import Any

from experiments.env_config import BACKENDS, EnvConfig
from experiments.launch_config import LaunchConfig
from experiments.policy_config import PolicyConfig
from experiments.setting_checks import at_least, between, one_of, positive

__all__ = [
    "BACKENDS",
    "METHOD_NAMES",
    "AlgoConfig",
    "CheckpointConfig",
    "EnvConfig",
    "EvalConfig",
    "ExperimentConfig",
    "LaunchConfig",
    "MeshConfig",
    "OptimizerConfig",
    "PolicyConfig",
    "WarmStartConfig",
    "flat_config",
]

METHOD_NAMES = (
    "t_grpo",
    "t_grpo_many",
    "gigrpo",
    "gigpo",
    "step",
    "step_no_sampling",
    "step_no_augmentation",
    "step_no_both",
    "step_balanced",
)
"""Methods of `experiments.methods`, named here so that a typo is found without jax."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class AlgoConfig:
    """The learning method and its numbers; the defaults are the paper's."""

    method: str = "step"
    """Method: t_grpo, t_grpo_many, gigrpo, gigpo, step, step_no_sampling,
    step_no_augmentation, step_no_both or step_balanced."""

    tasks_per_round: int = 16
    """Tasks drawn in a round, B."""

    group_size: int = 16
    """Trajectories per task and round, N. A round collects B * N trajectories."""

    threshold: float = 0.6
    """Success rate at which a copy of a task is replaced with probability 1/2; tasks
    above 0 and below it are in the cache."""

    sharpness: float = 10.0
    """Steepness of the replacement probability in the success rate."""

    augment_threshold: float = 0.2
    """Success rate up to which the steps of a task get a step-level group."""

    step_group_size: int | None = None
    """Members of a step-level group. None: half of the group size."""

    augment_weight: float | None = None
    """Factor on the advantages of augmented rows. None: the method's own (1 for step,
    0.25 for step_balanced)."""

    max_augmented_steps: int | None = None
    """Most steps augmented in a round, chosen at random above that. None: no limit."""

    max_cache_copies: int | None = None
    """Most extra copies of one cached task in a round. None: the method's own (no limit
    for step, the group size for step_balanced)."""

    unsolved_share: float = 0.0
    """Share of replaced copies that go to tasks never solved. 0 is the paper."""

    temperature: float = 0.7
    """Sampling temperature of training trajectories; evaluation is greedy."""

    clip_eps_low: float = 0.2
    """Clip range of the probability ratio below 1."""

    clip_eps_high: float = 0.3
    """Clip range of the probability ratio above 1."""

    dual_clip: float = 3.0
    """Bound of the loss of rows with negative advantage, in units of the advantage."""

    kl_coef: float = 0.0
    """Weight of the KL divergence (k3) to the policy the run started from."""

    entropy_coef: float = 0.0
    """Weight of the entropy bonus."""

    rows_per_update: int = 256
    """Step samples of one optimizer update, at most."""

    step_return_discount: float = 0.95
    """Discount of step returns, per step (gigpo only)."""

    def __post_init__(self):
        """Check the fields."""
        one_of("algo.method", self.method, METHOD_NAMES)
        at_least("algo.tasks_per_round", self.tasks_per_round, 1)
        if self.group_size < 2:
            raise ValueError(
                "algo.group_size must be >= 2 (a group of one has no baseline), "
                f"got {self.group_size}."
            )
        for name in ("threshold", "augment_threshold", "unsolved_share"):
            between("algo." + name, getattr(self, name), 0.0, 1.0)
        positive("algo.sharpness", self.sharpness)
        self._check_augmentation()
        between("algo.clip_eps_low", self.clip_eps_low, 0.0, 1.0)
        between("algo.clip_eps_high", self.clip_eps_high, 0.0, math.inf)
        if not self.dual_clip > 1.0:
            raise ValueError(f"algo.dual_clip must be > 1, got {self.dual_clip}.")
        positive("algo.temperature", self.temperature)
        for name in ("kl_coef", "entropy_coef"):
            between("algo." + name, getattr(self, name), 0.0, math.inf)
        at_least("algo.rows_per_update", self.rows_per_update, 1)
        between("algo.step_return_discount", self.step_return_discount, 0.0, 1.0)

    def _check_augmentation(self) -> None:
        if self.resolved_step_group_size < 2 and self.method in _AUGMENTING:
            raise ValueError(
                "algo.step_group_size must be >= 2 (the step taken and another), "
                f"got {self.resolved_step_group_size}; None needs algo.group_size >= 4."
            )
        if self.augment_weight is not None:
            between("algo.augment_weight", self.augment_weight, 0.0, math.inf)
        for name in ("max_augmented_steps", "max_cache_copies"):
            if getattr(self, name) is not None:
                at_least("algo." + name, getattr(self, name), 1)

    @property
    def resolved_step_group_size(self) -> int:
        """Members of a step-level group, the step taken included."""
        given = self.step_group_size
        return self.group_size // 2 if given is None else given

    @property
    def trajectories_per_round(self) -> int:
        """Trajectories collected in a round, M = B * N."""
        return self.tasks_per_round * self.group_size


_AUGMENTING = ("step", "step_no_sampling", "step_balanced")


_MOMENTS = ("float32", "bfloat16")


@dataclasses.dataclass(frozen=True, kw_only=True)
class OptimizerConfig:
    """AdamW."""

    learning_rate: float = 3e-4
    """Learning rate, constant after the warm-up. Suits the small policy; a 7B policy
    wants about 1e-6."""

    warmup_updates: int = 0
    """Updates in which the learning rate rises. Adam's first updates move every
    parameter as far as the rate allows, also where the gradient is noise."""

    weight_decay: float = 0.01
    """Decoupled weight decay, per unit of learning rate."""

    max_grad_norm: float = 1.0
    """Largest global norm of a gradient; larger ones are scaled down."""

    b1: float = 0.9
    """Decay of the first moment, per update."""

    b2: float = 0.999
    """Decay of the second moment, per update."""

    moments_dtype: str = "float32"
    """Type that both moments are kept in: float32 (eight bytes a parameter) or bfloat16
    (four, rounded up or down at random)."""

    def __post_init__(self):
        """Check the fields."""
        positive("optim.learning_rate", self.learning_rate)
        between("optim.warmup_updates", self.warmup_updates, 0, math.inf)
        one_of("optim.moments_dtype", self.moments_dtype, _MOMENTS)
        between("optim.weight_decay", self.weight_decay, 0.0, math.inf)
        positive("optim.max_grad_norm", self.max_grad_norm)
        for name in ("b1", "b2"):
            value = getattr(self, name)
            if not 0.0 <= value < 1.0:
                raise ValueError(f"optim.{name} must be in [0, 1), got {value}.")


@dataclasses.dataclass(frozen=True, kw_only=True)
class MeshConfig:
    """Devices per mesh axis; one axis may be -1 and takes what is left.

    A run of the policy qwen-vl without any of these flags has data 1 and fsdp -1.
    """

    data: int = -1
    """Devices that split the rows of a batch."""

    fsdp: int = 1
    """Devices that split rows and also parameters and optimizer state."""

    tensor: int = 1
    """Devices that split the wide axis of each matrix."""

    def __post_init__(self):
        """Check the fields."""
        sizes = dataclasses.asdict(self)
        for name, size in sizes.items():
            if size != -1 and size < 1:
                raise ValueError(f"mesh.{name} must be >= 1 or -1, got {size}.")
        if list(sizes.values()).count(-1) > 1:
            raise ValueError(f"mesh: at most one axis may be -1, got {sizes}.")


@dataclasses.dataclass(frozen=True, kw_only=True)
class CheckpointConfig:
    """When the state is saved."""

    save_every: int = 4
    """Rounds between checkpoints; the last round and SIGTERM save too."""

    max_to_keep: int = 2
    """Checkpoints kept; at least 2, so that a damaged newest one has a predecessor."""

    def __post_init__(self):
        """Check the fields."""
        at_least("checkpoint.save_every", self.save_every, 1)
        at_least("checkpoint.max_to_keep", self.max_to_keep, 2)


@dataclasses.dataclass(frozen=True, kw_only=True)
class EvalConfig:
    """Greedy evaluation on training, unseen and infeasible tasks."""

    every: int = 4
    """Rounds between evaluations; there is one before any update and one at the end."""

    episodes_per_task: int = 1
    """Trajectories of each task in an evaluation, each from a seed never trained on."""

    def __post_init__(self):
        """Check the fields."""
        at_least("eval.every", self.every, 1)
        at_least("eval.episodes_per_task", self.episodes_per_task, 1)


@dataclasses.dataclass(frozen=True, kw_only=True)
class WarmStartConfig:
    """Behavior cloning of a noisy oracle before the first round."""

    steps: int = 3000
    """Optimizer updates. 0: start from random parameters."""

    episodes: int = 8192
    """Practice episodes to learn from."""

    batch_size: int = 256
    """Steps of demonstrations in one update."""

    learning_rate: float = 3e-3
    """Peak learning rate."""

    cache_dir: Path = Path("~/.cache/stepjax")
    """Where the result is kept for the next run with the same settings."""

    def __post_init__(self):
        """Check the fields."""
        at_least("warm_start.steps", self.steps, 0)
        at_least("warm_start.episodes", self.episodes, 1)
        at_least("warm_start.batch_size", self.batch_size, 1)
        positive("warm_start.learning_rate", self.learning_rate)


@dataclasses.dataclass(frozen=True, kw_only=True)
class ExperimentConfig:
    """One run."""

    run_dir: Path = Path("runs/osworld")
    """Run folder: settings, metrics, checkpoints, figures, report. Made if missing."""

    seed: int = 0
    """Seed of everything random. Runs with equal seeds draw the same tasks."""

    rounds: int = 64
    """Rounds of collecting and learning."""

    resume: bool = True
    """Go on where the run folder left off, if it holds the same settings."""

    env: EnvConfig = EnvConfig()
    algo: AlgoConfig = AlgoConfig()
    optim: OptimizerConfig = OptimizerConfig()
    mesh: MeshConfig = MeshConfig()
    launch: LaunchConfig = LaunchConfig()
    checkpoint: CheckpointConfig = CheckpointConfig()
    eval: EvalConfig = EvalConfig()
    policy: PolicyConfig = PolicyConfig()
    warm_start: WarmStartConfig = WarmStartConfig()

    def __post_init__(self):
        """Check the fields."""
        between("seed", self.seed, 0, 2**31 - 1)
        at_least("rounds", self.rounds, 1)
        if self.policy.name == "qwen-vl":
            self._check_model()
        longest, rows = self.env.max_steps, self.algo.rows_per_update
        if self.algo.method == "t_grpo_many" and longest > rows:
            raise ValueError(
                f"algo.rows_per_update must be >= env.max_steps = {longest}, because "
                f"t_grpo_many never splits a trajectory; got {rows}."
            )

    def _check_model(self) -> None:
        """What the policy qwen-vl can not do."""
        if self.env.backend == "miniwob":
            raise ValueError(
                "policy qwen-vl sees screenshots, which env.backend miniwob does not "
                "give; choose sim, desktop, vm, miniwob-mobile or androidworld."
            )
        policy = self.policy
        if policy.lora_rank and self.warm_start.steps and policy.dtype != "float32":
            raise ValueError(
                f"warm_start.steps = {self.warm_start.steps} moves all weights, which "
                f"rest in {policy.dtype} beside policy.lora_rank; set warm_start.steps "
                "to 0, or policy.dtype to float32."
            )
        if self.algo.entropy_coef > 0.0:
            raise ValueError(
                "algo.entropy_coef must be 0 with policy qwen-vl, whose entropy is for "
                f"logs only, got {self.algo.entropy_coef}."
            )


def flat_config(config: ExperimentConfig) -> dict[str, Any]:
    """Every setting by its dotted name, in values that JSON knows.

    Args:
      config: The settings.

    Returns:
      Dotted name to value; paths become strings.

    Example:
      >>> flat_config(ExperimentConfig())["algo.group_size"]
      16
    """
    flat: dict[str, Any] = {}
    for field in dataclasses.fields(config):
        value = getattr(config, field.name)
        if dataclasses.is_dataclass(value):
            for inner in dataclasses.fields(value):
                flat[f"{field.name}.{inner.name}"] = getattr(value, inner.name)
        else:
            flat[field.name] = value
    return {name: _plain(value) for name, value in flat.items()}


def _plain(value: Any) -> Any:
    if isinstance(value, Path):
        return str(value)
    return list(value) if isinstance(value, tuple) else value
