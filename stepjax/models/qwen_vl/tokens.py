"""Text to tokens and back, and chat messages to text, as a model's folder says.

The vocabulary is a folder's `tokenizer.json`, read by `tokenizers`; the chat
template is the folder's own, run in jinja2's sandbox because a checkpoint comes from
anywhere. Both are of the extra `vlm`.
"""

import dataclasses
import hashlib
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from stepjax.models.qwen_vl.chat_template import ChatTemplate
from stepjax.models.qwen_vl.dimensions import QwenVLConfig

__all__ = ["STRUCTURE", "Tokenizer", "check_tokenizer", "load_tokenizer"]

STRUCTURE = (
    "<|endoftext|>",
    "<|im_start|>",
    "<|im_end|>",
    "<|vision_start|>",
    "<|vision_end|>",
    "<|vision_pad|>",
    "<|image_pad|>",
    "<|video_pad|>",
)
"""Tokens that build a conversation; text from outside must not hold them."""

_NEEDED = ("<|im_end|>", "<|vision_start|>", "<|vision_end|>", "<|image_pad|>")
_STRUCTURE = re.compile("|".join(map(re.escape, STRUCTURE)))
_SURROGATES = re.compile("[\ud800-\udfff]")


@dataclasses.dataclass(frozen=True, kw_only=True, repr=False)
class Tokenizer:
    """A vocabulary, a chat template, and the tokens that have a meaning of their own.

    Attributes:
      backend: A `tokenizers.Tokenizer`.
      template: Turns messages into text; None if the folder has none.
      end_ids: Tokens that end a response.
      pad_id: What fills up sequences; one of `end_ids`.
      digest: Of the files it was read from: equal digests mean equal tokens.
    """

    backend: Any
    template: ChatTemplate | None
    end_ids: tuple[int, ...]
    pad_id: int
    digest: str

    def __repr__(self) -> str:
        return f"Tokenizer(digest={self.digest!r})"

    @property
    def size(self) -> int:
        """One more than the largest token id."""
        return 1 + max(self.backend.get_vocab(with_added_tokens=True).values())

    def id_of(self, token: str) -> int:
        """The id of one token, given as it is spelled.

        Raises:
          ValueError: If the vocabulary has no such token.
        """
        found = self.backend.token_to_id(token)
        if found is None:
            raise ValueError(
                f"Tokenizer: the vocabulary has no {token}; this is not the tokenizer "
                "of a Qwen-VL model."
            )
        return found

    def encode(self, text: str) -> list[int]:
        """Tokens of a text; special tokens in it count as such.

        Raises:
          ValueError: If the text holds half a surrogate pair.
        """
        at = _SURROGATES.search(text)
        if at:
            raise ValueError(
                f"Tokenizer: text holds a lone surrogate at character {at.start()}, "
                "which is no character; clean it with `plain_text`."
            )
        return self.backend.encode(text, add_special_tokens=False).ids

    def decode(self, ids: Iterable[int], *, special: bool = True) -> str:
        """Text of tokens; ids that the vocabulary lacks say nothing.

        Args:
          ids: Token ids.
          special: Whether special tokens are written out.

        Returns:
          The text; bytes that are no UTF-8 become U+FFFD.

        Raises:
          ValueError: If an id is negative.
        """
        whole = [int(one) for one in ids]
        if whole and min(whole) < 0:
            raise ValueError(f"Tokenizer: ids must be >= 0, got {min(whole)}.")
        known = [one for one in whole if one < 2**32]
        return self.backend.decode(known, skip_special_tokens=not special)

    def chat(
        self,
        messages: Sequence[Mapping[str, Any]],
        *,
        add_generation_prompt: bool = True,
    ) -> str:
        """Messages as the text that the model reads.

        Args:
          messages: Dicts with "role" and "content"; the content is a string or a list
            of parts such as `{"type": "image"}` and `{"type": "text", "text": "Hi"}`.
          add_generation_prompt: Whether the text ends where a response begins.

        Returns:
          The text; one `<|image_pad|>` stands for each picture.

        Raises:
          ValueError: If there is no template, or it does not take the messages.
        """
        if self.template is None:
            raise ValueError(
                "Tokenizer: the folder has no chat template; put chat_template.jinja "
                "(or chat_template.json) of the published model into it."
            )
        return self.template.render(messages, add_generation_prompt)

    def until_end(self, ids: Sequence[int]) -> list[int]:
        """The ids before the first that ends a response."""
        kept: list[int] = []
        for one in ids:
            if int(one) in self.end_ids:
                break
            kept.append(int(one))
        return kept

    @staticmethod
    def plain_text(text: str) -> str:
        """A text in which nothing is taken for the structure of a conversation.

        Spellings of `STRUCTURE` get a space after their first character, and halves of
        surrogate pairs become U+FFFD.
        """
        whole = _SURROGATES.sub("\ufffd", text)
        return _STRUCTURE.sub(lambda found: "< " + found[0][1:], whole)


