"""A prompt's arrays as what servers take: text, chat messages, pictures in PNG."""

import base64
import re
import struct
import zlib
from collections.abc import Sequence
from typing import Any

import numpy as np

__all__ = [
    "chat_messages",
    "count_pictures",
    "named_id",
    "prompt_text",
    "to_png_url",
]

_PICTURE = "<|vision_start|><|image_pad|><|vision_end|>"
_TURN = re.compile(r"<\|im_start\|>(\w+)\n(.*?)<\|im_end\|>\n?", re.DOTALL)
_OPEN = "<|im_start|>assistant\n"


def prompt_text(tokens: np.ndarray, image_index: np.ndarray, tokenizer: Any) -> str:
    """The text of a prompt, with one `<|image_pad|>` for each picture.

    Args:
      tokens: [n] int, without padding.
      image_index: [n] int, which visual token stands there; -1 for text.
      tokenizer: A `stepjax.models.qwen_vl.tokens.Tokenizer`.
    """
    visual = np.asarray(image_index) >= 0
    repeated = visual & ~_first(visual)
    return tokenizer.decode(np.asarray(tokens)[~repeated].tolist())


def count_pictures(image_index: np.ndarray) -> int:
    """How many pictures a prompt shows: stretches of visual tokens, text between them.

    Args:
      image_index: [n] int, which visual token stands there; -1 for text.
    """
    return int(np.sum(_first(np.asarray(image_index) >= 0)))


def _first(visual: np.ndarray) -> np.ndarray:
    """[n] bool: the first of each stretch."""
    return visual & ~np.concatenate([[False], visual[:-1]])


def chat_messages(text: str, urls: Sequence[str]) -> list[dict[str, Any]]:
    r"""The conversation that a prompt's text is, as a chat server takes it.

    Args:
      text: From `prompt_text`; ends where the response begins.
      urls: Pictures, in order.

    Returns:
      Messages with parts of types "text" and "image_url".

    Raises:
      ValueError: If the text is no conversation, or has another number of pictures.

    Example:
      >>> told = "<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n"
      >>> chat_messages(told, [])
      [{'role': 'user', 'content': [{'type': 'text', 'text': 'Hi'}]}]
    """
    body = text.removesuffix(_OPEN)
    turns = list(_TURN.finditer(body))
    whole = "".join(turn.group(0) for turn in turns)
    if whole != body or body == text or text.count(_PICTURE) != len(urls):
        raise ValueError(
            "chat_messages: the prompt must be turns between <|im_start|> and "
            f"<|im_end|> with {len(urls)} pictures, got {text[:80]!r}."
        )
    left = iter(urls)
    messages = []
    for turn in turns:
        role, said = turn.groups()
        parts: list[dict[str, Any]] = []
        for number, piece in enumerate(said.split(_PICTURE)):
            if number:
                parts.append({"type": "image_url", "image_url": {"url": next(left)}})
            if piece:
                parts.append({"type": "text", "text": piece})
        messages.append({"role": role, "content": parts})
    return messages


def to_png_url(picture: np.ndarray) -> str:
    """A picture [height, width, 3] uint8 as a data URL of a PNG."""
    height, width, _ = picture.shape
    rows = np.zeros((height, 1 + 3 * width), np.uint8)  # each begins with its filter
    rows[:, 1:] = picture.reshape(height, -1)

    def chunk(name: bytes, data: bytes) -> bytes:
        check = struct.pack(">I", zlib.crc32(name + data))
        return struct.pack(">I", len(data)) + name + data + check

    head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    body = zlib.compress(rows.tobytes(), 1)
    png = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", body)
    png += chunk(b"IEND", b"")
    return "data:image/png;base64," + base64.b64encode(png).decode()


def named_id(token: str) -> int:
    """The id in vLLM's `token_id:123`.

    Args:
      token: As the server names it.

    Raises:
      ValueError: If it is anything else.
    """
    name, _, number = token.partition(":")
    if name != "token_id":
        raise ValueError("tokens come as text")
    return int(number)
