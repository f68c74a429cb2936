"""Servers as samplers: what is sent, what comes back, what goes wrong."""

import gc
import io
import os
import socket
import subprocess
import sys
import threading
import time
import weakref
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from stepjax.models.qwen_vl.prompt import make_prompt
from stepjax.models.qwen_vl.server import ServerSampler, ServerSettings
from stepjax.models.qwen_vl.server_http import ServerError
from tests.models.qwen_vl.stub_server import picture_bytes, stub_server

MOST = 8
PAD, PICTURE = 3, 4
SPECIAL = {
    PICTURE: "<|image_pad|>",
    5: "<|vision_start|>",
    6: "<|vision_end|>",
    7: "<|im_start|>user\n",
    8: "<|im_end|>\n",
    9: "<|im_start|>assistant\n",
    1: "<|im_end|>",
}


class WordTokenizer:
    """Tokens that spell themselves."""

    def decode(self, ids):
        return "".join(SPECIAL.get(int(one), f"w{one}") for one in ids)


def prompt(word=20):
    """Says a word, then shows a picture of four visual tokens, padded on the left."""
    tokens = [7, word, 8, 7, 5, *[PICTURE] * 4, 6, 8, 9]
    index = np.full(len(tokens), -1)
    index[5:9] = range(4)
    images = np.zeros((1, 56, 56, 3), np.uint8)
    images[0, :, :, 0] = np.arange(56)[None]
    return make_prompt(
        tokens=tokens,
        positions=np.zeros((3, len(tokens))),
        next_position=len(tokens),
        image_index=index,
        images=images,
        length=16,
        pad_id=PAD,
    )


def sampler(server, **options):
    settings = {"retries": 2, "deadline_seconds": 1.0, "concurrency": 4}
    chosen = {name: options.pop(name) for name in list(options) if name in settings}
    return ServerSampler(
        ServerSettings(url=server.url, **{**settings, **chosen}),
        tokenizer=WordTokenizer(),
        max_new_tokens=MOST,
        stop_tokens=(1,),
        **options,
    )


@pytest.fixture(autouse=True)
def no_pauses(monkeypatch):
    monkeypatch.delenv("STEPJAX_SERVER_KEY", raising=False)
    monkeypatch.setattr("stepjax.models.qwen_vl.server_http._FIRST_PAUSE", 0.001)


def answers(one):
    found = {}
    while one.busy:
        found.update(one.finished(1.0))
    return found


@pytest.mark.parametrize("kind", ["vllm", "sglang"])
def test_answers_are_token_ids_with_log_probs(kind):
    with stub_server(kind) as server:
        one = sampler(server)
        one.start({}, jax.random.key(3), temperature=0.7)
        for ticket in range(20):
            one.begin(ticket, prompt(), ticket, 2)
        found = answers(one)
        bodies = [body for _, body in server.asked]
        one.close()
        seeds = []
        for body in bodies:
            sampling = body.get("sampling_params", body)
            seeds.append(sampling.get("seed", sampling.get("sampling_seed")))
            assert sampling["temperature"] == 0.7
        assert len(set(seeds)) == 20
        wanted = sorted(tuple(server.answer(body)[0]) for body in bodies)
    assert sorted(found) == list(range(20))
    said = []
    for tokens, mask, log_prob in found.values():
        assert tokens.shape == mask.shape == log_prob.shape == (MOST,)
        assert not tokens[~mask].any() and not log_prob[~mask].any()
        assert (log_prob[mask] <= 0).all()
        said.append(tuple(tokens[mask].tolist()))
    assert sorted(said) == wanted
    assert any(row[-1] == 1 for row in said)


def test_the_same_key_sends_the_same_seeds():
    with stub_server() as server:
        one = sampler(server)
        seeds = []
        for key in (3, 3, 4):
            one.start({}, jax.random.key(key), temperature=1.0)
            one.begin(0, prompt(), 5, 1)
            answers(one)
            seeds.append(server.asked[-1][1]["seed"])
    assert seeds[0] == seeds[1] != seeds[2]


def test_the_conversation_and_its_pictures_are_sent():
    image = pytest.importorskip("PIL.Image", reason="needs the extra vlm")
    with stub_server() as server:
        one = sampler(server)
        one.start({}, jax.random.key(0), temperature=0.0)
        one.begin(0, prompt(21), 0, 0)
        answers(one)
        path, body = server.asked[0]
    assert path == "/v1/chat/completions" and body["model"] == "tiny"
    first, second = body["messages"]
    assert first == {"role": "user", "content": [{"type": "text", "text": "w21"}]}
    (part,) = second["content"]
    shown = np.asarray(image.open(io.BytesIO(picture_bytes(part["image_url"]["url"]))))
    np.testing.assert_array_equal(shown, prompt().images[0])


