"""One of several processes that train on levers; started by tests.

Arguments: coordinator, number of processes, process id, run folder, rounds, then
settings as `mesh.fsdp=2`.
"""

import sys
from pathlib import Path

from experiments.config import LaunchConfig, MeshConfig
from experiments.errors import RunError, UsageError
from experiments.loop import train
from experiments.session import run_together
from tests.experiments.lever_world import (
    POLICY,
    LeverBackend,
    lever_config,
    start_params,
)


def main(coordinator: str, count: str, index: str, folder: str, rounds: str, *mesh):
    launch = LaunchConfig()
    if int(count) > 1:
        launch = LaunchConfig(
            coordinator=coordinator,
            num_processes=int(count),
            process_id=int(index),
            timeout=60.0,
            heartbeat=10.0,
        )
    axes = {name: int(size) for name, size in (part.split("=") for part in mesh)}
    config = lever_config(
        Path(folder), rounds=int(rounds), launch=launch, mesh=MeshConfig(**axes)
    )
    try:
        with run_together(config) as peers:
            train(
                config,
                backend=LeverBackend(),
                policy=POLICY,
                start_params=start_params(),
                peers=peers,
            )
    except (UsageError, RunError) as error:
        print(error, file=sys.stderr)
        sys.exit(error.exit_code)


if __name__ == "__main__":
    main(*sys.argv[1:])
