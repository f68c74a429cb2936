"""The table of methods, and what each makes of a round."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments import methods
from experiments.config import METHOD_NAMES, AlgoConfig
from experiments.methods import METHODS, Outcomes, method_numbers


def outcomes(rewards, *, valid=None, lengths=None, hashes=None, tasks=None):
    rewards = jnp.asarray(rewards, jnp.float32)
    count = rewards.shape[0]
    lengths = jnp.full(count, 2) if lengths is None else jnp.asarray(lengths)
    steps = jnp.arange(2)[None, :]
    if hashes is None:
        hashes = jnp.arange(2 * count).reshape(count, 2)
    return Outcomes(
        task_id=jnp.arange(count) // 4 if tasks is None else jnp.asarray(tasks),
        reward=rewards,
        valid=jnp.ones(count, bool) if valid is None else jnp.asarray(valid),
        step_mask=steps < lengths[:, None],
        state_hash=jnp.asarray(hashes, jnp.uint32),
    )


RATES = jnp.array([0.25, 1.0, 0.0])


def test_table_names_are_the_settings_names():
    assert tuple(METHODS) == METHOD_NAMES


def test_ablations_differ_in_what_they_say():
    step = METHODS["step"]

    def changed(name):
        other = METHODS[name]
        return {
            field.name
            for field in dataclasses.fields(step)
            if getattr(other, field.name) != getattr(step, field.name)
        } - {"title"}

    assert changed("step_no_sampling") == {"resample"}
    assert changed("step_no_augmentation") == {"augment_weight"}
    assert changed("step_no_both") == {"resample", "augment_weight"}
    assert changed("step_balanced") == {"max_cache_groups", "augment_weight"}
    assert changed("gigrpo") == {"resample", "augment_weight", "advantage"}


@pytest.mark.parametrize(
    "method, numbers",
    [
        ("t_grpo", (16, 256, -1.0, 0.0)),
        ("gigpo", (16, 256, -1.0, 0.0)),
        ("step", (1, 256, 0.2, 1.0)),
        ("step_no_sampling", (16, 256, 0.2, 1.0)),
        ("step_no_augmentation", (1, 256, -1.0, 0.0)),
        ("step_no_both", (16, 256, -1.0, 0.0)),
        ("step_balanced", (1, 16, 0.2, 0.25)),
    ],
)
def test_numbers(method, numbers):
    found = method_numbers(AlgoConfig(method=method))
    assert dataclasses.astuple(found) == numbers


def test_overrides_of_a_methods_numbers():
    algo = AlgoConfig(method="step", max_cache_copies=5, augment_weight=0.5)
    assert method_numbers(algo).max_cache_copies == 5
    assert method_numbers(algo).augment_weight == 0.5
    # A method without step-level groups does not get them by a weight.
    off = method_numbers(AlgoConfig(method="gigrpo", augment_weight=0.5))
    assert off.augment_weight == 0.0


def test_group_baseline_counts_failures_and_skips_invalid():
    # Group 1: rewards 1, 0, 0 and an invalid one; mean 1/3, deviation 0.577.
    found = outcomes(
        [1, 0, 0, 1, 1, 1, 1, 1],
        valid=[True, True, True, False] + [True] * 4,
        lengths=[2, 1, 2, 2, 2, 2, 2, 2],
    )
    advantage, keep = methods.group_baseline(found, RATES, group_size=4, discount=0.95)
    high, low = 2 / 3 / 0.57735, -1 / 3 / 0.57735
    expected = [[high, high], [low, 0], [low, low], [0, 0]] + [[0, 0]] * 4
    np.testing.assert_allclose(advantage, expected, rtol=1e-4)
    assert not keep[3].any() and keep[1].tolist() == [True, False]


def test_success_only_weighs_by_the_rate_and_drops_failures():
    found = outcomes([1, 0, 1, 1, 1, 0, 0, 0], valid=[True] * 3 + [False] + [True] * 4)
    advantage, keep = methods.success_only(found, RATES, group_size=4, discount=0.95)
    expected = [[0.75] * 2, [0, 0], [0.75] * 2, [0, 0]] + [[0, 0]] * 4
    np.testing.assert_allclose(advantage, expected)
    assert keep[:, 0].tolist() == [True, False, True, False, True, False, False, False]


def test_state_groups_add_what_equal_states_tell():
    # All start in state 5; only the first two share the state after it.
    hashes = [[5, 6], [5, 6], [5, 7], [5, 8]]
    found = outcomes([1, 0, 0, 0], hashes=hashes)
    advantage, _ = methods.state_groups(found, RATES, group_size=4, discount=0.5)
    # Reward minus mean: .75 and -.25. Returns of step 0: .5 0 0 0; of step 1: 1 0 0 0.
    expected = [
        [0.75 + 0.375, 0.75 + 0.5],
        [-0.25 - 0.125, -0.25 - 0.5],
        [-0.25 - 0.125, -0.25],
        [-0.25 - 0.125, -0.25],
    ]
    np.testing.assert_allclose(advantage, expected, rtol=1e-6)


def test_state_groups_without_repeated_states_are_plain():
    found = outcomes([1, 0, 1, 0])
    advantage, _ = methods.state_groups(found, RATES, group_size=4, discount=0.95)
    np.testing.assert_allclose(advantage[:, 0], [0.5, -0.5, 0.5, -0.5])


@pytest.mark.parametrize("name", ["group_baseline", "state_groups", "success_only"])
def test_advantages_are_jittable_and_finite(name, strict_dtypes):
    function = jax.jit(getattr(methods, name), static_argnames="group_size")
    for rewards in ([0.0] * 4, [1.0] * 4, [0.9] * 4):
        advantage, keep = function(
            outcomes(rewards, tasks=jnp.full(4, 1, jnp.int32)),
            RATES,
            group_size=4,
            discount=jnp.float32(0.95),
        )
        assert advantage.dtype == jnp.float32 and keep.dtype == bool
        np.testing.assert_array_equal(advantage, 0.0)
