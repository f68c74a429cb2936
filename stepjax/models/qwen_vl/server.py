"""A server of vLLM or SGLang as the sampler, and handing it new weights.

Prompts go out as they stand in the policy's arrays: the conversation is read back from
the tokens, the pictures travel as PNG in the size that the policy sees, so what the
server samples from is what the trainer evaluates. Answers come back as token ids with
log-probabilities; text is never tokenized again.

The servers, started with the folder that the run starts from:

- vLLM (chat completions): `VLLM_SERVER_DEV_MODE=1 vllm serve FOLDER --logprobs-mode
  processed_logprobs`, so that log-probabilities are those of the temperature used and
  weights can be reloaded.
- SGLang (its own `/generate`): `python -m sglang.launch_server --model-path FOLDER`.

The key of a server that asks for one is read from `STEPJAX_SERVER_KEY`.

Servers compute a little differently from the trainer, so rows they sampled carry both
log-probabilities, and the loss corrects for the difference.
"""

import collections
import concurrent.futures
import dataclasses
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np

from stepjax.models.qwen_vl.generate import cut_at_stop
from stepjax.models.qwen_vl.server_arrays import Arrays
from stepjax.models.qwen_vl.server_http import (
    BUSY,
    Connection,
    ServerError,
    key_from_environment,
)
from stepjax.models.qwen_vl.server_messages import (
    count_pictures,
    prompt_text,
    to_png_url,
)
from stepjax.models.qwen_vl.server_requests import (
    Reply,
    Sampling,
    chat_body,
    generate_body,
    read_chat,
    read_generate,
)
from stepjax.models.qwen_vl.server_threads import Threads

__all__ = ["SERVER_KINDS", "ServerSampler", "ServerSettings"]

SERVER_KINDS = ("auto", "vllm", "sglang")
"""Servers by name; "auto" asks the server."""

Answer = tuple[np.ndarray, np.ndarray, np.ndarray]


@dataclasses.dataclass(frozen=True, kw_only=True)
class ServerSettings:
    """How to talk to a server.

    Attributes:
      url: Its address, such as http://host:8000.
      kind: One of `SERVER_KINDS`.
      model: Name of the model there; None for the first it offers.
      deadline_seconds: For one answer.
      reload_seconds: For taking new weights.
      retries: Times a request is sent again after a fault.
      concurrency: Requests under way at the same time.
    """

    url: str
    kind: str = "auto"
    model: str | None = None
    deadline_seconds: float = 180.0
    reload_seconds: float = 900.0
    retries: int = 4
    concurrency: int = 64

    def __post_init__(self):
        """Check the fields."""
        if not self.url.startswith(("http://", "https://")):
            raise ValueError(
                "ServerSettings: url must be an address such as http://host:8000, got "
                f"{self.url!r}."
            )
        if self.kind not in SERVER_KINDS:
            raise ValueError(
                f"ServerSettings: kind must be one of {SERVER_KINDS}, got "
                f"{self.kind!r}."
            )
        if self.concurrency < 1 or self.retries < 0 or self.deadline_seconds <= 0:
            raise ValueError(
                "ServerSettings: concurrency must be >= 1, retries >= 0 and "
                f"deadline_seconds > 0, got {self}."
            )


