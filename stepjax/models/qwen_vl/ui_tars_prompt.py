"""What a UI-TARS model is shown at a step: task, latest turns, current screenshot.

The conversation opens with what can be done and the task. For each of the latest turns
its response follows, before it its screenshot where that is still kept, and last comes
the current screenshot. Everything that comes from outside (the task, what the model
itself wrote) is kept from posing as the conversation's structure.

The wording is a parameter. A released model is used best with the very words that it
was trained on, which its model card states.
"""

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np

from stepjax.models.qwen_vl.dimensions import QwenVLConfig
from stepjax.models.qwen_vl.images import resize_image
from stepjax.models.qwen_vl.prompt import VLPrompt, make_prompt
from stepjax.models.qwen_vl.tables import rope_positions
from stepjax.models.qwen_vl.tokens import Tokenizer, check_tokenizer

__all__ = [
    "MOBILE_WORDING",
    "SHORT_WORDING",
    "WORDING",
    "PromptLengthError",
    "Turn",
    "UITarsPrompts",
]

WORDING = """\
You operate a computer for someone. Each time you are shown its screen; answer with the
one thing to do next. You may think first. Answer in this form:
Thought: why, in a sentence or two
Action: one of the actions below

Actions, where x and y count {unit}:
click(start_box='(x,y)')
left_double(start_box='(x,y)')
right_single(start_box='(x,y)')
drag(start_box='(x,y)', end_box='(x,y)')
hotkey(key='ctrl c')
type(content='text; \\n at the end submits it')
scroll(start_box='(x,y)', direction='down')
wait()
finished(content='the answer, if one was asked for')
call_user()

Task: {instruction}"""
"""What can be done, and the task, for a model that was not trained on other words."""

MOBILE_WORDING = """\
You operate a phone for someone. Each time you are shown its screen; answer with the one
thing to do next. You may think first. Answer in this form:
Thought: why, in a sentence or two
Action: one of the actions below

Actions, where x and y count {unit}:
click(point='<point>x y</point>')
long_press(point='<point>x y</point>')
type(content='text; \\n at the end presses enter')
scroll(point='<point>x y</point>', direction='down')
drag(start_point='<point>x y</point>', end_point='<point>x y</point>')
open_app(app_name='name')
press_home()
press_back()
wait()
finished(content='the answer, if one was asked for')
call_user()

Task: {instruction}"""
"""The same for a phone."""

SHORT_WORDING = "{instruction}"
"""The task alone, for small models that learn the rest."""

_SYSTEM = "You are a helpful assistant."


