"""Between the host's objects and a vision-language policy's arrays, both ways.

The tokens of an action are those of a response in the action language of UI-TARS, the
computer's or the phone's. A response ends with a token of `Tokenizer.end_ids`; what
follows is ignored.
"""

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from stepjax.envs.actions import Action, ActionKind
from stepjax.envs.base import Observation
from stepjax.envs.grammars.ui_tars import format_ui_tars, parse_ui_tars
from stepjax.envs.grammars.ui_tars_mobile import (
    format_ui_tars_mobile,
    parse_ui_tars_mobile,
)
from stepjax.models.qwen_vl.dimensions import QwenVLConfig
from stepjax.models.qwen_vl.images import ImageSettings, read_image_settings
from stepjax.models.qwen_vl.prompt import VLPrompt
from stepjax.models.qwen_vl.tokens import STRUCTURE, load_tokenizer
from stepjax.models.qwen_vl.ui_tars_prompt import MOBILE_WORDING, Turn, UITarsPrompts
from stepjax.models.qwen_vl.vision import IMAGE_MEAN, IMAGE_STD
from stepjax.models.qwen_vl.weights import read_config

__all__ = ["VLCodec", "vl_codec_for"]

_TASK_TOKENS = 512  # room for a task, where nobody says how long prompts may be
_TURN_TOKENS = 16  # what the chat template writes around a turn
_LENGTH_UNIT = 128


