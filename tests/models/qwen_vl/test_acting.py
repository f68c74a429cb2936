"""The copy that acts: the same numbers wherever it lies, and small enough there."""

import dataclasses
import functools
import os
import socket
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import Mesh

from stepjax.models.qwen_vl.acting import (
    acting_copy,
    acting_mesh,
    cast_copy,
    groups_in_processes,
    mesh_of,
    model_on_mesh,
    place_copy,
)
from stepjax.models.qwen_vl.config import PRESETS
from stepjax.models.qwen_vl.engine import Engine
from stepjax.models.qwen_vl.engine_sizes import EngineSizes
from stepjax.models.qwen_vl.generate import generate
from stepjax.models.qwen_vl.model import make_qwen_vl
from stepjax.models.qwen_vl.sharding import param_sharding
from stepjax.training.sharding import make_mesh
from tests.models.qwen_vl.test_packed import PROMPT, make_prompts, shaken_params

TOKENS = 5
STOPS = (501,)


@functools.cache
def make_model(heads=2, **options):
    config = PRESETS["tiny-qwen2-vl"]
    config = dataclasses.replace(
        config,
        text=dataclasses.replace(config.text, num_kv_heads=heads),
        vision=dataclasses.replace(config.vision, num_heads=heads),
    )
    options = {"dtype": jnp.float32, "attention": "plain"} | options
    return make_qwen_vl(config, **options)


@functools.cache
def masters(heads=2):
    if heads == 2:
        return shaken_params("tiny-qwen2-vl")
    params = make_model(heads).init(jax.random.key(0))
    return jax.tree.map(lambda leaf: leaf + 0.05, params)


def on_mesh(mesh, heads=2):
    where = param_sharding(make_model(heads), mesh)
    return jax.device_put(masters(heads), where)


@functools.cache
def engine(heads=2, **options):
    return Engine(
        make_model(heads, **options),
        sizes=EngineSizes(slots=4, prompt_buckets=(PROMPT,), prefill_rows=2, chunk=4),
        max_new_tokens=TOKENS,
        stop_tokens=STOPS,
    )


def answers(params, heads=2, temperature=0.0, **options):
    """Tokens, masks and log-probabilities of six requests for four slots."""
    one, prompts = engine(heads, **options), make_prompts(6)
    one.start(params, jax.random.key(3), temperature=temperature)
    for row in range(6):
        prompt = jax.tree.map(lambda leaf, row=row: leaf[row], prompts)
        one.begin(row, prompt, row, 0)
    found = {}
    while one.busy:
        found.update(one.finished())
    return [np.stack([found[row][part] for row in range(6)]) for part in range(3)]


@functools.cache
def expected(heads=2, temperature=0.0):
    return answers(masters(heads), heads, temperature)


def check(found, wanted):
    np.testing.assert_array_equal(found[0], wanted[0])
    np.testing.assert_array_equal(found[1], wanted[1])
    np.testing.assert_allclose(found[2], wanted[2], atol=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("sizes", "heads", "groups"),
    [((2, 2, 1), 4, (1, 4)), ((2, 2, 2), 2, (4, 2)), ((8, 1, 1), 2, (4, 2))],
    ids=["four", "eight", "eight-data"],
)
def test_many_devices_act_as_one(sizes, heads, groups):
    mesh = make_mesh(*sizes, devices=jax.devices()[: np.prod(sizes)])
    model = make_model(heads)
    copy = acting_copy(model, on_mesh(mesh, heads), mesh)
    shape = mesh_of(copy).shape
    assert (shape["data"], shape["tensor"]) == groups
    kernel = copy["decoder"]["layers"]["up"]["kernel"]
    assert kernel.addressable_shards[0].data.size * groups[1] == kernel.size
    wanted = {temperature: expected(heads, temperature) for temperature in (0.0, 1.0)}
    for temperature in wanted:
        check(answers(copy, heads, temperature), wanted[temperature])
    # The cache too: each device holds its own heads of its own rows.
    slots = engine(heads)._slots
    shard = slots.cache.keys.addressable_shards[0].data
    assert shard.size * mesh.size == slots.cache.keys.size
    # Numpy goes where the parameters before it lay, so it needs no device that
    # holds all of it.
    check(answers(jax.device_get(masters(heads)), heads), wanted[0.0])
    assert mesh_of(engine(heads)._params) == mesh_of(copy)
    engine(heads).rest()
    assert engine(heads)._params is None and engine(heads)._slots is None


