"""A server that answers like vLLM or SGLang, and does what a test tells it to."""

import base64
import contextlib
import http.server
import json
import threading
import time
import zlib

import numpy as np


class StubServer(http.server.ThreadingHTTPServer):
    """Answers with tokens that are a function of the request.

    Attributes:
      asked: Path and body of every request, in order.
      faults: What to do with the next requests: a status, "drop", "slow" or "junk".
      stop: Token that ends a response.
      key: What requests must bring along; None for nothing.
      prompt_tokens: What it says that a prompt has; None for nothing.
    """

    daemon_threads = True

    def __init__(self, kind="vllm", *, stop=1, vocabulary=30):
        super().__init__(("127.0.0.1", 0), _Handler)
        self.kind, self.stop, self.vocabulary = kind, stop, vocabulary
        self.asked, self.faults = [], []
        self.lock = threading.Lock()
        self.refuses_weights = False
        self.without_ids = False
        self.prompt_tokens = None
        self.key = None

    @property
    def url(self):
        return f"http://127.0.0.1:{self.server_address[1]}"

    def answer(self, body):
        """Token ids and log-probabilities: few or many, by the seed."""
        sampling = body.get("sampling_params", body)
        seed = sampling.get("seed", sampling.get("sampling_seed"))
        most = sampling.get("max_tokens", sampling.get("max_new_tokens"))
        rng = np.random.default_rng(zlib.crc32(repr(seed).encode()))
        count = int(rng.integers(1, most + 2))
        ids = rng.integers(2, self.vocabulary, min(count, most)).tolist()
        if count <= most:
            ids[-1] = self.stop
        return ids, (-rng.random(len(ids))).round(4).tolist()


@contextlib.contextmanager
def stub_server(kind="vllm", **options):
    """A server in a thread of its own."""
    server = StubServer(kind, **options)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def picture_bytes(url):
    """What a data URL holds."""
    head, _, data = url.partition(",")
    assert head == "data:image/png;base64"
    return base64.b64decode(data)


class _Handler(http.server.BaseHTTPRequestHandler):
    server: StubServer

    def log_message(self, *args):
        """Say nothing."""

    def _knows_the_key(self):
        wanted, brought = self.server.key, self.headers["Authorization"]
        if brought == (None if wanted is None else f"Bearer {wanted}"):
            return True
        self._send({"error": "Unauthorized"}, 401)
        return False

    def do_GET(self):
        if not self._knows_the_key():
            return
        owner = "sglang" if self.server.kind == "sglang" else "vllm"
        self._send({"data": [{"id": "tiny", "owned_by": owner}]})

    def do_POST(self):
        size = int(self.headers["Content-Length"])
        body = json.loads(self.rfile.read(size))
        if not self._knows_the_key():
            return
        with self.server.lock:
            self.server.asked.append((self.path, body))
            fault = self.server.faults.pop(0) if self.server.faults else None
        if fault == "drop":
            self.connection.close()
        elif fault == "slow":
            time.sleep(1.5)
            self._send({})
        elif fault == "junk":
            self._send({"choices": []})
        elif fault:
            self._send({"error": "told\nto fail"}, fault)
        else:
            self._send(*self._reply(body))

    def _reply(self, body):
        server = self.server
        if self.path == "/v1/chat/completions":
            ids, log_probs = server.answer(body)
            content = [
                {"token": f"token_id:{one}", "logprob": value}
                for one, value in zip(ids, log_probs, strict=True)
            ]
            choice = {"logprobs": {"content": content}, "token_ids": ids}
            if server.without_ids:
                del choice["token_ids"]
            usage = {"prompt_tokens": server.prompt_tokens}
            return ({"choices": [choice], "usage": usage},)
        if self.path == "/generate":
            ids, log_probs = server.answer(body)
            said = [[v, i, None] for i, v in zip(ids, log_probs, strict=True)]
            about = {"output_token_logprobs": said}
            if server.prompt_tokens is not None:
                about["prompt_tokens"] = server.prompt_tokens
            return ({"meta_info": about},)
        if self.path == "/update_weights_from_disk":
            good = not server.refuses_weights
            return ({"success": good, "message": "done" if good else "no such folder"},)
        if self.path in ("/collective_rpc", "/reset_prefix_cache"):
            return ({}, 400) if server.refuses_weights else ({},)
        return ({"error": "no such path"}, 404)

    def _send(self, body, status=200):
        data = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            self.wfile.write(data)