class ServerSampler:
    """Samples through a server; a `stepjax.rollout.sampler.Sampler`."""

    def __init__(
        self,
        settings: ServerSettings,
        *,
        tokenizer: Any,
        max_new_tokens: int,
        stop_tokens: Sequence[int],
        top_p: float = 1.0,
        stop_strings: Sequence[str] = (),
        export: Callable[[Any, Path], None] | None = None,
        folder: Path | None = None,
    ):
        """A sampler; the server is asked who it is.

        Args:
          settings: Where the server is.
          tokenizer: A `stepjax.models.qwen_vl.tokens.Tokenizer` of the model.
          max_new_tokens: A, most tokens of a response.
          stop_tokens: Tokens that end a response.
          top_p: Share of the probability that is sampled from.
          stop_strings: Texts that end a response.
          export: `export(params, folder)` writes weights as the server loads them;
            None if it has the right ones and is never to be given others.
          folder: Where to export to, seen by the server under the same path.

        Raises:
          ServerError: If nothing usable answers there; one line says why.
        """
        self._settings, self._tokenizer = settings, tokenizer
        self._sampling = Sampling(
            max_new_tokens=max_new_tokens,
            stop_tokens=tuple(stop_tokens),
            top_p=top_p,
            stop_strings=tuple(stop_strings),
        )
        self._export, self._folder = export, folder
        self._open()
        self._kind, self._model = self._find_out()
        self._asked: dict[int, concurrent.futures.Future[Answer]] = {}
        self._seeds: Callable[[int, int], int] = lambda episode, step: 0
        self._temperature = 1.0
        self._given: Arrays | None = None
        self._copied: tuple[Arrays, Arrays] | None = None
        self.counts: collections.Counter[str] = collections.Counter()

    @property
    def busy(self) -> bool:
        """Whether any request waits for its response."""
        return bool(self._asked)

    def start(self, params: Any, key: jax.Array, *, temperature: float) -> None:
        """Forget all requests and sample with these parameters from now on.

        Parameters that the server was not given before are exported and handed over,
        also the first: it may have been started with others.

        Args:
          params: The model's parameters.
          key: What every draw depends on, beside episode and step.
          temperature: 0 is greedy.

        Raises:
          ServerError: If the server does not take the weights.
        """
        self.rest()
        if self._closed:
            self._open()
        arrays = Arrays(params)
        if self._copied is not None and arrays.are(self._copied[0]):
            arrays = self._copied[1]
        known = self._given
        if self._export is not None if known is None else not arrays.are(known):
            self._hand_over(params)
        self._given = arrays
        base = np.asarray(jax.random.key_data(key)).astype(np.uint64).ravel()
        words = [int(word) for word in base]

        def seed_of(episode: int, step: int) -> int:
            mixed = np.random.SeedSequence([*words, episode, step])
            return int(mixed.generate_state(1)[0]) >> 1

        self._seeds = seed_of
        self._temperature = float(temperature)

    def made_of(self, copy: Any, source: Any) -> None:
        """Note that a copy of parameters is as good as what it was made of.

        `start` then hands over one copy of the same parameters, not each. Nothing is
        kept but which arrays they are.

        Args:
          copy: Parameters that `start` may be given.
          source: What they were made of.
        """
        self._copied = Arrays(copy), Arrays(source)

    def rest(self) -> None:
        """Forget all requests; parameters are not held in any case."""
        for future in self._asked.values():
            future.cancel()
        self._asked.clear()

    def begin(self, ticket: int, prompt: Any, episode: int, step: int) -> None:
        """Send a request.

        Args:
          ticket: What `finished` calls it by.
          prompt: `VLPrompt` without leading axes, on the host.
          episode: Number of the episode.
          step: Its step.
        """
        seed = self._seeds(episode, step)
        self._asked[ticket] = self._threads.submit(
            self._ask, prompt, seed, self._temperature
        )

    def finished(self, wait_seconds: float = 0.05) -> list[tuple[int, Answer]]:
        """Answers that have come.

        Args:
          wait_seconds: How long to wait for the first.

        Returns:
          Tickets and, for each, tokens [A], their mask [A] and log-probabilities [A].

        Raises:
          ServerError: If a request failed for good; one line says why.
        """
        concurrent.futures.wait(
            self._asked.values(),
            timeout=wait_seconds,
            return_when=concurrent.futures.FIRST_COMPLETED,
        )
        done = [ticket for ticket, future in self._asked.items() if future.done()]
        return [(ticket, self._asked.pop(ticket).result()) for ticket in done]

    def close(self) -> None:
        """Forget all requests, and send none again; `start` opens the sampler again.

        Requests under way are not waited for, here or at the end of the process.
        """
        self.rest()
        self._closed = True
        self._connection.close()
        self._threads.close()

    # Asking.

    def _open(self) -> None:
        settings = self._settings
        self._closed = False
        self._connection = Connection(
            settings.url,
            retries=settings.retries,
            seconds=settings.deadline_seconds,
            key=key_from_environment(),
        )
        self._threads = Threads(settings.concurrency)

    def _find_out(self) -> tuple[str, str]:
        """Which server it is, and the name of the model."""
        settings = self._settings
        offered = self._connection.get("/v1/models").get("data") or []
        names = [str(one.get("id")) for one in offered if isinstance(one, dict)]
        model = settings.model or (names[0] if names else "")
        if not names or model not in names:
            raise ServerError(
                f"{settings.url} offers {names or 'no model'}; "
                + (f"there is no {model}." if model else "start it with one.")
            )
        kind = settings.kind
        if kind == "auto":
            owner = str(offered[names.index(model)].get("owned_by", "")).lower()
            kind = "sglang" if "sglang" in owner else "vllm"
        return kind, model

    def _ask(self, prompt: Any, seed: int, temperature: float) -> Answer:
        """Runs in a thread."""
        real = np.asarray(prompt.segments) >= 0
        tokens = np.asarray(prompt.tokens)[real]
        index = np.asarray(prompt.image_index)[real]
        text = prompt_text(tokens, index, self._tokenizer)
        shown = np.asarray(prompt.images)[: count_pictures(index)]
        urls = [to_png_url(picture) for picture in shown]
        chosen: dict[str, Any] = {"seed": seed, "temperature": temperature}
        if self._kind == "sglang":
            body = generate_body(text, urls, self._sampling, **chosen)
            reply = self._said("/generate", body, read_generate)
        else:
            body = chat_body(text, urls, self._sampling, model=self._model, **chosen)
            reply = self._said("/v1/chat/completions", body, read_chat)
        if reply.prompt_tokens not in (None, len(tokens)):
            raise ServerError(
                f"{self._settings.url} read {reply.prompt_tokens} tokens of a prompt "
                f"that has {len(tokens)} for the trainer: start it with the folder "
                "that the run starts from, its chat template and picture sizes as they "
                "are there."
            )
        return self._answer(reply.ids, reply.log_probs)

    def _said(
        self,
        path: str,
        body: dict[str, Any],
        read: Callable[[dict[str, Any]], Reply],
    ) -> Reply:
        found = self._connection.post(path, body)
        try:
            return read(found)
        except (KeyError, IndexError, TypeError, ValueError) as error:
            raise ServerError(
                f"{self._settings.url}{path} answers without token ids and "
                f"log-probabilities ({type(error).__name__}: {error}); it must be vLLM "
                "0.10.2 or later (kind vllm), or SGLang (kind sglang)."
            ) from error

    def _answer(self, ids: list[int], log_probs: list[float]) -> Answer:
        if len(ids) != len(log_probs) or not ids or not np.isfinite(log_probs).all():
            raise ServerError(
                f"{self._settings.url} sent {len(ids)} tokens and {len(log_probs)} "
                "log-probabilities, which must be as many, at least one, and finite."
            )
        how = self._sampling
        most = how.max_new_tokens
        stops = [at for at, one in enumerate(ids) if one in how.stop_tokens]
        count = min(len(ids), most, stops[0] + 1 if stops else len(ids))
        tokens, log_prob = np.zeros(most, np.int32), np.zeros(most)
        tokens[:count], log_prob[:count] = ids[:count], log_probs[:count]
        mask = np.arange(most) < count
        decode = self._tokenizer.decode
        mask = cut_at_stop(tokens, mask, decode, how.stop_strings)
        answer = np.where(mask, tokens, 0), np.where(mask, log_prob, 0.0)
        return answer[0].astype(np.int32), mask, answer[1].astype(np.float32)

    # Weights.

    def _hand_over(self, params: Any) -> None:
        """Export weights and have the server load them."""
        if self._export is None or self._folder is None:
            raise ServerError(
                f"{self._settings.url} has other weights than the policy, and there is "
                "no folder to hand over new ones."
            )
        self._given = None  # until it is known that the server took them
        # By turns, so that the server never reads what is being written.
        folder = self._folder / f"weights-{self.counts['handed_over'] % 2}"
        self._export(params, folder)
        seconds = self._settings.reload_seconds
        if self._kind == "sglang":
            body: dict[str, Any] = {"model_path": str(folder), "flush_cache": True}
            reply = self._connection.post(
                "/update_weights_from_disk", body, seconds=seconds
            )
            if not reply.get("success", False):
                raise ServerError(
                    f"{self._settings.url} did not take the weights in {folder}: "
                    f"{reply.get('message', reply)}; both machines must see it there."
                )
        else:
            self._reload(folder)
            self._connection.post("/reset_prefix_cache", {}, seconds=seconds)
        self.counts["handed_over"] += 1

    def _reload(self, folder: Path) -> None:
        """Have vLLM load weights from a folder."""
        body = {"method": "reload_weights", "kwargs": {"weights_path": str(folder)}}
        seconds = self._settings.reload_seconds
        try:
            # What fails inside vLLM is a 500, and would fail again.
            self._connection.post(
                "/collective_rpc", body, seconds=seconds, passing=BUSY
            )
        except ServerError as error:
            if error.status is None:
                raise
            raise ServerError(
                f"{error}; the weights in {folder} were not loaded: it must be vLLM "
                "started with VLLM_SERVER_DEV_MODE=1, so new that its method "
                "reload_weights takes a weights_path, and see the folder there.",
                status=error.status,
            ) from error
