import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from stepjax.envs import sim
from stepjax.envs.actions import ActionKind


def test_oracle_solves_every_task(quiet, play):
    states, success, _ = play(quiet)
    failed = np.flatnonzero(np.asarray(success) != 1)
    assert failed.size == 0, f"tasks {failed}"
    assert np.asarray(states.time).max() <= 13
    assert np.all(np.asarray(states.outcome) <= 2)


def test_oracle_copes_with_mishaps(pool, play):
    rates = [np.mean(play(pool, seed=seed)[1]) for seed in range(6)]
    assert 0.9 < np.mean(rates) < 1.0


def test_oracle_fails_only_what_cannot_be_done(quiet, table, play):
    _, _, records = play(quiet)
    kinds, ended = np.asarray(records["tokens"][..., 0]), np.asarray(records["ended"])
    gave_up = np.any((kinds == ActionKind.FAIL) & ~ended, axis=1)
    np.testing.assert_array_equal(gave_up, table.infeasible)


@pytest.mark.slow
def test_oracle_recovers_from_random_beginnings(quiet):
    def episode(task, seed, key):
        def wander(state, key):
            chance, widget = jax.random.split(key)
            kinds = jnp.array([0, 0, 0, 0, 2, 3, 5, 4])
            kind = jax.random.choice(chance, kinds)
            place = jax.random.randint(widget, (), 0, 16)
            return sim.step(quiet, state, jnp.stack([kind, place, 0])), None

        def act(state, _):
            return sim.step(quiet, state, sim.oracle(quiet, state)), None

        state = sim.reset(quiet, task, seed)
        state, _ = jax.lax.scan(wander, state, jax.random.split(key, 8))
        trapped = jnp.any(
            (state.settings != quiet.item_default) & (quiet.item_kind == 3)
        )
        state, _ = jax.lax.scan(act, state, None, length=32)
        return sim.success(quiet, state), trapped

    tasks = quiet.tasks
    tasks = dataclasses.replace(tasks, step_limit=jnp.full_like(tasks.step_limit, 40))
    keys = jax.random.split(jax.random.key(0), 369)
    seeds = jnp.arange(369, dtype=jnp.uint32)
    success, trapped = jax.jit(jax.vmap(episode))(tasks, seeds, keys)
    success, trapped = np.asarray(success), np.asarray(trapped)
    feasible = ~np.asarray(tasks.infeasible)
    assert 0.02 < trapped.mean() < 0.7
    assert np.all(success[~trapped] == 1)
    assert np.all(success[trapped & feasible] == 0)


def _demonstrations(pool, tasks, key):
    def episode(task, key):
        belief_key, seed_key, step_key = jax.random.split(key, 3)
        belief = sim.init_belief(pool, task, belief_key)

        def act(state, key):
            tokens = sim.demonstrate(pool, state, belief, key)
            return sim.step(pool, state, tokens), tokens

        state = sim.reset(pool, task, jax.random.bits(seed_key))
        state, tokens = jax.lax.scan(act, state, jax.random.split(step_key, 15))
        return sim.success(pool, state), tokens

    return jax.vmap(episode)(tasks, jax.random.split(key, tasks.task_id.shape[0]))


@pytest.mark.slow
def test_demonstrator_errs_as_expected(pool, table):
    run = jax.jit(_demonstrations)
    rates = np.mean(
        [run(pool, pool.tasks, jax.random.key(i))[0] for i in range(24)], axis=0
    )
    expected = table.expected_success
    assert np.corrcoef(rates, expected)[0, 1] > 0.95
    assert abs(rates.mean() - expected.mean()) < 0.08
    assert 0.3 < rates[table.train_ids].mean() < 0.55


def test_a_belief_is_right_where_the_name_is_known(pool, quiet):
    sure = dataclasses.replace(quiet, alias_error=jnp.zeros_like(pool.alias_error))
    keys = jax.random.split(jax.random.key(0), 369)
    believe = jax.jit(jax.vmap(sim.init_belief, (None, 0, 0)))
    beliefs = believe(sure, sure.tasks, keys)
    right = jax.jit(jax.vmap(sim.true_belief, (None, 0)))(sure, sure.tasks)
    jax.tree.map(np.testing.assert_array_equal, beliefs, right)


def test_confusions_are_other_items_of_the_same_application(pool):
    item, confusion = np.asarray(pool.alias_item), np.asarray(pool.alias_confusion)
    real = item >= 0
    assert np.all(confusion[real] != item[real][:, None])
    apps = np.asarray(pool.item_app)
    assert np.all(apps[confusion[real]] == apps[item[real]][:, None])
    kinds = np.asarray(pool.item_kind)
    same = kinds[confusion[real]] == kinds[item[real]][:, None]
    assert np.all(same | (kinds[confusion[real]] == 3))
    options = np.asarray(pool.item_options)
    choice = real & (kinds[item] == 1)
    assert np.all(options[confusion[choice]] == options[item[choice]][:, None])
