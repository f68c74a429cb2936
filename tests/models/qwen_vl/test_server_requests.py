"""Requests to a server in detail: what they ask for, with what key, and of what."""

import jax
import pytest

from stepjax.models.qwen_vl.server_http import ServerError
from tests.models.qwen_vl.stub_server import stub_server
from tests.models.qwen_vl.test_server import answers, prompt, sampler


@pytest.mark.parametrize("kind", ["vllm", "sglang"])
def test_nothing_that_changes_probabilities_is_left_to_the_server(kind):
    """vLLM would take it from generation_config.json, which asks for greedy answers."""
    with stub_server(kind) as server:
        one = sampler(server, top_p=0.9)
        one.start({}, jax.random.key(0), temperature=1.0)
        one.begin(0, prompt(), 0, 0)
        answers(one)
        _, body = server.asked[0]
    sampling = body.get("sampling_params", body)
    wanted = {
        **{"temperature": 1.0, "top_p": 0.9, "top_k": -1, "min_p": 0},
        **{"repetition_penalty": 1, "presence_penalty": 0, "frequency_penalty": 0},
    }
    assert {name: sampling.get(name) for name in wanted} == wanted


@pytest.mark.parametrize("kind", ["vllm", "sglang"])
def test_a_prompt_that_the_server_reads_otherwise_is_refused(kind):
    """As where its template adds a turn, or it resizes pictures."""
    with stub_server(kind) as server:
        one = sampler(server)
        one.start({}, jax.random.key(0), temperature=1.0)
        server.prompt_tokens = 12  # all four of the picture's are among them
        one.begin(0, prompt(), 0, 0)
        assert len(answers(one)) == 1
        server.prompt_tokens = 31
        one.begin(1, prompt(), 0, 0)
        with pytest.raises(ServerError, match="read 31 tokens of a prompt that has 12"):
            answers(one)
