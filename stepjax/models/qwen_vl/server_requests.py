"""What vLLM and SGLang are asked for a response, and how their answers are read."""

import dataclasses
from collections.abc import Sequence
from typing import Any

from stepjax.models.qwen_vl.server_messages import chat_messages, named_id

__all__ = [
    "NEUTRAL",
    "Reply",
    "Sampling",
    "chat_body",
    "generate_body",
    "read_chat",
    "read_generate",
]

NEUTRAL = {
    "top_k": -1,
    "min_p": 0.0,
    "repetition_penalty": 1.0,
    "presence_penalty": 0.0,
    "frequency_penalty": 0.0,
}
"""What changes no probability. vLLM takes what a request leaves out from the folder's
generation_config.json, and released folders ask for nearly greedy answers there."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Sampling:
    """How responses are drawn and where they end.

    Attributes:
      max_new_tokens: Most tokens of a response.
      stop_tokens: Tokens that end a response.
      top_p: Share of the probability that is sampled from.
      stop_strings: Texts that end a response.
    """

    max_new_tokens: int
    stop_tokens: tuple[int, ...]
    top_p: float
    stop_strings: tuple[str, ...]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Reply:
    """What a server answered.

    Attributes:
      ids: Tokens of the response.
      log_probs: Log-probability of each.
      prompt_tokens: Tokens of the prompt as the server read it, all of a picture's
        counted; None if it does not say.
    """

    ids: list[int]
    log_probs: list[float]
    prompt_tokens: int | None = None


def chat_body(
    text: str,
    urls: Sequence[str],
    sampling: Sampling,
    *,
    model: str,
    seed: int,
    temperature: float,
) -> dict[str, Any]:
    """What vLLM's `/v1/chat/completions` is sent.

    Args:
      text: From `prompt_text`.
      urls: Pictures, in order.
      sampling: How to draw.
      model: Name of the model there.
      seed: Decides what is drawn.
      temperature: 0 is greedy.

    Raises:
      ValueError: As `chat_messages`.
    """
    return {
        "model": model,
        "messages": chat_messages(text, urls),
        "max_tokens": sampling.max_new_tokens,
        "temperature": temperature,
        "top_p": sampling.top_p,
        **NEUTRAL,
        "seed": seed,
        "logprobs": True,
        "stop": list(sampling.stop_strings) or None,
        "stop_token_ids": list(sampling.stop_tokens),
        "include_stop_str_in_output": True,
        "skip_special_tokens": False,
        "return_token_ids": True,
        "return_tokens_as_token_ids": True,
    }


def read_chat(reply: dict[str, Any]) -> Reply:
    """What vLLM answered.

    Raises:
      KeyError, IndexError, TypeError, ValueError: If that is not what was asked for.
    """
    choice = reply["choices"][0]
    content = choice["logprobs"]["content"] or []
    ids = choice.get("token_ids")
    if ids is None:
        ids = [named_id(one["token"]) for one in content]
    return Reply(
        ids=[int(one) for one in ids],
        log_probs=[float(one["logprob"]) for one in content],
        prompt_tokens=(reply.get("usage") or {}).get("prompt_tokens"),
    )


def generate_body(
    text: str,
    urls: Sequence[str],
    sampling: Sampling,
    *,
    seed: int,
    temperature: float,
) -> dict[str, Any]:
    """What SGLang's `/generate` is sent; arguments as for `chat_body`."""
    return {
        "text": text,
        "image_data": list(urls),
        "sampling_params": {
            "max_new_tokens": sampling.max_new_tokens,
            "temperature": temperature,
            "top_p": sampling.top_p,
            **NEUTRAL,
            "stop": list(sampling.stop_strings) or None,
            "stop_token_ids": list(sampling.stop_tokens),
            "skip_special_tokens": False,
            "sampling_seed": seed,
        },
        "return_logprob": True,
    }


def read_generate(reply: dict[str, Any]) -> Reply:
    """What SGLang answered.

    Raises:
      KeyError, IndexError, TypeError, ValueError: If that is not what was asked for.
    """
    about = reply["meta_info"]
    said = about["output_token_logprobs"]
    return Reply(
        ids=[int(one[1]) for one in said],
        log_probs=[float(one[0]) for one in said],
        prompt_tokens=about.get("prompt_tokens"),
    )
