"""Who takes part in a run: found by flags, environment variables, SLURM or TPU VMs."""

import dataclasses
import os
import re
from collections.abc import Mapping
from typing import Any

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
        return self._at(self.port)

    def _at(self, port: int) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{host}:{port}"

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
        if self.found_by == "environment":
            return (
                "start it on its host with the same command, the same environment and "
                f"JAX_PROCESS_ID={process_id}"
            )
        return (
            "start it on its host with the same command and "
            f"--launch.process-id {process_id}"
        )

    def how_to_move(self) -> str:
        """Words that tell how all processes are given another port."""
        port = self.port + 1 if self.port < 65535 else 1024
        setting = {
            "flags": f"--launch.coordinator {self._at(port)}",
            "environment": f"JAX_COORDINATOR_ADDRESS={self._at(port)}",
        }.get(self.found_by, f"JAX_COORDINATOR_PORT={port}")
        return f"choose another for every process: {setting}"

    def how_to_number(self) -> str:
        """Words that tell how each process gets its own number."""
        return {
            "flags": "give each its own --launch.process-id",
            "environment": "give each its own JAX_PROCESS_ID",
        }.get(self.found_by, self._how_to_start_all())

    def how_to_count(self) -> str:
        """Words that tell how all processes get the same number of processes."""
        return {
            "flags": "give all the same --launch.num-processes",
            "environment": "give all the same JAX_NUM_PROCESSES",
        }.get(self.found_by, self._how_to_start_all())

    def _how_to_start_all(self) -> str:
        if self.found_by == "tpu":
            return "start one process on each host of the slice"
        return "start all with one srun, one process a task"


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
      LaunchError: If only some of the three are known, or they contradict each other,
        or a TPU VM cannot tell of the others.
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
    told = {name: environ.get(name) or None for name in names}
    if any(told.values()):
        return _from_values(told, "environment")
    found = _from_slurm(environ)
    return _from_tpu(timeout, environ) if found is None else found


def _from_values(given: Mapping[str, str | int | None], how: str) -> Cluster | None:
    address_flag, count_flag, id_flag = given
    missing = [name for name, value in given.items() if value is None]
    if missing == [address_flag] and str(given[count_flag]) == "1":
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
        port=_chosen_port(environ) or 20000 + int(job) % 20000,
        num_processes=int(count),
        process_id=int(index),
        found_by="slurm",
        local_devices=(local,) if shared and len(visible) > 1 else None,
    )


def _chosen_port(environ: Mapping[str, str]) -> int | None:
    text = environ.get("JAX_COORDINATOR_PORT")
    if not text:
        return None
    if not re.fullmatch(r"\d{1,5}", text, re.ASCII) or not 0 < int(text) < 65536:
        raise LaunchError(
            f"JAX_COORDINATOR_PORT must be a port from 1 to 65535, got {text!r}; set "
            "it so on every host, or unset it."
        )
    return int(text)


def _from_tpu(timeout: float, environ: Mapping[str, str]) -> Cluster | None:
    # What a TPU VM knows of its pod is in metadata whose format jax follows for us.
    try:
        from jax._src.clusters import cloud_tpu_cluster
    except ImportError:
        return None
    port = _chosen_port(environ)
    try:
        for kind in ("GkeTpuCluster", "GceTpuCluster"):
            found = getattr(cloud_tpu_cluster, kind, None)
            if found is not None and found.is_env_present():
                return _of_tpu(found, port, timeout)
    except ImportError as error:
        raise LaunchError(
            f"jax needs the package {error.name} to ask a TPU VM who takes part, and "
            f"it is not installed; on every host run: pip install {error.name}"
        ) from error
    except (OSError, RuntimeError, ValueError) as error:
        reason = " ".join(str(error).split())[:300] or type(error).__name__
        raise LaunchError(
            f"this TPU VM does not tell who takes part ({reason}); say it on every "
            "host: --launch.coordinator HOST-OF-0:8476 --launch.num-processes N "
            "--launch.process-id I, or if it is the only host: "
            "--launch.num-processes 1 --launch.process-id 0"
        ) from error
    return None


def _of_tpu(found: Any, port: int | None, timeout: float) -> Cluster | None:
    """What one of jax's descriptions of a TPU VM's surroundings says."""
    count = found.get_process_count()
    if count == 1:
        return None
    chosen = None if port is None else str(port)
    place = found.get_coordinator_address(int(timeout), chosen)
    host, _, text = place.rpartition(":")
    return Cluster(
        host=host,
        port=int(text),
        num_processes=count,
        process_id=found.get_process_id(),
        found_by="tpu",
    )
