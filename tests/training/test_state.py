import jax
import jax.numpy as jnp
import numpy as np
import pytest

from stepjax.training.state import draw_tasks, init_task_sampler, init_train_state
from stepjax.types import SuccessRateRecord
from tests.training.toy import host, init_params, make_optimizer, make_state

draw = jax.jit(draw_tasks, static_argnames="num_tasks")


@pytest.mark.parametrize(("total", "num_tasks"), [(43, 16), (5, 5), (6, 1), (9, 8)])
def test_every_task_once_per_epoch(total, num_tasks):
    ids = np.arange(total) * 3 + 1
    sampler = init_task_sampler(jax.random.key(0), ids)
    drawn = []
    for index in range(3 * total):
        sampler, tasks = draw(sampler, jax.random.key(index), num_tasks=num_tasks)
        assert tasks.dtype == jnp.int32
        assert len(set(tasks.tolist())) == num_tasks
        drawn.extend(tasks.tolist())
        counts = np.array([drawn.count(task) for task in ids])
        assert counts.max() - counts.min() <= 1
    assert set(drawn) == set(ids.tolist())
    epochs = np.array(drawn[: total * (len(drawn) // total)]).reshape(-1, total)
    assert all(sorted(epoch) == sorted(ids) for epoch in epochs)
    if total > 5:
        assert len({tuple(epoch) for epoch in epochs.tolist()}) > 1


def test_draw_is_deterministic_and_follows_the_key():
    def walk(seed):
        sampler = init_task_sampler(jax.random.key(seed), jnp.arange(20))
        drawn = []
        for index in range(8):
            key = jax.random.fold_in(jax.random.key(seed), index)
            sampler, tasks = draw(sampler, key, num_tasks=7)
            drawn.append(tasks)
        return np.stack(drawn)

    np.testing.assert_array_equal(walk(0), walk(0))
    assert (walk(0) != walk(1)).any()


def test_sampler_rejects_bad_input():
    sampler = init_task_sampler(jax.random.key(0), jnp.arange(4))
    with pytest.raises(ValueError, match=r"num_tasks must be in \[1, 4\].*got 5"):
        draw_tasks(sampler, jax.random.key(0), num_tasks=5)
    with pytest.raises(ValueError, match=r"num_tasks must be in \[1, 4\].*got 0"):
        draw_tasks(sampler, jax.random.key(0), num_tasks=0)
    with pytest.raises(ValueError, match=r"task_ids must be distinct, but 3 occurs 2"):
        init_task_sampler(jax.random.key(0), jnp.array([1, 3, 3]))
    with pytest.raises(ValueError, match=r"task_ids must have shape \[T\]"):
        init_task_sampler(jax.random.key(0), jnp.zeros((0,), jnp.int32))


def test_params_survive_donation():
    params, tx = init_params(), make_optimizer()
    record = SuccessRateRecord(rate=jnp.zeros(3), visits=jnp.zeros(3, jnp.int32))
    state = init_train_state(
        jax.random.key(0), params, tx, success_rate=record, task_ids=jnp.arange(3)
    )
    jax.jit(lambda s: s, donate_argnums=0)(state)
    assert not any(leaf.is_deleted() for leaf in jax.tree.leaves((params, record)))
    host((params, record))


def test_state_needs_a_typed_key():
    with pytest.raises(TypeError, match="typed PRNG key, got dtype uint32"):
        init_train_state(
            jnp.zeros(2, jnp.uint32),
            init_params(),
            make_optimizer(),
            success_rate=make_state(make_optimizer()).success_rate,
            task_ids=jnp.arange(3),
        )
