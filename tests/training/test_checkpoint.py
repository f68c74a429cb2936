import dataclasses
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from stepjax.batching import pack_steps
from stepjax.training import checkpoint
from stepjax.training.checkpoint import (
    CheckpointError,
    open_checkpoints,
    restore_checkpoint,
    save_checkpoint,
)
from stepjax.training.sharding import (
    batch_sharding,
    infer_state_sharding,
    make_mesh,
    shard_state,
)
from stepjax.training.state import draw_tasks
from stepjax.training.step import jit_train_step, make_train_step
from tests.training.toy import (
    assert_close,
    assert_identical,
    host,
    loss_fn,
    make_optimizer,
    make_rows,
    make_state,
    policy_fn,
)

TX = make_optimizer()


def start(mesh):
    state = make_state(TX)
    return shard_state(state, infer_state_sharding(state, mesh))


def like(mesh):
    shapes = jax.eval_shape(lambda: make_state(TX))
    sharding = infer_state_sharding(shapes, mesh)
    return jax.tree.map(
        lambda leaf, where: jax.ShapeDtypeStruct(
            leaf.shape, leaf.dtype, sharding=where
        ),
        shapes,
        sharding,
    )


def make_round(mesh):
    """A round of training without environments: draw, two updates, count."""
    sharding = infer_state_sharding(jax.eval_shape(lambda: make_state(TX)), mesh)
    step = jit_train_step(
        make_train_step(policy_fn, TX, loss_fn, micro_batch_size=8),
        state_sharding=sharding,
        batch_sharding=batch_sharding(mesh),
    )

    def advance(state):
        sampler, tasks = draw_tasks(
            state.sampler, jax.random.fold_in(state.key, state.round), num_tasks=4
        )
        record = dataclasses.replace(
            state.success_rate, rate=state.success_rate.rate.at[tasks].add(0.1)
        )
        return dataclasses.replace(
            state, round=state.round + 1, sampler=sampler, success_rate=record
        )

    advance = jax.jit(advance, out_shardings=sharding)

    def run(state):
        rows = make_rows(40, seed=int(state.round))
        for batch in pack_steps(rows, seed=int(state.round), rows_per_update=32):
            state, _ = step(state, batch)
        return advance(state)

    return run


@pytest.fixture(scope="module")
def three_saves(tmp_path_factory):
    """A directory with checkpoints of rounds 1 to 3, and the three states."""
    directory = tmp_path_factory.mktemp("checkpoints")
    mesh = make_mesh(2, 2, 2)
    run = make_round(mesh)
    state, states = start(mesh), {}
    with open_checkpoints(directory, max_to_keep=3) as manager:
        for number in (1, 2, 3):
            state = run(state)
            assert save_checkpoint(manager, state, {"number": number})
            states[number] = host(state)
        states[4] = host(run(state))
    return directory, states


def test_save_restore_continue_is_bit_identical(tmp_path):
    mesh = make_mesh(2, 2, 2)
    run = make_round(mesh)
    state = start(mesh)
    with open_checkpoints(tmp_path, max_to_keep=2) as manager:
        assert restore_checkpoint(manager, like(mesh)) is None
        for _ in range(3):
            # The next round donates the state while it is still being written.
            state = run(state)
            assert save_checkpoint(manager, state, {"config": {"seed": 1}})
        assert not save_checkpoint(manager, state, {})
        unbroken = run(run(state))
    with open_checkpoints(tmp_path, max_to_keep=2) as manager:
        assert list(manager.all_steps()) == [2, 3]
        restored = restore_checkpoint(manager, like(mesh))
        assert restored is not None
        assert restored.step == 3
        assert restored.metadata == {"config": {"seed": 1}}
        assert restored.skipped == []
        assert_identical(run(run(restored.state)), unbroken)


@pytest.mark.slow
@pytest.mark.parametrize("sizes", [(1, 2, 4), (8, 1, 1), (1, 8, 1), 1], ids=str)
def test_restore_on_another_mesh(three_saves, sizes):
    directory, states = three_saves
    if sizes == 1:
        mesh = make_mesh(1, 1, 1, devices=jax.devices()[:1])
    else:
        mesh = make_mesh(*sizes)
    with open_checkpoints(directory, max_to_keep=3) as manager:
        restored = restore_checkpoint(manager, like(mesh))
    assert restored is not None
    assert_identical(restored.state, states[3])
    jax.tree.map(
        lambda leaf, expected: (
            leaf.sharding == expected.sharding or pytest.fail(str(leaf.sharding))
        ),
        restored.state,
        like(mesh),
    )
    assert_close(make_round(mesh)(restored.state), states[4], tolerance=1e-5)