def test_text_goes_to_sglang_with_one_mark_for_each_picture():
    with stub_server("sglang") as server:
        one = sampler(server)
        one.start({}, jax.random.key(0), temperature=0.0)
        one.begin(0, prompt(), 0, 0)
        answers(one)
        _, body = server.asked[0]
    assert body["text"].count("<|image_pad|>") == 1 == len(body["image_data"])
    assert body["text"].endswith("<|im_start|>assistant\n")


def test_ids_are_read_from_vllms_names_too():
    with stub_server() as server:
        server.without_ids = True
        one = sampler(server)
        one.start({}, jax.random.key(0), temperature=1.0)
        one.begin(0, prompt(), 0, 0)
        tokens, mask, _ = answers(one)[0]
        assert tokens[mask].tolist() == server.answer(server.asked[0][1])[0]


@pytest.mark.parametrize("fault", [503, 429, "drop", "slow"])
def test_faults_that_pass_are_retried(fault):
    with stub_server() as server:
        server.faults = [fault, fault]
        one = sampler(server)
        one.start({}, jax.random.key(0), temperature=1.0)
        one.begin(0, prompt(), 0, 0)
        assert len(answers(one)) == 1
        assert len(server.asked) == 3


@pytest.mark.parametrize(
    ("faults", "said"),
    [
        ([503] * 3, "answers 503.*told"),
        ([400], "answers 400"),
        (["slow"] * 3, "nothing within 1 seconds"),
        (["junk"], "token ids"),
    ],
)
def test_faults_that_stay_are_one_line(faults, said):
    with stub_server() as server:
        server.faults = faults
        one = sampler(server)
        one.start({}, jax.random.key(0), temperature=1.0)
        one.begin(0, prompt(), 0, 0)
        with pytest.raises(ServerError, match=said) as error:
            answers(one)
    assert "\n" not in str(error.value)


def test_nobody_there():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{free.getsockname()[1]}"
    settings = ServerSettings(url=url, retries=1, deadline_seconds=1.0)
    with pytest.raises(ServerError, match="after 2 attempts.*Is the server up"):
        ServerSampler(
            settings, tokenizer=WordTokenizer(), max_new_tokens=2, stop_tokens=(1,)
        )


@pytest.mark.parametrize("kind", ["vllm", "sglang"])
def test_new_weights_are_handed_over(kind, tmp_path):
    exported = []
    with stub_server(kind) as server:
        one = sampler(
            server,
            export=lambda params, folder: exported.append((params, folder)),
            folder=tmp_path,
        )
        first, second, third = ({"w": np.full(2, value)} for value in (1, 2, 3))
        for params in (first, first, second, second, third):
            one.start(params, jax.random.key(0), temperature=1.0)
        asked = [(path, body) for path, body in server.asked]
    assert [params["w"][0] for params, _ in exported] == [1, 2, 3]
    folders = [str(folder) for _, folder in exported]
    assert folders[0] == folders[2] != folders[1]  # by turns
    if kind == "sglang":
        assert [body["model_path"] for _, body in asked] == folders
        assert {path for path, _ in asked} == {"/update_weights_from_disk"}
    else:
        assert [path for path, _ in asked] == [
            "/collective_rpc",
            "/reset_prefix_cache",
        ] * 3
        assert asked[0][1]["kwargs"]["weights_path"] == folders[0]


def test_copies_of_the_same_weights_are_handed_over_once_and_not_kept(tmp_path):
    exported = []
    with stub_server() as server:
        one = sampler(
            server, export=lambda params, _: exported.append(1), folder=tmp_path
        )

        def act(masters):
            copy = {"w": masters["w"].astype(jnp.bfloat16)}
            one.made_of(copy, masters)
            one.start(copy, jax.random.key(0), temperature=1.0)
            one.begin(0, prompt(), 0, 0)
            one.rest()
            assert not one.busy
            seen = weakref.ref(copy["w"])
            del copy
            gc.collect()
            assert seen() is None, "the copy is still on the device"
            return len(exported)

        first, second = ({"w": jnp.full(4, value)} for value in (1.0, 2.0))
        assert [act(first), act(first), act(second), act(first)] == [1, 1, 2, 3]
        # As after an update: other arrays, though they may lie in the same memory.
        first = {"w": first["w"] + 1}
        assert [act(first), act(first)] == [4, 4]
        # A copy that is not known to be one counts by itself.
        one.start({"w": first["w"] + 0}, jax.random.key(0), temperature=1.0)
        assert len(exported) == 5
        one.close()