@pytest.mark.slow
def test_groups_are_sampled_alike():
    """A group of responses from one prefill, on eight devices and on one."""
    mesh = make_mesh(2, 2, 2)
    keys = jax.random.split(jax.random.key(1), (2, 3))

    def run(model, params):
        sample = functools.partial(
            generate, model, max_new_tokens=TOKENS, stop_tokens=STOPS, temperature=0.0
        )
        found = jax.jit(sample)(params, make_prompts(2), keys)
        return jax.device_get((found.tokens, found.token_mask, found.log_prob))

    copy = acting_copy(make_model(), on_mesh(mesh), mesh)
    spread = model_on_mesh(make_model(), mesh_of(copy))
    check(run(spread, copy), run(make_model(), masters()))


@pytest.mark.slow
def test_a_copy_in_sixteen_bits_has_the_numbers_of_the_masters():
    """What is used in float32, such as norms, is not rounded."""
    model = make_model(dtype=jnp.bfloat16)
    copy = cast_copy(model, masters())
    kinds = {
        jax.tree_util.keystr(path): leaf.dtype
        for path, leaf in jax.tree_util.tree_leaves_with_path(copy)
    }
    for name, dtype in kinds.items():
        assert dtype == (jnp.float32 if "norm" in name else jnp.bfloat16), name
    found = answers(copy, dtype=jnp.bfloat16)
    wanted = answers(masters(), dtype=jnp.bfloat16)
    for left, right in zip(found, wanted, strict=True):
        np.testing.assert_array_equal(left, right)


@pytest.mark.slow
def test_on_one_device_nothing_is_copied_for_nothing():
    mesh = make_mesh(1, 1, 1, devices=jax.devices()[:1])
    params = masters()
    assert acting_copy(make_model(), params, mesh) is params
    assert mesh_of(params) is None and mesh_of({"a": np.zeros(2)}) is None


@pytest.mark.slow
def test_numpy_is_placed_as_devices_place():
    mesh = make_mesh(2, 2, 2)
    model = make_model(dtype=jnp.bfloat16)
    copy = acting_copy(model, on_mesh(mesh), mesh)
    placed = place_copy(model, jax.device_get(masters()), acting_mesh(model, mesh))
    for left, right in zip(jax.tree.leaves(copy), jax.tree.leaves(placed), strict=True):
        assert left.dtype == right.dtype and left.sharding == right.sharding
        np.testing.assert_array_equal(left, right)


# --- Groups and processes -------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class Device:
    """What groups look at of a device."""

    id: int
    process_index: int
    platform: str = "cpu"
    device_kind: str = "fake"


def described(processes, sizes):
    devices = [Device(index, process) for index, process in enumerate(processes)]
    grid = np.empty(len(devices), object)
    grid[:] = devices
    return Mesh(grid.reshape(sizes), ("data", "fsdp", "tensor"))


def test_groups_are_kept_within_processes():
    good = described([0, 0, 1, 1], (1, 2, 2))
    assert groups_in_processes(good) is good
    mended = groups_in_processes(described([0, 1, 0, 1], (1, 2, 2)))
    assert mended.shape == good.shape
    owners = [[device.process_index for device in row] for row in mended.devices[0]]
    assert owners == [[0, 0], [1, 1]]
    with pytest.raises(ValueError, match="several processes") as error:
        groups_in_processes(described([0, 0, 1, 1], (1, 1, 4)))
    assert "mesh.tensor = 4" in str(error.value) and "\n" not in str(error.value)
    assert "divisor of the 2 devices" in str(error.value)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["v5e:8x8", "v6e:8x8"])
def test_groups_fit_the_hosts_of_real_slices(name):
    pytest.importorskip("libtpu", reason="needs the extra compile-check")
    from stepjax.launch.topologies import describe_topology

    mesh = make_mesh(4, 4, 4, devices=describe_topology(name).devices)
    hosts = [
        {device.process_index for device in group}
        for group in groups_in_processes(mesh).devices.reshape(-1, 4)
    ]
    assert all(len(host) == 1 for host in hosts)
    assert len(set.union(*hosts)) == 16


@pytest.mark.slow
def test_two_processes_have_a_copy_each(repository_root):
    with socket.create_server(("localhost", 0)) as server:
        place = f"localhost:{server.getsockname()[1]}"
    settings = {
        "PYTHONPATH": str(repository_root),
        "JAX_PLATFORMS": "cpu",
        "JAX_NUM_CPU_DEVICES": "4",
    }
    processes = [
        subprocess.Popen(
            [sys.executable, "-m", "tests.models.qwen_vl.acting_process", place, index],
            cwd=repository_root,
            env=os.environ | settings,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )
        for index in "01"
    ]
    try:
        for process in processes:
            said = process.communicate(timeout=600)[1]
            assert process.returncode == 0, said[-3000:]
    finally:
        for process in processes:
            process.kill()
            process.communicate()
