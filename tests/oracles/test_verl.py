"""Agreement with verl, from a stored file and, where it is installed, live.

`STEPJAX_VERL_PYTHON` names an interpreter that has torch and verl; without it the
present one is tried. `make_verl_golden.py` says how to make such an environment.
"""

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import stepjax
from stepjax.types import StepBatch
from tests.oracles import make_verl_golden as golden

GOLDEN = Path(__file__).resolve().parent.parent / "data" / "verl_golden.npz"
CLIP = {
    "clip_eps_low": golden.CLIP_LOW,
    "clip_eps_high": golden.CLIP_HIGH,
    "dual_clip": golden.DUAL_CLIP,
}
LOSSES = {
    "token_mean": {"reduction": stepjax.token_mean},
    "step_mean": {"reduction": stepjax.step_mean},
    "sampler_weight": {"reduction": stepjax.token_mean},
    "gspo": {
        "reduction": stepjax.step_mean,
        "ratio_fn": stepjax.sequence_ratio,
        "dual_clip": jnp.inf,
    },
}


def load(path):
    with np.load(path, allow_pickle=False) as stored:
        arrays = dict(stored)
    return tuple(
        {k[len(part) :]: v for k, v in arrays.items() if k.startswith(part)}
        for part in ("in_", "out_")
    )


@pytest.fixture(scope="module")
def stored():
    return load(GOLDEN)


def batch_of(given):
    rows = given["mask"].shape[0]
    return StepBatch(
        prompt=None,
        action_tokens=np.zeros(given["mask"].shape, np.int32),
        token_mask=given["mask"],
        old_log_prob=given["old_log_prob"],
        advantage=given["advantage"],
        weight=np.ones(rows, np.float32),
        task_id=np.zeros(rows, np.int32),
        trajectory_id=np.arange(rows, dtype=np.int32),
    )


def our_loss(given, name):
    """Loss, gradient and clip fraction under verl's conventions."""
    numbers = CLIP | LOSSES[name]
    if name == "sampler_weight":
        numbers["sampler_weight"] = given["token_weight"]

    def mean(log_prob):
        out = stepjax.step_grpo_loss(log_prob, batch_of(given), **numbers)
        share = out.metrics["clip_fraction"]
        return (
            stepjax.safe_divide(out.loss.total, out.loss.weight),
            stepjax.safe_divide(share.total, share.weight),
        )

    program = jax.jit(jax.value_and_grad(mean, has_aux=True))
    (loss, clipped), grad = program(given["log_prob"])
    return {"loss": loss, "grad": grad, "clip_fraction": clipped}


def groupwise(fn, given):
    """`fn(rewards, mask)` for each group, with the others masked out."""
    member = given["group"][None, :] == np.arange(4)[:, None]
    rewards = np.broadcast_to(given["reward"], member.shape)
    return np.asarray(jax.jit(jax.vmap(fn))(rewards, member)).sum(0)


def agree(got, want):
    np.testing.assert_allclose(got, want, rtol=2e-5, atol=2e-6)


def test_inputs_are_those_of_the_script(stored):
    given, _ = stored
    for name, value in golden.make_inputs().items():
        np.testing.assert_array_equal(given[name], value, err_msg=name)


@pytest.mark.parametrize("name", ["grpo", "grpo_vectorized"])
def test_group_advantages(stored, name):
    given, want = stored
    agree(groupwise(stepjax.group_advantages, given), want[name])
    ragged = stepjax.ragged_group_advantages(
        given["reward"], given["group"], np.ones(golden.ROWS, bool), num_groups=4
    )
    agree(ragged, want[name])


def test_centered_advantages(stored):
    given, want = stored
    agree(groupwise(stepjax.centered_advantages, given), want["centered"])


@pytest.mark.parametrize("name", ["rloo", "rloo_vectorized"])
def test_leave_one_out_advantages(stored, name):
    given, want = stored
    agree(groupwise(stepjax.leave_one_out_advantages, given), want[name])


def test_equal_rewards_are_where_we_differ(stored):
    _, want = stored
    ours = stepjax.group_advantages(jnp.full(7, 0.9), jnp.ones(7, bool))
    assert not np.any(ours)
    assert np.all(want["grpo_equal"] != 0), "rounding noise over epsilon"


@pytest.mark.parametrize("name", LOSSES)
def test_losses_and_gradients(stored, name):
    given, want = stored
    for part, value in our_loss(given, name).items():
        agree(value, want[f"{name}_{part}"])


@pytest.mark.parametrize("name", ["k1", "k2", "k3"])
def test_kl_estimators(stored, name):
    given, want = stored
    fn = getattr(stepjax, f"kl_{name}")
    # verl cuts k3 at 10; these inputs stay below.
    assert np.max(want[name]) < 10
    agree(fn(given["log_prob"], given["old_log_prob"]), want[name])


def test_entropy(stored):
    given, want = stored
    mean = stepjax.token_mean(stepjax.entropy(given["logits"]), given["mask"])
    agree(mean.total / mean.weight, want["entropy"])


@pytest.mark.oracle
def test_live_functions_give_what_is_stored(stored, tmp_path):
    python = os.environ.get("STEPJAX_VERL_PYTHON", sys.executable)
    if python == sys.executable and not importlib.util.find_spec("verl"):
        pytest.skip("verl is not installed; set STEPJAX_VERL_PYTHON")
    path = tmp_path / "live.npz"
    subprocess.run([python, golden.__file__, str(path)], check=True, cwd=tmp_path)
    _, want = stored
    _, live = load(path)
    assert live.keys() == want.keys()
    for name in want:
        np.testing.assert_allclose(
            live[name], want[name], rtol=1e-5, atol=1e-6, err_msg=name
        )