class PromptLengthError(ValueError):
    """A prompt that is longer than prompts may be, even without earlier turns."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Turn:
    """One earlier step.

    Attributes:
      response: What the model wrote.
      image: [H, W, 3] uint8, the screenshot it saw, resized; or None if not kept.
    """

    response: str
    image: np.ndarray | None = None


@dataclasses.dataclass(frozen=True, kw_only=True)
class UITarsPrompts:
    """Makes prompts of one fixed shape.

    Attributes:
      config: Of the model.
      tokenizer: Of the model.
      height: Of the pictures in the prompt, in pixels; `ImageSettings.size_of` gives
        it for a screen.
      width: Likewise.
      length: T, tokens of a prompt after padding.
      num_responses: Earlier responses that are shown.
      num_screenshots: Earlier screenshots that are shown.
      grid: Whether coordinates count thousandths of the screen (UI-TARS 1.0) or
        pixels of the resized picture (1.5); None for what the architecture suggests.
      wording: Opening text with "{instruction}" in it, and "{unit}" where it should
        say what coordinates count.
      system: Text of the system message; "" for none.

    Raises:
      ValueError: If a size does not fit the model, the wording has no place for the
        task, or the tokenizer is another model's.
    """

    config: QwenVLConfig
    tokenizer: Tokenizer
    height: int
    width: int
    length: int
    num_responses: int = 3
    num_screenshots: int = 0
    grid: bool | None = None
    wording: str = WORDING
    system: str = _SYSTEM

    def __post_init__(self):
        """Check the sizes and that the parts belong together."""
        factor = self.config.vision.token_size
        for name in ("height", "width"):
            side = getattr(self, name)
            if side < factor or side % factor:
                raise ValueError(
                    f"UITarsPrompts: {name} must be a multiple of {factor}, got {side};"
                    " take it from ImageSettings.size_of(height, width)."
                )
        for name in ("num_responses", "num_screenshots"):
            if getattr(self, name) < 0:
                raise ValueError(
                    f"UITarsPrompts: {name} must be >= 0, got {getattr(self, name)}."
                )
        if "{instruction}" not in self.wording:
            raise ValueError(
                "UITarsPrompts: wording must contain {instruction}, where the task "
                "goes."
            )
        check_tokenizer(self.tokenizer, self.config)
        pictures = self.num_pictures * self.tokens_per_picture
        if self.length <= pictures:
            raise ValueError(
                f"UITarsPrompts: length must exceed the {pictures} tokens of "
                f"{self.num_pictures} pictures of {self.width} x {self.height}, got "
                f"{self.length}."
            )

    @property
    def num_pictures(self) -> int:
        """I, pictures in a prompt."""
        return self.num_screenshots + 1

    @property
    def tokens_per_picture(self) -> int:
        """N, tokens of a picture."""
        factor = self.config.vision.token_size
        return (self.height // factor) * (self.width // factor)

    @property
    def coordinates(self) -> tuple[int, int]:
        """Coordinates of the right and the bottom edge of the screen."""
        grid = (
            self.config.architecture == "qwen2_vl" if self.grid is None else self.grid
        )
        return (1000, 1000) if grid else (self.width, self.height)

    @property
    def turns_kept(self) -> int:
        """Latest turns that prompts need."""
        return max(self.num_responses, self.num_screenshots)

    def picture(self, screenshot: np.ndarray | None) -> np.ndarray:
        """[H, W, 3] uint8: a screenshot resized, or black without one."""
        if screenshot is None:
            return np.zeros((self.height, self.width, 3), np.uint8)
        return resize_image(screenshot, height=self.height, width=self.width)

    def messages(
        self, instruction: str, turns: Sequence[Turn] = ()
    ) -> list[dict[str, Any]]:
        """The conversation, with a part of type "image" for each picture.

        Args:
          instruction: The task.
          turns: Earlier steps, oldest first.

        Returns:
          Messages as chat templates take them.
        """
        plain = self.tokenizer.plain_text
        right, bottom = self.coordinates
        unit = f"from the left up to {right} and from the top up to {bottom}"
        opening = self.wording.replace("{unit}", unit)
        opening = opening.replace("{instruction}", plain(instruction))
        found: list[dict[str, Any]] = []
        if self.system:
            found.append(_message("system", _text(self.system)))
        found.append(_message("user", _text(opening)))
        latest = list(turns)[-self.turns_kept :] if self.turns_kept else []
        for back, turn in zip(range(len(latest), 0, -1), latest, strict=True):
            if back <= self.num_screenshots and turn.image is not None:
                found.append(_message("user", {"type": "image"}))
            if back <= self.num_responses:
                found.append(_message("assistant", _text(plain(turn.response))))
        found.append(_message("user", {"type": "image"}))
        return found

    def make(
        self, instruction: str, turns: Sequence[Turn], picture: np.ndarray
    ) -> VLPrompt:
        """The prompt of a step, without the oldest turns where they do not fit.

        Args:
          instruction: The task.
          turns: Earlier steps, oldest first; more than needed do no harm.
          picture: [H, W, 3] uint8, the current screenshot as `picture` makes it.

        Returns:
          The prompt, its leaves numpy arrays without a leading axis.

        Raises:
          PromptLengthError: If it has more than `length` tokens without any turn.
          ValueError: If the chat template writes another number of pictures than it was
            given.
        """
        latest = list(turns)[-self.turns_kept :] if self.turns_kept else []
        tokens, where, pictures = self._laid_out(instruction, latest, picture)
        while latest and len(tokens) > self.length:
            latest = latest[1:]
            tokens, where, pictures = self._laid_out(instruction, latest, picture)
        if len(tokens) > self.length:
            raise PromptLengthError(
                f"UITarsPrompts: the prompt has {len(tokens)} tokens without any "
                f"earlier turn, length holds {self.length}; allow longer prompts, "
                "shorten the task or make screenshots smaller."
            )
        size = self.config.vision.patch_size
        grid = (self.height // size, self.width // size)
        positions, following = rope_positions(
            tokens, [grid] * len(pictures), self.config
        )
        images = np.zeros((self.num_pictures, self.height, self.width, 3), np.uint8)
        images[: len(pictures)] = pictures
        return make_prompt(
            tokens=tokens,
            positions=positions,
            next_position=following,
            image_index=np.where(where, np.cumsum(where) - 1, -1),
            images=images,
            length=self.length,
            pad_id=self.tokenizer.pad_id,
        )

    def _laid_out(
        self, instruction: str, turns: Sequence[Turn], picture: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray, list[np.ndarray]]:
        """Tokens [n] int, where pictures stand [n] bool, and the pictures."""
        text = self.tokenizer.chat(self.messages(instruction, turns))
        ids = np.asarray(self.tokenizer.encode(text), np.int64)
        shown = list(turns)[-self.num_screenshots :] if self.num_screenshots else []
        pictures = [turn.image for turn in shown if turn.image is not None] + [picture]
        visual = ids == self.config.image_token_id
        if visual.sum() != len(pictures):
            raise ValueError(
                f"UITarsPrompts: the chat template wrote {visual.sum()} pictures for "
                f"{len(pictures)}; put the published model's template into the folder."
            )
        repeats = np.where(visual, self.tokens_per_picture, 1)
        return np.repeat(ids, repeats), np.repeat(visual, repeats), pictures


def _text(text: str) -> dict[str, str]:
    return {"type": "text", "text": text}


def _message(role: str, part: dict[str, str]) -> dict[str, Any]:
    return {"role": role, "content": [part]}