@dataclasses.dataclass(frozen=True, kw_only=True)
class VLCodec:
    """A vision-language policy's encoding with its sizes fixed.

    Attributes:
      prompts: Makes the prompts, and knows tokens and coordinates.
      num_tokens: A, most tokens of a response, its end included.
      prefix: What `encode_action` writes before an action.
      mobile: Whether responses are in the language of a phone.
      stop: Texts that end a response; it is read up to the first of them.

    Raises:
      ValueError: If `num_tokens` is too small or a text of `stop` is empty.
    """

    prompts: UITarsPrompts
    num_tokens: int = 128
    prefix: str = "Action: "
    mobile: bool = False
    stop: tuple[str, ...] = ()

    def __post_init__(self):
        """Check the size and the texts."""
        if self.num_tokens < 2:
            raise ValueError(
                f"VLCodec: num_tokens must be >= 2, got {self.num_tokens}; a response "
                "is one token at least, and its end."
            )
        if isinstance(self.stop, str) or not all(self.stop):
            raise ValueError(
                "VLCodec: stop must be texts of one character or more, in a tuple, got "
                f"{self.stop!r}."
            )

    def encode(
        self, observation: Observation, history: Sequence[Turn]
    ) -> tuple[VLPrompt, np.ndarray]:
        """The prompt, and the screenshot in the size that the policy sees.

        Raises:
          PromptLengthError: If the prompt is too long even without earlier turns.
          ValueError: If the screenshot cannot be taken.
        """
        picture = self.prompts.picture(observation.screenshot)
        return self.prompts.make(observation.instruction, history, picture), picture

    def response_text(self, tokens: np.ndarray) -> str:
        """What response tokens [A] say, up to their end or a text that ends them."""
        tokenizer = self.prompts.tokenizer
        ids = tokenizer.until_end([int(token) for token in tokens])
        text = tokenizer.decode([one for one in ids if one >= 0])
        return text[: min(self._stops(text), default=None)].strip()

    def _stops(self, text: str) -> list[int]:
        """Where the texts that end a response begin."""
        return [text.index(one) for one in self.stop if one in text]

    def decode(
        self, tokens: np.ndarray, observation: Observation, context: Any
    ) -> Action:
        """The action that tokens [A] stand for; INVALID, with a reason, if none."""
        del observation, context
        array = np.asarray(tokens)
        if array.ndim != 1 or not np.issubdtype(array.dtype, np.integer):
            return Action(kind=ActionKind.INVALID, text="expected whole numbers")
        right, bottom = self.prompts.coordinates
        parse = parse_ui_tars_mobile if self.mobile else parse_ui_tars
        return parse(self.response_text(array), width=right, height=bottom)

    def encode_action(
        self, action: Action, observation: Observation, context: Any
    ) -> np.ndarray | None:
        """The tokens that `decode` turns into `action`, places rounded.

        Args:
          action: Any; one aimed at a widget counts as aimed at its middle.
          observation: What it was meant for.
          context: Not looked at.

        Returns:
          [A] int32, or None if the language has no such action, or the response is too
          long or holds what would end it early.
        """
        del context
        right, bottom = self.prompts.coordinates
        tokenizer = self.prompts.tokenizer
        write = format_ui_tars_mobile if self.mobile else format_ui_tars
        try:
            text = write(_placed(action, observation), width=right, height=bottom)
            ids = tokenizer.encode(self.prefix + text)
        except ValueError:
            return None
        if self._stops(self.prefix + text):
            return None
        structure = {tokenizer.backend.token_to_id(token) for token in STRUCTURE}
        if len(ids) >= self.num_tokens or structure & set(ids):
            return None
        out = np.full(self.num_tokens, tokenizer.pad_id, np.int32)
        out[: len(ids) + 1] = [*ids, tokenizer.id_of("<|im_end|>")]
        return out

    def tokens_meant(self, tokens: np.ndarray) -> np.ndarray:
        """[A] bool: tokens [A] of the response, the one that ends it included."""
        ends = np.isin(tokens, self.prompts.tokenizer.end_ids)
        return np.cumsum(ends) - ends == 0

    def remember(
        self,
        history: Sequence[Turn],
        tokens: np.ndarray,
        action: Action,
        observation: Observation,
        context: Any,
    ) -> list[Turn]:
        """The turns that later prompts need, after one more."""
        del action, observation
        keeps = self.prompts.num_screenshots > 0
        turn = Turn(
            response=self._shortened(self.response_text(np.asarray(tokens))),
            image=np.array(context) if keeps else None,
        )
        kept = self.prompts.turns_kept
        return [*history, turn][-kept:] if kept else []

    def _shortened(self, response: str) -> str:
        """The beginning that takes no more tokens in later prompts than a response may.

        As plain text a response may be many times the tokens that were sampled.
        """
        tokenizer = self.prompts.tokenizer
        while True:
            count = len(tokenizer.encode(tokenizer.plain_text(response)))
            if count <= self.num_tokens:
                return response
            response = response[: len(response) * self.num_tokens // count]

    def empty_prompt(self) -> VLPrompt:
        """A prompt of a black screen without a task: shapes and padding."""
        return self.encode(Observation(instruction=""), ())[0]


def vl_codec_for(
    folder: str | Path,
    *,
    height: int,
    width: int,
    num_tokens: int = 128,
    length: int | None = None,
    max_pixels: int | None = None,
    prefix: str = "Action: ",
    mobile: bool = False,
    stop: tuple[str, ...] = (),
    **options: Any,
) -> VLCodec:
    """The codec of a Hugging Face folder for screens of one size.

    Args:
      folder: With `config.json` and the tokenizer's files.
      height: Of the screen, in pixels.
      width: Likewise.
      num_tokens: A, most tokens of a response.
      length: T, tokens of a prompt; None leaves room for a task of 512 tokens and for
        the longest responses.
      max_pixels: Most pixels of a picture; None for what the folder says.
      prefix: What `encode_action` writes before an action.
      mobile: Whether the screens are a phone's; its language, and by default its
        wording.
      stop: Texts that end a response, beside the model's own end.
      **options: Further fields of `UITarsPrompts`.

    Returns:
      The codec.

    Raises:
      ValueError: If a file is missing or broken, they do not belong together, pictures
        are prepared in a way that the vision tower does not know, or a number is out of
        range.
    """
    config, settings = read_config(folder), read_image_settings(folder)
    _check_pictures(folder, settings, config)
    if max_pixels is not None:
        least = min(settings.min_pixels, max_pixels)
        settings = dataclasses.replace(
            settings, max_pixels=max_pixels, min_pixels=least
        )
    if mobile:
        options = {"wording": MOBILE_WORDING} | options
    tall, wide = settings.size_of(height, width)
    prompts = UITarsPrompts(
        config=config,
        tokenizer=load_tokenizer(folder),
        height=tall,
        width=wide,
        length=2**31 if length is None else length,
        **options,
    )
    if length is None:
        prompts = dataclasses.replace(prompts, length=_length_for(prompts, num_tokens))
    return VLCodec(
        prompts=prompts, num_tokens=num_tokens, prefix=prefix, mobile=mobile, stop=stop
    )


def _check_pictures(
    folder: str | Path, settings: ImageSettings, config: QwenVLConfig
) -> None:
    """Raise unless the folder asks for the pictures that the tower is shown."""
    vision = config.vision
    for name, asked, known in (
        ("image_mean", settings.mean, IMAGE_MEAN),
        ("image_std", settings.std, IMAGE_STD),
        ("patch_size", settings.patch_size, vision.patch_size),
        ("merge_size", settings.merge_size, vision.merge_size),
        (
            "temporal_patch_size",
            settings.temporal_patch_size,
            vision.temporal_patch_size,
        ),
    ):
        if not np.allclose(asked, known, rtol=0, atol=1e-6):
            raise ValueError(
                f"vl_codec_for: {name} of the image processor in {folder} must be "
                f"{known}, as the vision tower has it, got {asked}; take all files of "
                "the folder from one model."
            )


def _length_for(prompts: UITarsPrompts, num_tokens: int) -> int:
    """T that every prompt with a task of `_TASK_TOKENS` fits in."""
    opening = prompts.tokenizer.encode(prompts.tokenizer.chat(prompts.messages("")))
    turns = prompts.num_responses * (num_tokens + _TURN_TOKENS)
    pictures = prompts.num_pictures * (prompts.tokens_per_picture + _TURN_TOKENS)
    needed = len(opening) + _TASK_TOKENS + turns + pictures
    return -(-needed // _LENGTH_UNIT) * _LENGTH_UNIT


def _placed(action: Action, observation: Observation) -> Action:
    """An action aimed at a place instead of a widget."""
    if action.widget is None:
        return action
    widgets = observation.widgets or ()
    x, y = action.x, action.y
    if (x is None or y is None) and 0 <= action.widget < len(widgets):
        left, top, right, bottom = widgets[action.widget].box
        x, y = (left + right) / 2, (top + bottom) / 2
    return dataclasses.replace(action, widget=None, x=x, y=y)
