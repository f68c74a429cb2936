"""The warm start's cache: used when it fits, made again when it does not."""

import dataclasses

import jax
import numpy as np
import pytest

from experiments import warm_start
from experiments.backends import make_policy
from experiments.config import ExperimentConfig, PolicyConfig, WarmStartConfig
from experiments.errors import UsageError
from experiments.warm_start import warm_started_params
from stepjax.rollout.sim import SimBackend


class Counting(SimBackend):
    """A simulator that counts how often it had to demonstrate."""

    calls = 0

    def demonstrations(self, num_episodes, seed):
        self.calls += 1
        return super().demonstrations(num_episodes, seed)


@pytest.fixture
def config(tmp_path):
    return ExperimentConfig(
        policy=PolicyConfig(width=8, layers=1, heads=1),
        warm_start=WarmStartConfig(
            steps=2, episodes=8, batch_size=16, cache_dir=tmp_path / "cache"
        ),
    )


@pytest.fixture
def backend(config):
    return Counting(make_policy(config.policy).sample, chunk_size=4)


def start(config, backend):
    return warm_started_params(config, backend, make_policy(config.policy))


@pytest.mark.slow
def test_second_start_reads_what_the_first_wrote(config, backend):
    first = start(config, backend)
    second = start(config, backend)
    assert backend.calls == 1
    assert jax.tree.structure(first) == jax.tree.structure(second)
    for a, b in zip(jax.tree.leaves(first), jax.tree.leaves(second), strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.slow
def test_other_settings_and_damage_make_it_again(config, backend):
    start(config, backend)
    other = dataclasses.replace(config.warm_start, steps=3)
    start(dataclasses.replace(config, warm_start=other), backend)
    assert backend.calls == 2
    for path in config.warm_start.cache_dir.iterdir():
        path.write_bytes(path.read_bytes()[:100])
    start(config, backend)
    assert backend.calls == 3


def test_unwritable_cache_is_one_line(config, backend, tmp_path):
    (tmp_path / "cache").write_text("a file where the folder should be")
    with pytest.raises(UsageError, match="warm-start.cache-dir .* cannot be written"):
        start(config, backend)
    assert not backend.calls


def test_a_cache_takes_whole_files_only(config, backend, monkeypatch):
    def full(*_, **__):
        raise OSError(28, "No space left on device")

    tokens = np.zeros((4, 3), np.int32)
    monkeypatch.setattr(backend, "demonstrations", lambda *_: (None, tokens))
    monkeypatch.setattr(warm_start.np, "savez", full)
    monkeypatch.setattr(
        warm_start, "clone_policy", lambda _, params, *__, **___: params
    )
    with pytest.raises(UsageError, match="No space left"):
        start(config, backend)
    assert not list(config.warm_start.cache_dir.iterdir())


@pytest.mark.parametrize("steps", [0, 2])
def test_a_checkpoint_that_cannot_be_read_is_one_line(
    config, backend, monkeypatch, steps
):
    def load(**_):
        raise ValueError("load_params: model lacks tensors.")

    tokens = np.zeros((4, 3), np.int32)
    monkeypatch.setattr(backend, "demonstrations", lambda *_: (None, tokens))
    policy = dataclasses.replace(make_policy(config.policy), load=load)
    settings = dataclasses.replace(config.warm_start, steps=steps)
    with pytest.raises(UsageError, match="lacks tensors"):
        warm_started_params(
            dataclasses.replace(config, warm_start=settings), backend, policy
        )


def test_a_backend_that_cannot_demonstrate_is_one_line(config):
    class Mute:
        name = "mute"

    with pytest.raises(UsageError, match="mute has no demonstrations"):
        start(config, Mute())