def test_weights_that_were_refused_are_handed_over_again(tmp_path):
    with stub_server() as server:
        one = sampler(server, export=lambda params, folder: None, folder=tmp_path)
        first, second = {"w": np.ones(1)}, {"w": np.zeros(1)}
        one.start(first, jax.random.key(0), temperature=1.0)
        server.refuses_weights = True
        with pytest.raises(ServerError):
            one.start(second, jax.random.key(0), temperature=1.0)
        server.refuses_weights = False
        before = len(server.asked)
        one.start(first, jax.random.key(0), temperature=1.0)  # it may hold the second
        assert len(server.asked) > before


def test_nothing_is_sent_again_once_closed(monkeypatch):
    monkeypatch.setattr("stepjax.models.qwen_vl.server_http._FIRST_PAUSE", 0.05)
    before = set(threading.enumerate())
    with stub_server() as server:
        server.faults = [503] * 1000
        one = sampler(server, retries=500)
        one.start({}, jax.random.key(0), temperature=1.0)
        for ticket in range(8):
            one.begin(ticket, prompt(), ticket, 0)
        while len(server.asked) < 4:
            time.sleep(0.01)
        own = [
            thread
            for thread in set(threading.enumerate()) - before
            if thread.name.startswith("stepjax-server")
        ]
        assert len(own) == 4
        one.close()
        one.close()
        assert not one.busy
        for thread in own:
            thread.join(20)
            assert not thread.is_alive()
        # The policy's next run opens it again.
        server.faults = []
        one.start({}, jax.random.key(0), temperature=1.0)
        one.begin(0, prompt(), 0, 0)
        assert len(answers(one)) == 1
        one.close()


_ASKS_AND_ENDS = """
import http.server, json, sys, threading
import jax
sys.path.insert(0, sys.argv[1])
from tests.models.qwen_vl.test_server import prompt, sampler

class Deaf(http.server.BaseHTTPRequestHandler):
    def log_message(self, *args):
        pass
    def do_GET(self):
        data = json.dumps({"data": [{"id": "tiny"}]}).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)
    def do_POST(self):
        asked.set()
        threading.Event().wait()

asked = threading.Event()
server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Deaf)
server.daemon_threads = True
server.url = f"http://127.0.0.1:{server.server_address[1]}"
threading.Thread(target=server.serve_forever, daemon=True).start()
one = sampler(server, deadline_seconds=600.0)
one.start({}, jax.random.key(0), temperature=1.0)
one.begin(0, prompt(), 0, 0)
assert asked.wait(60)
raise SystemExit("an error")
"""


def test_a_process_ends_while_a_server_is_silent():
    root = os.path.join(os.path.dirname(__file__), "..", "..", "..")
    ended = subprocess.run(
        [sys.executable, "-c", _ASKS_AND_ENDS, os.path.abspath(root)],
        env={**os.environ, "JAX_PLATFORMS": "cpu"},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert ended.returncode == 1 and ended.stderr.endswith("an error\n"), ended.stderr


def test_a_backend_closes_its_sampler():
    from stepjax.rollout.host import HostBackend

    with stub_server() as server:
        one = sampler(server)
        one.start({}, jax.random.key(0), temperature=1.0)

        class Pool:
            def close(self):
                self.closed = True

        backend: Any = object.__new__(HostBackend)
        backend._sampler, backend.pool = one, Pool()
        backend.close()
        assert backend.pool.closed and one._closed


@pytest.mark.parametrize("kind", ["vllm", "sglang"])
def test_refused_weights_are_one_line(kind, tmp_path):
    with stub_server(kind) as server:
        server.refuses_weights = True
        one = sampler(server, export=lambda params, folder: None, folder=tmp_path)
        with pytest.raises(ServerError) as error:
            one.start({"w": np.ones(1)}, jax.random.key(0), temperature=1.0)
    assert "\n" not in str(error.value)


def test_a_start_forgets_requests():
    with stub_server() as server:
        one = sampler(server)
        one.start({}, jax.random.key(0), temperature=1.0)
        one.begin(0, prompt(), 0, 0)
        one.start({}, jax.random.key(0), temperature=1.0)
        assert not one.busy
