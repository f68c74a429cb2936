"""Samplers that answer late and out of order change nothing about trajectories."""

import functools
import random

import jax
import numpy as np
import pytest

from tests.envs.faulty import ScriptedVector, World, nth
from tests.rollout.test_host import assert_same, collect, sample_fn


@functools.cache
def drawn():
    def draw(params, prompt, key, episode, step, temperature):
        key = jax.random.fold_in(jax.random.fold_in(key, episode), step)
        batch = jax.tree.map(lambda leaf: leaf[None], prompt)
        found = sample_fn(params, batch, key[None], temperature=temperature)
        return tuple(part[0] for part in found)

    return jax.jit(draw)


class SlowSampler:
    """Lets requests lie for a random while and answers in a random order."""

    def __init__(self, seed=0):
        self.random = random.Random(seed)
        self.waiting = {}
        self.most = 0

    @property
    def busy(self):
        return bool(self.waiting)

    def start(self, params, key, *, temperature):
        self.waiting = {}
        self.draw = functools.partial(drawn(), params)
        self.key, self.temperature = key, np.float32(temperature)

    def begin(self, ticket, prompt, episode, step):
        assert ticket not in self.waiting
        where = np.int32(episode), np.int32(step)
        self.waiting[ticket] = self.draw(prompt, self.key, *where, self.temperature)
        self.most = max(self.most, len(self.waiting))

    def finished(self, wait_seconds=0.0):
        done = [ticket for ticket in self.waiting if self.random.random() < 0.3]
        self.random.shuffle(done)
        return [(one, tuple(map(np.asarray, self.waiting.pop(one)))) for one in done]


@pytest.fixture(scope="module")
def expected():
    return collect(World(), num_envs=1, buckets=(1,))


def test_the_same_as_in_batches(expected):
    sampler = SlowSampler()
    assert_same(collect(World(), sampler=sampler), expected)
    assert sampler.most > 1 and not sampler.busy


def test_the_same_with_vectors(expected):
    sampler = SlowSampler(1)
    world = World()
    made = functools.partial(ScriptedVector, world, num_slots=4)
    assert_same(collect(made, num_envs=2, sampler=sampler), expected)


@pytest.mark.parametrize("number", [2, 9])
def test_answers_for_episodes_started_over_are_dropped(expected, number):
    world = World(nth("step", number, "crash"))
    made = functools.partial(ScriptedVector, world, num_slots=4)
    assert_same(collect(made, num_envs=2, sampler=SlowSampler(2)), expected)
