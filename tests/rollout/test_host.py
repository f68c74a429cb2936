import jax
import jax.numpy as jnp
import numpy as np
import pytest

from stepjax.envs.pool import Deadlines
from stepjax.rollout.backend import TaskTable
from stepjax.rollout.encode import PointerCodec
from stepjax.rollout.host import HostBackend
from tests.envs.faulty import ScriptedVector, World, target

TASK_IDS = np.arange(10) % 4
SEEDS = np.arange(10) + 20
CODEC = PointerCodec(num_widgets=5, num_words=6)
TABLE = TaskTable(
    names=("task-0", "task-1", "task-2", "task-3"),
    domains=("tiny",) * 4,
    train_ids=np.arange(3),
    unseen_ids=np.arange(3, 4),
    infeasible=np.zeros(4, bool),
    instruction=lambda task_id, seed: "",
)
LAZY = {"report": lambda line: None, "backoff_seconds": 0.001, "codec": CODEC}


def sample_fn(params, prompt, keys, *, temperature):
    """Clicks what it is told, but sometimes a random button, row by row."""
    same = prompt.widget_words[:, :, :, None] == prompt.words[:, None, None]
    told = jnp.argmax(
        jnp.any(same & (prompt.widget_words > 0)[..., None], (2, 3)), axis=1
    )
    draw = jax.vmap(lambda key: jax.random.randint(key, (2,), 0, 4))(keys)
    stray = (draw[:, 0] == 0) & (temperature > 0)
    widget = jnp.where(stray, draw[:, 1], told + params)
    tokens = jnp.stack([jnp.zeros_like(widget), widget, jnp.zeros_like(widget)], axis=1)
    mask = jnp.broadcast_to(jnp.array([True, True, False]), tokens.shape)
    log_prob = jnp.where(mask, -0.5 - 0.1 * draw[:, :1].astype(jnp.float32), 0.0)
    return tokens, mask, log_prob


def make_backend(make_environment, **options) -> HostBackend:
    settings = {"num_envs": 3, "max_steps": 5, "buckets": (2, 4), **LAZY, **options}
    return HostBackend("tiny", make_environment, TABLE, sample_fn, **settings)


def collect(make_environment, *, temperature=1.0, seed=0, **options):
    backend = make_backend(make_environment, **options)
    try:
        return backend.collect(
            0, TASK_IDS, SEEDS, jax.random.key(seed), temperature=temperature
        )
    finally:
        backend.close()


def assert_same(one, other):
    for a, b in zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.fixture(scope="module")
def expected():
    return collect(World(), num_envs=1, buckets=(1,))


def test_trajectories_say_what_happened(expected):
    assert expected.action_tokens.shape == (10, 5, 3)
    assert expected.prompt.words.shape == (10, 5, 6)
    assert all(isinstance(leaf, np.ndarray) for leaf in jax.tree.leaves(expected))
    assert expected.valid.all() and 0 < expected.reward.mean() < 1
    np.testing.assert_array_equal(expected.task_id, TASK_IDS)
    steps = 2 + SEEDS % 3
    np.testing.assert_array_equal(expected.step_mask.sum(axis=1), steps)
    for row, seed in enumerate(SEEDS):
        clicks = expected.action_tokens[row, : steps[row], 1]
        wanted = [target(seed, step) for step in range(steps[row])]
        assert expected.reward[row] == float(clicks.tolist() == wanted)
        # The history an action was drawn with is in the prompt of its step.
        kinds = expected.prompt.history_kind[row, : steps[row]]
        assert [(kind >= 0).sum() for kind in kinds] == [0, 1, 2, 3][: steps[row]]
    assert len(set(expected.state_hash[expected.step_mask].tolist())) == steps.sum()


def test_unused_steps_are_padding(expected):
    unused = ~expected.step_mask
    assert not expected.action_tokens[unused].any()
    assert not expected.token_mask[unused].any()
    assert not expected.log_prob[unused].any()
    assert not expected.state_hash[unused].any()
    assert not expected.prompt.words[unused].any()
    assert (expected.prompt.history_kind[unused] == -1).all()


@pytest.mark.parametrize(
    "options",
    [
        {"num_envs": 1, "buckets": (4,)},
        {"num_envs": 2, "buckets": (2, 4)},
        {"num_envs": 7, "buckets": (1, 3, 8), "max_wait_seconds": 0.0},
        {"num_envs": 7, "buckets": (2,), "max_wait_seconds": 0.1},
    ],
    ids=["one", "two", "eager", "patient"],
)
def test_results_do_not_depend_on_scheduling(expected, options):
    def script(index, where, task, call):
        return "lazy" if (index + call) % 3 == 0 else None

    assert_same(collect(World(script), **options), expected)


@pytest.mark.parametrize("slots", [1, 4, 16])
def test_results_do_not_depend_on_vectors(expected, slots):
    world = World()
    make = lambda index: ScriptedVector(world, index, slots)  # noqa: E731
    assert_same(collect(make, num_envs=2, buckets=(4, 8)), expected)


