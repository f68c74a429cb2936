"""Continuous batching: the same responses as one by one, whoever comes when."""

import functools
from typing import Any

import jax
import numpy as np
import pytest
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from stepjax.models.qwen_vl.engine import Engine
from stepjax.models.qwen_vl.engine_sizes import EngineSizes
from stepjax.models.qwen_vl.generate import generate
from stepjax.models.qwen_vl.prompt import VLPrompt
from tests.models.qwen_vl.stand_in import StandIn, prompts

pytestmark = pytest.mark.slow  # compilers take longer than the tests

STOP = tuple(range(1, 6))
TOKENS = 11
KEY = jax.random.key(5)


@functools.cache
def params():
    return StandIn().init(jax.random.key(0))


@functools.cache
def engine(**options):
    settings = {"slots": 3, "prompt_buckets": (8, 12), "prefill_rows": 2, "chunk": 4}
    return Engine(
        StandIn(),
        sizes=EngineSizes(**settings),
        max_new_tokens=TOKENS,
        stop_tokens=STOP,
        **options,
    )


@functools.cache
def requests():
    """Ten prompts of several lengths, without leading axes."""
    whole = prompts([12, 7, 9, 5, 12, 6, 8, 11, 5, 7])
    fields = vars(whole)
    return [
        VLPrompt(**{name: np.asarray(leaf)[row] for name, leaf in fields.items()})
        for row in range(10)
    ]


@functools.cache
def expected(temperature=1.0):
    """The response of each request by itself: episode n, step n + 1."""

    tree = params()  # not first under `jit`, which would keep tracers

    def run(prompt, keys):
        return generate(
            StandIn(),
            tree,
            prompt,
            keys,
            temperature=temperature,
            max_new_tokens=TOKENS,
            stop_tokens=STOP,
        )

    def key_of(number):
        return jax.random.fold_in(jax.random.fold_in(KEY, number), number + 1)

    stacked = jax.tree.map(lambda *leaves: np.stack(leaves), *requests())
    keys = jax.vmap(key_of)(np.arange(10))[:, None]
    out = jax.device_get(jax.jit(run)(stacked, keys))
    return out.tokens[:, 0], out.token_mask[:, 0], out.log_prob[:, 0]


def spelled(ids):
    return "".join(f"<{i}>" for i in ids)


def check(ticket, answer, temperature=1.0):
    for found, whole in zip(answer, expected(temperature), strict=True):
        np.testing.assert_allclose(found, whole[ticket], atol=1e-5)


def test_all_at_once():
    one = engine()
    one.start(params(), KEY, temperature=1.0)
    for number, prompt in enumerate(requests()):
        one.begin(number, prompt, number, number + 1)
    seen = []
    while one.busy:
        for ticket, answer in one.finished():
            check(ticket, answer)
            seen.append(ticket)
    assert sorted(seen) == list(range(10))


def test_latecomers_join_and_the_long_hold_nobody_back():
    one = engine()
    one.start(params(), KEY, temperature=1.0)
    lengths = expected()[1].sum(1)
    longest = int(np.argmax(lengths))
    order = [longest] + [n for n in range(10) if n != longest]
    done, waiting = [], order[:]
    one.begin(longest, requests()[longest], longest, longest + 1)
    waiting.remove(longest)
    while one.busy or waiting:
        if waiting:
            number = waiting.pop(0)
            one.begin(number, requests()[number], number, number + 1)
        for ticket, answer in one.finished():
            check(ticket, answer)
            done.append(ticket)
    assert sorted(done) == list(range(10))
    assert done.index(longest) > 0  # others came later and left sooner


@pytest.mark.parametrize("where", ["device", "mesh"])
def test_a_program_compiles_once_wherever_the_parameters_lie(where):
    device = jax.devices()[0]
    mesh = Mesh(np.array([[[device]]]), ("data", "fsdp", "tensor"))
    chosen = {"device": device, "mesh": NamedSharding(mesh, PartitionSpec())}
    tree = jax.device_put(params(), chosen[where])
    one = Engine(
        StandIn(),
        sizes=EngineSizes(slots=2, prompt_buckets=(12,), prefill_rows=1, chunk=4),
        max_new_tokens=TOKENS,
        stop_tokens=STOP,
    )
    for _ in range(2):
        one.start(tree, KEY, temperature=1.0)
        for number in range(3):
            one.begin(number, requests()[number], number, number + 1)
        while one.busy:
            for ticket, answer in one.finished():
                check(ticket, answer)
    programs = one._programs
    assert [part._cache_size() for part in (programs.join, programs.advance)] == [1, 1]


def test_greedy():
    one = engine()
    one.start(params(), KEY, temperature=0.0)
    one.begin(4, requests()[4], 4, 5)
    answers = []
    while one.busy:
        answers += one.finished()
    check(*answers[0], temperature=0.0)


def test_a_start_forgets_what_was_under_way():
    one = engine()
    one.start(params(), KEY, temperature=1.0)
    for number in range(6):
        one.begin(number, requests()[number], number, number + 1)
    one.finished()
    one.start(params(), KEY, temperature=1.0)
    assert not one.busy and one.finished() == []
    one.begin(8, requests()[8], 8, 9)
    answers = []
    while one.busy:
        answers += one.finished()
    assert len(answers) == 1
    check(*answers[0])


def test_stop_strings_end_a_response_early():
    tokens, mask, log_prob = expected()
    longest = int(np.argmax(mask.sum(1)))
    third = int(tokens[longest, 2])

    one = engine(stop_strings=(f"<{third}>",), decode=spelled)
    one.start(params(), KEY, temperature=1.0)
    one.begin(longest, requests()[longest], longest, longest + 1)
    answers = []
    while one.busy:
        answers += one.finished()
    count = 1 + int(np.flatnonzero(tokens[longest] == third)[0])
    found = answers[0][1]
    assert found[1].sum() == count
    np.testing.assert_array_equal(found[0][:count], tokens[longest, :count])
    np.testing.assert_allclose(found[2][:count], log_prob[longest, :count], atol=1e-5)


def test_a_response_that_a_stop_string_ended_ends_on_the_device():
    tokens, mask, _ = expected()
    longest, other = np.argsort(-mask.sum(1), kind="stable")[:2].tolist()
    first = int(tokens[longest, 0])
    assert first not in tokens[other]
    one = engine(stop_strings=(f"<{first}>",), decode=spelled)
    one.start(params(), KEY, temperature=1.0)
    for number in (longest, other):
        one.begin(number, requests()[number], number, number + 1)
    chunks = 0
    while one.busy:
        one.finished()
        chunks += 1
    assert chunks > 1  # the cut one could have gone on
    found: Any = one._slots
    assert int(found.count[0]) == 5 < mask[longest].sum()  # one prefilled, one chunk
    assert int(found.count[1]) == mask[other].sum()


def test_bad_input_is_named():
    with pytest.raises(ValueError, match="prompt_buckets"):
        EngineSizes(prompt_buckets=())
    with pytest.raises(ValueError, match="slots"):
        EngineSizes(slots=0)
    with pytest.raises(ValueError, match="decode"):
        engine(stop_strings=("x",))
    short = Engine(
        StandIn(),
        sizes=EngineSizes(prompt_buckets=(6,)),
        max_new_tokens=2,
        stop_tokens=(1,),
    )
    with pytest.raises(ValueError, match="12 tokens"):
        short.begin(0, requests()[0], 0, 0)
