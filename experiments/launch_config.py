"""Settings of a run of several processes. Nothing here imports jax."""

import dataclasses

from experiments.setting_checks import at_least, positive

__all__ = ["LaunchConfig"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class LaunchConfig:
    """Processes of a run; TPU VMs and srun need none of this."""

    coordinator: str | None = None
    """Host and port of process 0, such as 10.0.0.2:8476: free there, reachable from
    every host. Needs the next two."""

    num_processes: int | None = None
    """Processes of the run, usually one a host."""

    process_id: int | None = None
    """Number of this process, from 0."""

    timeout: float = 300.0
    """Seconds to wait for the other processes to start."""

    heartbeat: float = 30.0
    """Seconds of silence after which a process counts as dead and all stop."""

    def __post_init__(self):
        """Check the fields."""
        if self.num_processes is not None:
            at_least("launch.num_processes", self.num_processes, 1)
        if self.process_id is not None:
            at_least("launch.process_id", self.process_id, 0)
        positive("launch.timeout", self.timeout)
        positive("launch.heartbeat", self.heartbeat)