@pytest.mark.parametrize("fault", ["crash", "hang", "garbage"])
@pytest.mark.parametrize("phase", ["reset", "step", "evaluate"])
def test_retried_episodes_leave_no_trace(expected, fault, phase):
    # The first such call of every environment.
    world = World(
        lambda index, where, task, call: fault if (where, call) == (phase, 0) else None
    )
    deadlines = Deadlines(**{phase: 0.3})
    assert_same(collect(world, deadlines=deadlines, max_retries=4), expected)


def test_episodes_given_up_are_invalid_and_empty(expected):
    world = World(
        lambda index, where, task, call: (
            "crash" if task == "task-1" and where == "evaluate" else None
        )
    )
    result = collect(world, max_retries=1)
    gone = TASK_IDS == 1
    np.testing.assert_array_equal(result.valid, ~gone)
    assert not result.step_mask[gone].any() and not result.reward[gone].any()
    assert not result.token_mask[gone].any()
    take = lambda tree: jax.tree.map(lambda leaf: leaf[~gone], tree)  # noqa: E731
    assert_same(take(result), take(expected))


def test_key_and_temperature_matter(expected):
    assert (collect(World(), seed=1).action_tokens != expected.action_tokens).any()
    greedy = collect(World(), temperature=0.0)
    assert greedy.reward.all()


def test_compilations_are_bounded_by_the_buckets():
    sizes = []

    def counting(params, prompt, keys, *, temperature):
        sizes.append(keys.shape[0])
        return sample_fn(params, prompt, keys, temperature=temperature)

    backend = HostBackend(
        "tiny", World(), TABLE, counting, num_envs=5, buckets=(2, 4), **LAZY
    )
    for temperature in (1.0, 0.5, 0.0):
        for count in (1, 2, 3, 7, 10):
            backend.collect(
                jnp.int32(0),
                TASK_IDS[:count],
                SEEDS[:count],
                jax.random.key(count),
                temperature=temperature,
            )
    backend.close()
    assert sorted(set(sizes)) == sorted(sizes) and set(sizes) <= {2, 4}


def test_replay_draws_every_step_and_the_end(expected):
    row = int(np.flatnonzero(SEEDS % 3 == 1)[0])
    tokens = expected.action_tokens[row][expected.step_mask[row]]
    backend = make_backend(World())
    frames = backend.replay(int(TASK_IDS[row]), int(SEEDS[row]), tokens)
    backend.close()
    assert len(frames) == len(tokens) + 1
    for frame, (_, widget, _) in zip(frames, tokens, strict=False):
        assert frame.action == f"click button 'b{widget}'"
        assert frame.box == (widget / 4, 0.2, (widget + 1) / 4, 0.4)
        assert frame.image.dtype == np.uint8 and frame.image.std() > 0
    assert (frames[-1].action, frames[-1].box) == ("", None)


def test_replay_takes_screenshots_of_vectors_and_starts_over_after_faults(expected):
    world = World(
        lambda index, where, task, call: "crash" if (where, call) == ("step", 1) else ""
    )
    backend = make_backend(lambda index: ScriptedVector(world, index, 2), num_envs=1)
    tokens = expected.action_tokens[0][expected.step_mask[0]]
    frames = backend.replay(0, int(SEEDS[0]), tokens)
    backend.close()
    shades = [int(frame.image[0, 0, 0]) for frame in frames]
    assert shades == list(range(len(tokens) + 1))


def test_a_failed_replay_says_why():
    world = World(lambda index, where, task, call: "crash" if where == "reset" else "")
    backend = make_backend(world)
    with pytest.raises(
        RuntimeError, match="replay of task 2 failed: .*reset of task-2"
    ):
        backend.replay(2, 0, np.zeros((3, 3), np.int32))
    with pytest.raises(ValueError, match="L >= 1"):
        backend.replay(2, 0, np.zeros((0, 3), np.int32))
    backend.close()


def test_metrics():
    backend = make_backend(World())
    backend.collect(0, TASK_IDS, SEEDS, jax.random.key(0), temperature=1.0)
    backend.close()
    assert backend.metrics()["env/episodes_completed"] == 10
    assert [one.status.valid for one in backend.results] == [True] * 10


def test_rejects_ids_outside_the_table():
    backend = make_backend(World())
    with pytest.raises(ValueError, match=r"task_ids\[1\] = 4 is outside \[0, 4\)"):
        backend.collect(0, [0, 4], [0, 0], jax.random.key(0), temperature=1.0)
    with pytest.raises(ValueError, match="same shape"):
        backend.collect(0, [0, 1], [0], jax.random.key(0), temperature=1.0)


@pytest.mark.parametrize("buckets", [(), (4, 2), (0, 1), (2, 2)])
def test_rejects_bad_buckets(buckets):
    with pytest.raises(ValueError, match="buckets must be ascending"):
        make_backend(World(), buckets=buckets)