def damages():
    return {
        "deleted": lambda path: path.unlink(),
        "emptied": lambda path: path.write_bytes(b""),
        "halved": lambda path: path.write_bytes(
            path.read_bytes()[: path.stat().st_size // 2]
        ),
        "flipped": flip,
    }


def flip(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 0x10
    path.write_bytes(bytes(content))


@pytest.mark.parametrize(
    "damage",
    [
        "deleted",
        "halved",
        pytest.param("emptied", marks=pytest.mark.slow),
        pytest.param("flipped", marks=pytest.mark.slow),
    ],
)
def test_damage_to_any_file_is_survived(three_saves, tmp_path, damage):
    """Every file in turn: either the content is still right, or it is not used."""
    directory, states = three_saves
    names = [
        path.relative_to(directory)
        for path in sorted((directory / "3").rglob("*"))
        if path.is_file()
    ]
    assert len(names) >= 8
    target = like(make_mesh(2, 2, 2))
    fallen_back = []
    for index, name in enumerate(names):
        copy = tmp_path / str(index)
        shutil.copytree(directory, copy)
        damages()[damage](copy / name)
        with open_checkpoints(copy, max_to_keep=3) as manager:
            restored = restore_checkpoint(manager, target)
            assert restored is not None, name
            assert_identical(restored.state, states[restored.step])
            assert restored.metadata == {"number": restored.step}
            if restored.step == 3:
                assert restored.skipped == []
                continue
            fallen_back.append(name.parts[-1])
            ((step, reason),) = restored.skipped
            assert (restored.step, step) == (2, 3), name
            assert reason
            assert "\n" not in reason
            assert (copy / "3.unreadable").is_dir()
        shutil.rmtree(copy)
    assert len(fallen_back) >= 2


def test_missing_parts_are_survived(three_saves, tmp_path):
    directory, states = three_saves
    target = like(make_mesh(2, 2, 2))
    for index, part in enumerate(["state", "meta", "state/d", "state/ocdbt.process_0"]):
        copy = tmp_path / str(index)
        shutil.copytree(directory, copy)
        shutil.rmtree(copy / "3" / part)
        with open_checkpoints(copy, max_to_keep=3) as manager:
            restored = restore_checkpoint(manager, target)
            assert restored is not None
            assert_identical(restored.state, states[restored.step])
            assert restored.step == 2 or "/" in part


def test_swapped_data_is_noticed(three_saves, tmp_path):
    """Well-formed files of another round are not this round's state."""
    directory, states = three_saves
    copy = tmp_path / "copy"
    shutil.copytree(directory, copy)
    shutil.rmtree(copy / "3" / "state")
    shutil.copytree(copy / "1" / "state", copy / "3" / "state")
    with open_checkpoints(copy, max_to_keep=3) as manager:
        restored = restore_checkpoint(manager, like(make_mesh(2, 2, 2)))
        assert restored is not None
        assert restored.step == 2
        assert "checksum" in restored.skipped[0][1]
        assert_identical(restored.state, states[2])
        again = dataclasses.replace(restored.state, round=restored.state.round + 1)
        assert save_checkpoint(manager, again, {"number": 3})
        manager.wait_until_finished()
        assert sorted(manager.all_steps()) == [1, 2, 3]


def test_two_damaged_then_all_damaged(three_saves, tmp_path):
    directory, states = three_saves
    copy = tmp_path / "copy"
    shutil.copytree(directory, copy)
    target = like(make_mesh(2, 2, 2))
    for step in (3, 2):
        (copy / str(step) / "meta" / "metadata").write_text("{")
    with open_checkpoints(copy, max_to_keep=3) as manager:
        restored = restore_checkpoint(manager, target)
        assert restored is not None
        assert [step for step, _ in restored.skipped] == [3, 2]
        assert_identical(restored.state, states[1])
    (copy / "1" / "meta" / "metadata").write_text("{")
    with open_checkpoints(copy, max_to_keep=3) as manager:
        with pytest.raises(
            CheckpointError, match="none of the 1 checkpoints"
        ) as caught:
            restore_checkpoint(manager, target)
        assert "\n" not in str(caught.value)
    assert (copy / "1").is_dir()


def test_another_model_is_a_mismatch_not_damage(three_saves):
    directory, _ = three_saves
    target = like(make_mesh(2, 2, 2))
    params = dict(target.params)
    params["body"] = {"kernel": jax.ShapeDtypeStruct((6, 32), jnp.float32)}
    other = dataclasses.replace(target, params=params)
    extra = dataclasses.replace(
        target, params=target.params | {"new": target.params["head"]["bias"]}
    )
    with open_checkpoints(directory, max_to_keep=3) as manager:
        with pytest.raises(
            ValueError, match=r"float32\[6,16\] for params/body/kernel.*float32\[6,32\]"
        ):
            restore_checkpoint(manager, other)
        with pytest.raises(ValueError, match=r"nothing for params/new"):
            restore_checkpoint(manager, extra)
        assert sorted(manager.all_steps()) == [1, 2, 3]


def test_a_collective_that_fails_is_not_damage(three_saves, monkeypatch):
    def fail(state):
        raise RuntimeError("Gloo timed out")

    directory, _ = three_saves
    monkeypatch.setattr(checkpoint, "_checksums", fail)
    with open_checkpoints(directory, max_to_keep=3) as manager:
        with pytest.raises(RuntimeError, match="^Gloo timed out$"):
            restore_checkpoint(manager, like(make_mesh(2, 2, 2)))
    assert not list(directory.glob("*.unreadable"))


def test_a_process_without_memory_is_not_damage(three_saves, monkeypatch):
    told = json.dumps([True, "MemoryError: no message"])
    directory, _ = three_saves
    monkeypatch.setattr(checkpoint, "_gather_text", lambda text: [text, told])
    with open_checkpoints(directory, max_to_keep=3) as manager:
        with pytest.raises(
            RuntimeError, match="checkpoint 3 was not restored: process 1: MemoryError"
        ):
            restore_checkpoint(manager, like(make_mesh(2, 2, 2)))
    assert not list(directory.glob("*.unreadable"))


def test_bad_arguments(tmp_path):
    with pytest.raises(ValueError, match="max_to_keep must be at least 1, got 0"):
        open_checkpoints(tmp_path, max_to_keep=0)
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError, match="file"):
        open_checkpoints(tmp_path / "file", max_to_keep=1)


CHILD = """
import sys
import jax
import jax.numpy as jnp
from stepjax.training.checkpoint import open_checkpoints, save_checkpoint
from stepjax.training.state import TrainState, TaskSampler
from stepjax.types import SuccessRateRecord
make = jax.jit(lambda n: TrainState(
    step=n, round=n,
    params=[jnp.full((400_000 + i,), n, jnp.float32) for i in range(6)],
    opt_state=(),
    success_rate=SuccessRateRecord(rate=jnp.zeros(3), visits=jnp.zeros(3, jnp.int32)),
    sampler=TaskSampler(order=jnp.arange(3), position=n), key=jax.random.key(7)))
manager = open_checkpoints(sys.argv[1], max_to_keep=2)
for number in range(1, 10_000):
    save_checkpoint(manager, make(jnp.int32(number)), {"number": number})
    print(number, flush=True)
"""


def run_and_kill(directory: Path, rounds: int, delay_s: float):
    """Kill -9 a process that saves without pause, `delay_s` into its n-th save."""
    child = subprocess.Popen(
        [sys.executable, "-c", CHILD, str(directory)],
        stdout=subprocess.PIPE,
        cwd=Path(__file__).resolve().parents[2],
        env={**os.environ, "PYTHONPATH": str(Path(__file__).resolve().parents[2])},
        text=True,
    )
    try:
        assert child.stdout is not None
        for line in child.stdout:
            if int(line) == rounds:
                break
        time.sleep(delay_s)
    finally:
        child.send_signal(signal.SIGKILL)
        child.wait()
        child.stdout.close()  # pyright: ignore


@pytest.mark.parametrize("delay_s", [pytest.param(0.0, marks=pytest.mark.slow), 0.03])
def test_kill_during_a_save(tmp_path, delay_s):
    run_and_kill(tmp_path, 3, delay_s)
    target = jax.tree.map(
        lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype),
        _child_state(),
    )
    with open_checkpoints(tmp_path, max_to_keep=2) as manager:
        restored = restore_checkpoint(manager, target)
        assert restored is not None
        assert restored.skipped == []
        number = restored.metadata["number"]
        assert number == restored.step == int(restored.state.round) >= 2
        for leaf in restored.state.params:
            np.testing.assert_array_equal(leaf, np.float32(number))
        again = dataclasses.replace(restored.state, round=restored.state.round + 1)
        assert save_checkpoint(manager, again, {"number": number + 1})
    # What the killed process left half-written is gone, and its round can be saved.
    assert not [path for path in tmp_path.iterdir() if "tmp" in path.name]
    meta = json.loads((tmp_path / str(number + 1) / "meta" / "metadata").read_text())
    assert meta["metadata"] == {"number": number + 1}


def _child_state():
    names: dict = {}
    source = CHILD[: CHILD.index("manager =")]
    exec(compile(source, "child", "exec"), names)
    return names["make"](jnp.int32(0))
