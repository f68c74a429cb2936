"""Operations from dimensions, against those the compiler counts without loops."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from stepjax.launch.chips import CHIPS
from stepjax.launch.roofline import MeshSizes, Round, Times, round_times, train_times
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
@pytest.mark.parametrize("name", ["tiny-qwen2-vl", "tiny-qwen2.5-vl"])
def test_flops_from_dimensions(name):
    config = PRESETS[name]
    model = make_qwen_vl(config, dtype=jnp.float32, attention="plain", scan=False)
    work = Workload(height=112, width=112, images=1, prompt=64, response=17)
    ours = forward_flops(config, work, group=3)
    found = compiled_flops(model, 64, 112, 3, 17)
    # The compiler adds norms, rotations, softmaxes and masked scores, which are a large
    # share of so small a model.
    assert 1.0 < found / (sum(ours.values()) - ours["head"]) < 1.7


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


def test_train_times_scale_with_chips():
    config, found = PRESETS["qwen2.5-vl-7b"], []
    for fsdp in (4, 16):
        times = train_times(
            config,
            CHIPS["v5e"],
            MeshSizes(data=1, fsdp=fsdp, tensor=4),
            SCREEN,
            prompts=64,
            group=8,
            micro_batch=fsdp,
            remat=True,
            vision=True,
            scores=False,
            moment_bytes=4,
            link_seconds=0.5,
        )
        found.append(times)
    assert found[0].compute == pytest.approx(4 * found[1].compute)
    assert found[0].bound == "compute"
    assert found[0].least == found[0].compute


def test_round_by_hand():
    second = Times(compute=1.0, memory=0.5, links=0.0)
    plan = Round(trajectories=10, turns=10.0, success=0.5, augmented=0.2)
    spent = round_times(
        plan,
        update=second,
        update_prompts=10,
        single_share=0.5,
        prefill=second,
        decode=second.scaled(2),
        sample_rows=20,
        group_decode=second + second,
    )
    assert spent["prefill"] == pytest.approx(5.0)
    assert spent["decode"] == pytest.approx(10.0)
    assert spent["groups"] == pytest.approx(10 / 20 * 3)
    assert spent["train"] == pytest.approx((10 + 0.5 * 40) / 10)
    np.testing.assert_allclose(spent["environments"], 10 / 128 * 10 * 3.0)
