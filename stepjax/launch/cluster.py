"""Who takes part in a run: found by flags, environment variables, SLURM or TPU VMs."""

import dataclasses
import os
import re
from collections.abc import Mapping

__all__ = ["Cluster", "LaunchError", "find_cluster"]


class LaunchError(RuntimeError):
    """Processes that cannot start as one run; the text is one line with the fix."""

    exit_code = 2


@dataclasses.dataclass(frozen=True, kw_only=True)
class Cluster:
    """The place of this process among those of a run.

    Attributes:
      host: Name or address of the host of process 0.
      port: Port on it that must be free there and reachable from every host.
      num_processes: Processes of the run, at least 2.
      process_id: Number of this one, from 0.
      found_by: "flags", "environment", "slurm" or "tpu".
      local_devices: Devices this process may use, None for all it sees.
    """

    host: str
    port: int
    num_processes: int
    process_id: int
    found_by: str = "flags"
    local_devices: tuple[int, ...] | None = None

    @property
    def address(self) -> str:
        """`host:port` of process 0."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{host}:{self.port}"

    def how_to_start(self, process_id: int) -> str:
        """Words that tell how a process that is missing is started."""
        if self.found_by == "tpu":
            return (
                "start it with: gcloud compute tpus tpu-vm ssh NAME "
                f"--worker={process_id} --command='...' (the same command)"
            )
        if self.found_by == "slurm":
            return (
                "see what became of it with: squeue --steps, scontrol show nodes; then "
                "start all again with: scontrol requeue $SLURM_JOB_ID"
            )
        return (
            "start it on its host with the same command and "
            f"--launch.process-id {process_id}"
        )


def find_cluster(
    coordinator: str | None = None,
    num_processes: int | None = None,
    process_id: int | None = None,
    *,
    timeout: float = 300.0,
    environ: Mapping[str, str] | None = None,
) -> Cluster | None:
    """The cluster that this process is part of; None for a run of one process.

    Args:
      coordinator: `host:port` of process 0. Together with the next two, it decides.
      num_processes: Processes of the run.
      process_id: Number of this process.
      timeout: Seconds a TPU VM may wait for the name of process 0.
      environ: Environment variables; the process's own by default.

    Returns:
      The cluster by the arguments, else by `JAX_COORDINATOR_ADDRESS`,
      `JAX_NUM_PROCESSES` and `JAX_PROCESS_ID`, else by what `srun` sets, else by what
      TPU VMs and GKE tell their workers, else None.

    Raises:
      LaunchError: If only some of the three are known, or they contradict each other.
    """
    environ = os.environ if environ is None else environ
    given = {
        "--launch.coordinator": coordinator,
        "--launch.num-processes": num_processes,
        "--launch.process-id": process_id,
    }
    if any(value is not None for value in given.values()):
        return _from_values(given, "flags")
    names = ("JAX_COORDINATOR_ADDRESS", "JAX_NUM_PROCESSES", "JAX_PROCESS_ID")
    if all(environ.get(name) for name in names):
        return _from_values({name: environ[name] for name in names}, "environment")
    found = _from_slurm(environ)
    return _from_tpu(timeout) if found is None else found


def _from_values(given: Mapping[str, str | int | None], how: str) -> Cluster | None:
    address_flag, count_flag, id_flag = given
    missing = [name for name, value in given.items() if value is None]
    if missing == [address_flag] and given[count_flag] == 1:
        return None
    if missing:
        have = [name for name in given if name not in missing]
        raise LaunchError(
            f"{', '.join(have)} needs {' and '.join(missing)} too: a run of several "
            "processes is started with all three (on TPU VMs and under srun with none)."
        )
    address = str(given[address_flag])
    match = re.fullmatch(r"\[?([^\s\]/]+?)\]?:(\d{1,5})", address)
    if match is None or not 0 < int(match[2]) < 65536:
        raise LaunchError(
            f"{address_flag} must be host:port of process 0, such as 10.0.0.2:8476, "
            f"got {address!r}."
        )
    try:
        count, index = int(given[count_flag] or 0), int(given[id_flag] or 0)
    except ValueError:
        raise LaunchError(
            f"{count_flag} and {id_flag} must be whole numbers, got "
            f"{given[count_flag]!r} and {given[id_flag]!r}."
        ) from None
    if count < 1 or not 0 <= index < count:
        raise LaunchError(
            f"{id_flag} must be in [0, {count_flag}), got {index} and {count}."
        )
    if count == 1:
        return None
    return Cluster(
        host=match[1],
        port=int(match[2]),
        num_processes=count,
        process_id=index,
        found_by=how,
    )


def _from_slurm(environ: Mapping[str, str]) -> Cluster | None:
    names = ("SLURM_JOB_ID", "SLURM_STEP_NODELIST", "SLURM_NTASKS", "SLURM_PROCID")
    if not all(environ.get(name) for name in names):
        return None  # not started by srun
    job, nodes, count, index = (environ[name] for name in names)
    if int(count) == 1:
        return None
    # node[01-03,07],other3 -> node01
    first = re.match(r"([^,\[]+)(?:\[([^,\-\]]+))?", nodes)
    if first is None:
        raise LaunchError(f"SLURM_STEP_NODELIST is no list of nodes: {nodes!r}.")
    here = re.match(r"\d+", environ.get("SLURM_STEP_TASKS_PER_NODE", "1"))
    shared = here is not None and int(here[0]) > 1
    visible = environ.get("CUDA_VISIBLE_DEVICES", "0,1").split(",")
    local = int(environ.get("SLURM_LOCALID", "0"))
    return Cluster(
        host=first[1] + (first[2] or ""),
        port=int(environ.get("JAX_COORDINATOR_PORT") or 20000 + int(job) % 20000),
        num_processes=int(count),
        process_id=int(index),
        found_by="slurm",
        local_devices=(local,) if shared and len(visible) > 1 else None,
    )


def _from_tpu(timeout: float) -> Cluster | None:
    # What a TPU VM knows of its pod is in metadata whose format jax follows for us.
    try:
        from jax._src.clusters import cloud_tpu_cluster
    except ImportError:
        return None
    for kind in ("GkeTpuCluster", "GceTpuCluster"):
        found = getattr(cloud_tpu_cluster, kind, None)
        if found is None or not found.is_env_present():
            continue
        count = found.get_process_count()
        if count == 1:
            return None
        place = found.get_coordinator_address(int(timeout), None)
        host, _, port = place.rpartition(":")
        return Cluster(
            host=host,
            port=int(port),
            num_processes=count,
            process_id=found.get_process_id(),
            found_by="tpu",
        )
    return None