def load_tokenizer(folder: str | Path) -> Tokenizer:
    """The tokenizer of a Hugging Face folder.

    Args:
      folder: With `tokenizer.json`; `tokenizer_config.json`, `generation_config.json`
        and a chat template are used where they are.

    Returns:
      The tokenizer.

    Raises:
      ValueError: If a file is missing or cannot be read.
      ImportError: If `tokenizers` is not installed.
    """
    try:
        import tokenizers
    except ImportError as error:
        raise ImportError(
            "load_tokenizer: tokenizers is not installed; install it with "
            "`pip install 'stepjax[vlm]'`."
        ) from error
    folder = Path(folder)
    path = folder / "tokenizer.json"
    if not path.is_file():
        raise ValueError(
            f"load_tokenizer: {folder} has no tokenizer.json; write one with "
            "transformers: AutoTokenizer.from_pretrained(folder)"
            ".save_pretrained(folder)."
        )
    try:
        text = path.read_text(encoding="utf-8")
        backend = tokenizers.Tokenizer.from_str(text)
    except Exception as error:  # the library raises bare Exceptions
        raise ValueError(f"load_tokenizer: {path} cannot be read: {error}.") from error
    backend.no_padding()
    backend.no_truncation()
    missing = [token for token in _NEEDED if backend.token_to_id(token) is None]
    if missing:
        raise ValueError(
            f"load_tokenizer: {path} has no {', '.join(missing)}; it is not the "
            "tokenizer of a Qwen-VL model."
        )
    settings = _read_json(folder / "tokenizer_config.json")
    source = _template_source(folder, settings)
    return Tokenizer(
        backend=backend,
        template=None if source is None else ChatTemplate(source, _named(settings)),
        end_ids=_end_ids(folder, backend, settings),
        pad_id=_pad_id(backend, settings),
        digest=hashlib.sha256(repr((text, source)).encode()).hexdigest()[:16],
    )


def _read_json(path: Path) -> dict[str, Any]:
    """The object in a file; empty where there is no file."""
    if not path.is_file():
        return {}
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ValueError(f"load_tokenizer: {path} cannot be read: {error}.") from error
    if not isinstance(found, dict):
        raise ValueError(
            f"load_tokenizer: {path} must hold an object, got {type(found).__name__}."
        )
    return found


def _template_source(folder: Path, settings: Mapping[str, Any]) -> str | None:
    """The template, from the places where published folders keep it."""
    path = folder / "chat_template.jinja"
    if path.is_file():
        try:
            return path.read_text(encoding="utf-8")
        except (OSError, ValueError) as error:
            raise ValueError(f"load_tokenizer: {path} cannot be read: {error}.") from (
                error
            )
    for found in (_read_json(folder / "chat_template.json"), settings):
        source = found.get("chat_template")
        if isinstance(source, list):  # several, each with a name
            named = {
                one.get("name"): one.get("template")
                for one in source
                if isinstance(one, dict)
            }
            source = named.get("default")
        if isinstance(source, str):
            return source
    return None


def _spelling(value: Any) -> str | None:
    """A special token's spelling: given as such, or inside an object."""
    if isinstance(value, dict):
        value = value.get("content")
    return value if isinstance(value, str) else None


def _named(settings: Mapping[str, Any]) -> dict[str, str]:
    """Special tokens that a template may name, such as `eos_token`."""
    names = ("bos_token", "eos_token", "pad_token", "unk_token")
    found = {name: _spelling(settings.get(name)) for name in names}
    return {name: token for name, token in found.items() if token is not None}


def _pad_id(backend: Any, settings: Mapping[str, Any]) -> int:
    for token in ("<|endoftext|>", _spelling(settings.get("pad_token")), "<|im_end|>"):
        found = None if token is None else backend.token_to_id(token)
        if found is not None:
            return found
    raise ValueError("load_tokenizer: the vocabulary has no token for padding.")


def _end_ids(folder: Path, backend: Any, settings: Mapping[str, Any]) -> tuple:
    given = _read_json(folder / "generation_config.json").get("eos_token_id")
    listed = given if isinstance(given, list) else [given]
    found = [one for one in listed if isinstance(one, int) and one >= 0]
    spelled = ("<|im_end|>", _spelling(settings.get("eos_token")))
    found += [backend.token_to_id(token) for token in spelled if token is not None]
    found.append(_pad_id(backend, settings))
    return tuple(sorted({one for one in found if one is not None}))


def check_tokenizer(tokenizer: Tokenizer, config: QwenVLConfig) -> None:
    """Nothing; raises unless a tokenizer belongs to a model.

    Args:
      tokenizer: Of the folder that the weights come from.
      config: Of the model.

    Raises:
      ValueError: If a special token has another id in the model, or the vocabulary is
        larger than the embedding table.
    """
    wanted = {
        "<|image_pad|>": ("image_token_id", config.image_token_id),
        "<|vision_start|>": ("vision_start_token_id", config.vision_start_token_id),
        "<|vision_end|>": ("vision_end_token_id", config.vision_end_token_id),
    }
    advice = "take tokenizer and weights from one folder"
    for token, (name, expected) in wanted.items():
        found = tokenizer.id_of(token)
        if found != expected:
            raise ValueError(
                f"check_tokenizer: {token} is {found} in the tokenizer, config.json "
                f"says {name} = {expected}; {advice}."
            )
    if tokenizer.size > config.text.vocab_size:
        raise ValueError(
            f"check_tokenizer: the tokenizer has {tokenizer.size} tokens, the model "
            f"only {config.text.vocab_size}; {advice}."
        )
