"""Requests to a server in detail: what they ask for, with what key, and of what."""

import http.server
import threading

import jax
import numpy as np
import pytest

from stepjax.models.qwen_vl.prompt import make_prompt
from stepjax.models.qwen_vl.server_http import (
    Connection,
    ServerError,
    key_from_environment,
)
from stepjax.models.qwen_vl.server_messages import to_png_url
from tests.models.qwen_vl.stub_server import stub_server
from tests.models.qwen_vl.test_server import PICTURE, answers, prompt, sampler


@pytest.fixture(autouse=True)
def no_key(monkeypatch):
    monkeypatch.delenv("STEPJAX_SERVER_KEY", raising=False)


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


@pytest.mark.parametrize("shown", [0, 1, 2])
@pytest.mark.parametrize("visual", [1, 16])
def test_pictures_are_counted_whatever_the_size_of_their_tokens(shown, visual):
    """Room for three pictures of 56 x 56; tokens may be 56 or 14 pixels wide."""
    picture = [5, *[PICTURE] * visual, 6]
    tokens = [7, 20, *picture * shown, 8, 9]
    images = np.arange(3, dtype=np.uint8)[:, None, None, None]
    asked = make_prompt(
        tokens=tokens,
        positions=np.zeros((3, len(tokens))),
        next_position=len(tokens),
        image_index=np.where(
            np.array(tokens) == PICTURE, np.cumsum(np.array(tokens) == PICTURE) - 1, -1
        ),
        images=np.broadcast_to(images, (3, 56, 56, 3)),
        length=48,
        pad_id=3,
    )
    with stub_server() as server:
        one = sampler(server)
        one.start({}, jax.random.key(0), temperature=1.0)
        one.begin(0, asked, 0, 0)
        answers(one)
        (message,) = server.asked[0][1]["messages"]
    urls = [
        part["image_url"]["url"]
        for part in message["content"]
        if part["type"] == "image_url"
    ]
    assert urls == [to_png_url(one) for one in asked.images[:shown]]


@pytest.mark.parametrize("status", [404, 500])
def test_a_vllm_that_cannot_reload_is_asked_once(status, tmp_path):
    """Older ones have no `weights_path`, and say 500; others hide the route."""
    with stub_server() as server:
        server.faults = [status] * 9
        one = sampler(server, export=lambda params, folder: None, folder=tmp_path)
        with pytest.raises(ServerError, match="reload_weights takes a weights_path"):
            one.start({"w": np.ones(1)}, jax.random.key(0), temperature=1.0)
        assert [path for path, _ in server.asked] == ["/collective_rpc"]
        server.faults = [503]  # it is only busy
        one.start({"w": np.ones(1)}, jax.random.key(0), temperature=1.0)
        assert one.counts["handed_over"] == 1


def test_a_key_comes_from_the_environment_and_is_not_shown(monkeypatch):
    with stub_server() as server:
        server.key = "open-sesame"
        with pytest.raises(ServerError, match="answers 401.*STEPJAX_SERVER_KEY"):
            sampler(server)
        monkeypatch.setenv("STEPJAX_SERVER_KEY", "open-barley")
        with pytest.raises(ServerError, match="answers 401") as wrong:
            sampler(server)
        assert "barley" not in str(wrong.value)
        monkeypatch.setenv("STEPJAX_SERVER_KEY", "open-sesame\n")  # as from a file
        one = sampler(server)
        one.start({}, jax.random.key(0), temperature=1.0)
        one.begin(0, prompt(), 0, 0)
        assert len(answers(one)) == 1
        server.key = None
        monkeypatch.setenv("STEPJAX_SERVER_KEY", "")
        sampler(server)
    for key in ("two words", "two\nlines", "schl\u00fcssel"):
        monkeypatch.setenv("STEPJAX_SERVER_KEY", key)
        with pytest.raises(ServerError, match="printable ASCII") as bad:
            key_from_environment()
        assert key not in str(bad.value)


def test_a_key_stays_with_the_server_it_is_for():
    """A server that points elsewhere does not pass the key on."""
    seen = []

    class Elsewhere(http.server.BaseHTTPRequestHandler):
        def log_message(self, *args):
            """Say nothing."""

        def do_GET(self):
            seen.append((self.path, self.headers["Authorization"]))
            self.send_response(302 if self.path == "/v1/models" else 200)
            self.send_header("Location", "/moved")
            self.send_header("Content-Length", "0")
            self.end_headers()

    with http.server.HTTPServer(("127.0.0.1", 0), Elsewhere) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        url = f"http://127.0.0.1:{server.server_port}"
        Connection(url, retries=0, seconds=5.0, key="secret").get("/v1/models")
        server.shutdown()
        thread.join()
    assert seen == [("/v1/models", "Bearer secret"), ("/moved", None)]
