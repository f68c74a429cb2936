"""Two real processes restore from one folder: they use the same checkpoint."""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

TIMEOUT = 60.0

CHILD = """
import json, pathlib, sys
import jax
import jax.numpy as jnp
import numpy as np
place, index, folder = sys.argv[1], int(sys.argv[2]), pathlib.Path(sys.argv[3])
jax.distributed.initialize(place, 2, index)
from jax.experimental import multihost_utils
from stepjax.training import checkpoint
from stepjax.training.sharding import infer_state_sharding, make_mesh
from stepjax.training.state import TrainState, TaskSampler
from stepjax.types import SuccessRateRecord

def make(number):
    return TrainState(
        step=number, round=number,
        params=jax.random.normal(jax.random.key(number), (2, 1000)), opt_state=(),
        success_rate=SuccessRateRecord(
            rate=jnp.zeros(3), visits=jnp.zeros(3, jnp.int32)
        ),
        sampler=TaskSampler(order=jnp.arange(3), position=number),
        key=jax.random.key(7))

shapes = jax.eval_shape(make, 0)
shardings = infer_state_sharding(shapes, make_mesh(1, 2, 1))
like = jax.tree.map(
    lambda x, s: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=s), shapes, shardings
)
make, told = jax.jit(make, out_shardings=shardings), []

def restore():
    found = checkpoint.restore_checkpoint(manager, like)
    (ours,) = found.state.params.addressable_shards
    (right,) = make(found.step).params.addressable_shards
    same = np.array_equal(ours.data, right.data)
    told.append([found.step, same, found.skipped])

with checkpoint.open_checkpoints(folder, max_to_keep=3) as manager:
    for number in (1, 2):
        checkpoint.save_checkpoint(manager, make(number), {})
    manager.wait_until_finished()
    if index == 1:  # a folder whose news reach some machines late
        steps_on_disk = checkpoint._steps_on_disk
        checkpoint._steps_on_disk = lambda manager: [1]
    restore()
    if index == 1:
        checkpoint._steps_on_disk = steps_on_disk
        for path in (folder / "2/state/ocdbt.process_1/d").iterdir():
            path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    multihost_utils.sync_global_devices("damaged")
    restore()
    checkpoint.save_checkpoint(manager, make(2), {})
    manager.wait_until_finished()
    restore()
folder.with_name(f"told-{index}").write_text(json.dumps(told))
"""


@pytest.mark.slow
def test_damage_that_one_process_sees_is_damage_to_all(tmp_path):
    with socket.create_server(("localhost", 0)) as server:
        place = f"localhost:{server.getsockname()[1]}"
    root = Path(__file__).resolve().parents[2]
    environment = os.environ | {
        "PYTHONPATH": str(root),
        "JAX_PLATFORMS": "cpu",
        "JAX_NUM_CPU_DEVICES": "1",
    }
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", CHILD, place, str(index), str(tmp_path / "run")],
            cwd=root,
            env=environment,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )
        for index in range(2)
    ]
    try:
        errors = [process.communicate(timeout=TIMEOUT)[1] for process in processes]
    finally:
        for process in processes:
            process.kill()
            process.communicate()
    for index, process in enumerate(processes):
        assert process.returncode == 0, errors[index][-3000:]
        told = json.loads((tmp_path / f"told-{index}").read_text())
        listed, damaged, again = told
        assert listed == [2, True, []]
        ((step, reason),) = damaged.pop()
        assert damaged == [1, True]
        assert step == 2 and reason.startswith("process 1: ")
        assert again == [2, True, []]
    assert (tmp_path / "run" / "2.unreadable").is_dir()
