"""Environments that may be slow or break, driven so that neither hurts a run."""

from stepjax.envs.pool.episode import Ready
from stepjax.envs.pool.pondering import Ponder
from stepjax.envs.pool.pool import Act, EnvironmentPool
from stepjax.envs.pool.status import (
    Deadlines,
    EpisodeResult,
    FaultKind,
    Phase,
    PoolCounts,
    TrajectoryStatus,
)
from stepjax.envs.pool.worker import MakeEnvironment

__all__ = [
    "Act",
    "Deadlines",
    "EnvironmentPool",
    "EpisodeResult",
    "FaultKind",
    "MakeEnvironment",
    "Phase",
    "Ponder",
    "PoolCounts",
    "Ready",
    "TrajectoryStatus",
]
