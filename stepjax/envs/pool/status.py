"""How episodes end and how environments fail: names, counts, settings."""

import collections
import dataclasses
import enum

from stepjax.envs.base import Observation

__all__ = [
    "Deadlines",
    "EpisodeResult",
    "FaultKind",
    "Phase",
    "PoolCounts",
    "TrajectoryStatus",
]


class TrajectoryStatus(enum.Enum):
    """How an episode ended; the first two are valid, whatever the reward."""

    COMPLETED = "completed"
    """The task ended by itself, or by DONE or FAIL."""
    TRUNCATED = "truncated"
    """A limit cut it; it is evaluated all the same."""
    ENV_ERROR = "env_error"
    """The environment raised, also after the retries."""
    ENV_TIMEOUT = "env_timeout"
    """The environment missed a deadline, also after the retries."""
    ENV_GARBAGE = "env_garbage"
    """The environment returned something impossible, also after the retries."""

    @property
    def valid(self) -> bool:
        """True if the episode says something about the policy."""
        return self in (TrajectoryStatus.COMPLETED, TrajectoryStatus.TRUNCATED)


class FaultKind(enum.Enum):
    """What an environment did wrong."""

    ERROR = "error"
    TIMEOUT = "timeout"
    GARBAGE = "garbage"

    @property
    def status(self) -> TrajectoryStatus:
        """Status of an episode that ends with this fault."""
        return TrajectoryStatus(f"env_{self.value}")


class Phase(enum.Enum):
    """What an environment is asked to do."""

    CREATE = "create"
    RESET = "reset"
    STEP = "step"
    EVALUATE = "evaluate"
    CLOSE = "close"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Deadlines:
    """Seconds one call may take; a call of a vector environment counts once.

    Attributes:
      create: Making the environment.
      reset: `reset` or `reset_many`.
      step: `step` or `step_many`.
      evaluate: `evaluate` or `evaluate_many`.
      close: `close`.

    Raises:
      ValueError: If one is not positive.
    """

    create: float = 180.0
    reset: float = 60.0
    step: float = 30.0
    evaluate: float = 60.0
    close: float = 10.0

    def __post_init__(self):
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            if not value > 0:
                raise ValueError(
                    f"Deadlines.{field.name} must be > 0 seconds, got {value}."
                )

    def of(self, phase: Phase) -> float:
        """Seconds for a phase."""
        return getattr(self, phase.value)


@dataclasses.dataclass(frozen=True, kw_only=True)
class EpisodeResult:
    """What became of one episode.

    Attributes:
      status: How it ended.
      reward: In [0, 1]; 0 unless valid.
      num_steps: Actions taken; 0 unless valid.
      faults: Attempts lost to environment faults.
      error: The last fault in words, "" if none.
      final: The last observation, where pictures were asked for.
    """

    status: TrajectoryStatus
    reward: float = 0.0
    num_steps: int = 0
    faults: int = 0
    error: str = ""
    final: Observation | None = None


@dataclasses.dataclass
class PoolCounts:
    """Running totals of a pool, for metrics.

    Attributes:
      episodes: Finished episodes by status.
      faults: Environment faults by kind and phase.
      replaced: Environments replaced.
      retried: Episodes started over.
      invalid_actions: Actions of kind INVALID.
      policy_calls: Calls of the policy.
      policy_rows: Observations those calls were given.
    """

    episodes: collections.Counter[TrajectoryStatus] = dataclasses.field(
        default_factory=collections.Counter
    )
    faults: collections.Counter[tuple[FaultKind, Phase]] = dataclasses.field(
        default_factory=collections.Counter
    )
    replaced: int = 0
    retried: int = 0
    invalid_actions: int = 0
    policy_calls: int = 0
    policy_rows: int = 0

    def metrics(self) -> dict[str, float]:
        """The totals as flat names and numbers, so that processes' can be added."""
        out: dict[str, float] = {
            f"env/episodes_{status.value}": self.episodes[status]
            for status in TrajectoryStatus
        }
        for kind in FaultKind:
            out[f"env/faults_{kind.value}"] = sum(
                count for (what, _), count in self.faults.items() if what is kind
            )
        for name in (
            *("replaced", "retried", "invalid_actions"),
            *("policy_calls", "policy_rows"),
        ):
            out[f"env/{name}"] = getattr(self, name)
        return out
