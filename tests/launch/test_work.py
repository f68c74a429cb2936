"""Operations from dimensions, against those the compiler counts without loops."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from benchmarks import scaling
from stepjax.launch.check_args import parse_args, workload_of
from stepjax.launch.chips import CHIPS
from stepjax.launch.roofline import (
    MeshSizes,
    Round,
    Times,
    decode_times,
    optimizer_times,
    pass_times,
    prefill_times,
    round_times,
)
from stepjax.launch.work import (
    Workload,
    cache_bytes,
    forward_flops,
    num_params,
    train_flops,
)
from stepjax.models.qwen_vl.config import PRESETS
from stepjax.models.qwen_vl.model import make_qwen_vl
from stepjax.models.qwen_vl.packed import packed_hidden
from stepjax.models.qwen_vl.prompt import VLPrompt

SCREEN = Workload(height=1092, width=1932, images=1, prompt=3200, response=128)


def prompts(rows, length, side):
    shape = jax.ShapeDtypeStruct
    return VLPrompt(
        tokens=shape((rows, length), jnp.int32),
        positions=shape((rows, 3, length), jnp.int32),
        segments=shape((rows, length), jnp.int32),
        next_position=shape((rows,), jnp.int32),
        images=shape((rows, 1, side, side, 3), jnp.uint8),
        image_index=shape((rows, length), jnp.int32),
    )


def compiled_flops(model, length, side, group, response, *, gradient=False):
    def forward(params, prompt, tokens, mask):
        return packed_hidden(model, params, prompt, tokens, mask)

    def scalar(*args):
        return jnp.sum(forward(*args).astype(jnp.float32))

    tokens = jax.ShapeDtypeStruct((1, group, response), jnp.int32)
    mask = jax.ShapeDtypeStruct((1, group, response), jnp.bool_)
    params = jax.eval_shape(model.init, jax.random.key(0))
    function = jax.value_and_grad(scalar) if gradient else forward
    lowered = jax.jit(function).lower(params, prompts(1, length, side), tokens, mask)
    return lowered.compile().cost_analysis()["flops"]


@pytest.mark.slow
@pytest.mark.parametrize("name", ["qwen2-vl-7b", "qwen2.5-vl-7b"])
def test_flops_from_dimensions(name):
    """A layer and two vision blocks, one of them with windows if any have."""
    whole = PRESETS[name]
    change = {"full_attention_layers": (1,)} if whole.vision.window_size else {}
    vision = dataclasses.replace(whole.vision, depth=2, **change)
    text = dataclasses.replace(whole.text, num_layers=1)
    config = dataclasses.replace(whole, text=text, vision=vision)
    model = make_qwen_vl(config, dtype=jnp.float32, attention="plain", scan=False)
    work = Workload(height=448, width=448, images=1, prompt=512, response=33)
    ours = forward_flops(config, work, group=3)
    found = compiled_flops(model, 512, 448, 3, 33)
    # The compiler adds norms, rotations, softmaxes and masked scores.
    assert 1.0 < found / (sum(ours.values()) - ours["head"]) < 1.02


@pytest.mark.parametrize("name", sorted(PRESETS))
def test_parameters_from_dimensions(name):
    config = PRESETS[name]
    shapes = jax.eval_shape(make_qwen_vl(config).init, jax.random.key(0))
    exact = {
        part: sum(x.size for x in jax.tree.leaves(tree))
        for part, tree in shapes.items()
    }
    exact["layers"] = exact.pop("decoder")
    for part, count in num_params(config).items():  # without norms and biases
        assert count == pytest.approx(exact.get(part, 0), rel=0.03)


def test_sizes_of_the_7b_models():
    for name in ("qwen2-vl-7b", "qwen2.5-vl-7b"):
        config = PRESETS[name]
        assert sum(num_params(config).values()) == pytest.approx(8.29e9, rel=0.01)
        # 28 layers, keys and values, 4 heads of 128, two bytes
        assert cache_bytes(config, 1) == 28 * 2 * 4 * 128 * 2


@pytest.mark.slow
def test_a_shared_prompt_is_paid_for_once():
    """Eight answers of 100 tokens to 3,000: near one prompt and eight answers."""
    text = dataclasses.replace(PRESETS["qwen2.5-vl-7b"].text, num_layers=1)
    config = dataclasses.replace(PRESETS["qwen2.5-vl-7b"], text=text)
    model = make_qwen_vl(config, attention="plain")
    flops = functools.partial(compiled_flops, model, 3000, 0, gradient=True)
    prompt, one, eight = flops(1, 1), flops(1, 100), flops(8, 100)
    ideal = prompt + 8 * (one - prompt)
    assert eight <= 1.35 * ideal
    assert 8 * one > 6 * eight


def test_shared_prompt_by_the_formula():
    config = PRESETS["qwen2-vl-7b"]
    alone, group = (
        sum(forward_flops(config, SCREEN, group=g).values()) for g in (1, 8)
    )
    assert group < 1.4 * alone
    model, run = train_flops(config, SCREEN, group=8, remat=True, vision=True)
    frozen, _ = train_flops(config, SCREEN, group=8, remat=True, vision=False)
    assert 3.9 * group < run < 4.1 * group
    assert frozen < model < run


def test_pass_times_scale_with_chips():
    config, found = PRESETS["qwen2.5-vl-7b"], []
    for fsdp in (4, 16):
        times = pass_times(
            config,
            CHIPS["v5e"],
            MeshSizes(data=1, fsdp=fsdp, tensor=4),
            SCREEN,
            prompts=16,
            group=8,
            remat=True,
            vision=True,
            scores=False,
            link_seconds=0.05,
        )
        found.append(times)
    assert found[0].compute == pytest.approx(4 * found[1].compute)
    assert found[0].links == found[1].links == 0.05
    assert found[0].bound == "compute"
    assert found[0].least == found[0].compute


def test_optimizer_times_by_hand():
    config, mesh = PRESETS["qwen2.5-vl-7b"], MeshSizes(data=1, fsdp=16, tensor=4)
    options = {"moment_bytes": 2, "link_seconds": 0.1}
    times = optimizer_times(config, CHIPS["v5e"], mesh, **options)
    # Parameters and gradients read, parameters written (and one more) in float32; two
    # moments read and written.
    moved = sum(num_params(config).values()) * (4 * 4 + 2 * 2 * 2) / 64
    assert times == Times(compute=0.0, memory=moved / 819e9, links=0.1)


def test_times_of_acting_by_hand():
    config, mesh = PRESETS["qwen2.5-vl-7b"], MeshSizes(data=1, fsdp=1, tensor=4)
    parts, chip = num_params(config), CHIPS["v5e"]
    own = {"prompts": 8, "link_seconds": 0.25}
    prefill = prefill_times(config, chip, mesh, SCREEN, scores=False, **own)
    read = forward_flops(config, SCREEN, group=0, sampling=True)
    assert prefill.compute == pytest.approx(8 * sum(read.values()) / (4 * 197e12))
    assert prefill.memory > 2 * sum(parts.values()) / 4 / 819e9
    decode = decode_times(config, chip, mesh, SCREEN, group=7, **own)
    assert prefill.links == decode.links == 0.25
    # 128 times all weights but the input's table, and the cache of 8 prompts with half
    # of 7 responses, its 4 heads over 4 chips.
    weights = 2 * (parts["layers"] + parts["head"]) / 4
    cache = 8 * cache_bytes(config, 3200 + 7 * 64) / 4
    assert decode.memory == pytest.approx(128 * (weights + cache) / 819e9)


def test_round_by_hand():
    second = Times(compute=1.0, memory=0.5, links=0.0)
    plan = Round(trajectories=10, turns=10.0, success=0.5, augmented=0.2)
    spent = round_times(
        plan,
        processes=4,
        prefill=second,
        decode=second.scaled(2),
        group_prefill=second,
        group_decode=Times(compute=0.0, memory=1.5, links=1.0),
        rows_per_update=60,
        group=8,
        micro_batch=4,
        group_pass=second,
        single_pass=Times(compute=0.1, memory=0.0, links=2.0),
        once=Times(compute=0.0, memory=4.0, links=0.5),
    )
    assert spent["prefill"] == pytest.approx(100 / 4)
    assert spent["decode"] == pytest.approx(100 / 4 * 2)
    assert spent["groups"] == pytest.approx(10 / 4 * (1 + 1.5))
    # 10 groups of 8 and 40 rows are two updates, each with 5 groups, 2 passes, and 20
    # rows, 5 passes: operations 2.5, memory 5, links 10.5.
    assert spent["train"] == pytest.approx(2 * 10.5)
    np.testing.assert_allclose(spent["environments"], 10 / 128 * 10 * 3.0)


def test_limits_of_a_slice_are_those_of_a_check_that_sends_nothing():
    """The benchmark's table without a compiler."""
    chips, spent = scaling._limits("qwen2-vl-7b", "v5e:8x8", scaling.GROUPS)
    assert chips == 64
    work = workload_of(parse_args([]), PRESETS["qwen2-vl-7b"])
    read = forward_flops(PRESETS["qwen2-vl-7b"], work, group=0, sampling=True)
    assert spent["prefill"] == pytest.approx(
        Round().steps * sum(read.values()) / (64 * 197e12)
    )
    assert spent["environments"] == pytest.approx(2 * 15.06 * 3)
