"""Between the host's objects and the pointer policy's arrays, both ways.

Encoding turns an observation and the actions before it into a `ScreenPrompt`; decoding
turns three tokens into an `Action`. Both are pure and touch no device.
"""

import dataclasses
import functools
import unicodedata
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from stepjax.envs.actions import Action, ActionKind
from stepjax.envs.base import Observation, Widget
from stepjax.envs.words import clauses, role_id, split_words, word_id
from stepjax.types import ScreenPrompt

__all__ = [
    "EncodedScreen",
    "PastAction",
    "PointerCodec",
    "decode_tokens",
    "describe_action",
    "encode_action",
    "encode_observation",
    "encode_words",
    "remember",
]

_NUM_POLICY_KINDS = ActionKind.FAIL + 1
_MAX_INSTRUCTION_CHARS = 4096
_MAX_LABEL_CHARS = 256


class PastAction(NamedTuple):
    """What is remembered of an action.

    Attributes:
      kind: Its `ActionKind`.
      label: Label of what it was aimed at, "" if nothing.
      text: Text it typed, or keys it pressed with "+" in between; "" if none.
      x: Where it was done, as a share of the screen from the left, or None.
      y: Likewise from the top.
    """

    kind: int
    label: str = ""
    text: str = ""
    x: float | None = None
    y: float | None = None


class EncodedScreen(NamedTuple):
    """A prompt and what is needed to act on the tokens it leads to.

    Attributes:
      prompt: Leaves are numpy arrays without a leading axis.
      raw_words: The instruction's words as written, by index into `prompt.words`.
      dropped_widgets: Widgets that did not fit.
      dropped_words: Instruction words that did not fit.
    """

    prompt: ScreenPrompt
    raw_words: tuple[str, ...]
    dropped_widgets: int
    dropped_words: int


def encode_observation(
    observation: Observation,
    history: Sequence[PastAction] = (),
    *,
    num_widgets: int = 32,
    num_words: int = 32,
    words_per_widget: int = 4,
    num_history: int = 3,
) -> EncodedScreen:
    """The pointer policy's view of an observation.

    Words that are punctuation only end clauses and are then dropped. Of more widgets
    or words than fit, the first are kept, so an index means the same on both sides.
    Where a widget has a value, its label gets the first half of the slots at most and
    the value begins in the second half. A label or value that the instruction holds as
    one quoted phrase counts as one word.

    Args:
      observation: What the environment showed.
      history: Actions taken so far, oldest first.
      num_widgets: W.
      num_words: I.
      words_per_widget: K.
      num_history: H.

    Returns:
      The prompt, the raw words, and how much was dropped.
    """
    raw, words, clause_of = encode_words(observation.instruction, num_words)
    phrases = frozenset(_instruction(_beginning(observation.instruction))[1])

    widgets = observation.widgets or ()
    shown = widgets[:num_widgets]
    widget_words = np.zeros((num_widgets, words_per_widget), np.int32)
    role = np.zeros(num_widgets, np.int32)
    state = np.zeros(num_widgets, np.int32)
    box = np.zeros((num_widgets, 4), np.float32)
    if shown:
        count, slots = len(shown), words_per_widget
        widget_words[:count] = [
            _pair_ids(_cut(one.label), _cut(one.value), phrases, slots) for one in shown
        ]
        role[:count] = [role_id(one.role) for one in shown]
        state[:count] = [one.on + 2 * one.focused + 4 * one.disabled for one in shown]
        box[:count] = [one.box for one in shown]

    kinds = np.full(num_history, -1, np.int32)
    history_words = np.zeros((num_history, words_per_widget), np.int32)
    latest = reversed(history[-num_history:] if num_history else ())
    for row, past in enumerate(latest):
        kinds[row] = past.kind
        history_words[row] = _pair_ids(
            _cut(past.label), _cut(past.text), phrases, words_per_widget
        )

    leaves: dict[str, Any] = {
        "words": words,
        "clause": clause_of,
        "widget_words": widget_words,
        "widget_role": role,
        "widget_state": state,
        "widget_box": box,
        "widget_mask": np.arange(num_widgets) < len(widgets),
        "history_kind": kinds,
        "history_words": history_words,
    }
    return EncodedScreen(
        prompt=ScreenPrompt(**leaves),
        raw_words=raw[:num_words],
        dropped_widgets=max(0, len(widgets) - num_widgets),
        dropped_words=max(0, len(raw) - num_words),
    )


def encode_words(
    instruction: str, num_words: int
) -> tuple[tuple[str, ...], np.ndarray, np.ndarray]:
    """An instruction as a policy reads it.

    Args:
      instruction: Of any length; only its first words are kept.
      num_words: I.

    Returns:
      All its words as written, punctuation left out; ids [I] and clauses [I] int32 of
      the first I of them.
    """
    raw, ids, clause = _instruction(_beginning(instruction))
    words, clause_of = np.zeros((2, num_words), np.int32)
    words[: len(ids)] = ids[:num_words]
    clause_of[: len(ids)] = clause[:num_words]
    return raw, words, clause_of


def _beginning(instruction: str) -> str:
    return instruction[:_MAX_INSTRUCTION_CHARS]


@functools.lru_cache(maxsize=4096)
def _instruction(text: str) -> tuple[tuple[str, ...], tuple[int, ...], tuple[int, ...]]:
    """Raw words, their ids and their clauses, punctuation dropped."""
    words = split_words(text)
    kept = [
        (word, word_id(word), clause)
        for word, clause in zip(words, clauses(words), strict=True)
        if _is_word(word)
    ]
    if not kept:
        return (), (), ()
    raw, ids, clause = zip(*kept, strict=True)
    return raw, ids, clause


def _is_word(word: str) -> bool:
    """True unless punctuation only; symbols such as "+" and ">" mean something."""
    return word_id(word) > 0 and any(
        char.isalnum() or unicodedata.category(char).startswith("S") for char in word
    )


@functools.lru_cache(maxsize=65536)
def _word_ids(text: str) -> tuple[int, ...]:
    return tuple(word_id(word) for word in split_words(text) if _is_word(word))


def _cut(text: str) -> str:
    return text[:_MAX_LABEL_CHARS]


def _ids(text: str, phrases: frozenset[int]) -> tuple[int, ...]:
    whole = word_id(text)
    return (whole,) if whole in phrases else _word_ids(text)


@functools.lru_cache(maxsize=65536)
def _pair_ids(
    label: str, value: str, phrases: frozenset[int], num_slots: int
) -> tuple[int, ...]:
    """[K] ids of a label, then of a value that begins in the second half."""
    first, second = _ids(label, phrases), _ids(value, phrases)
    half = (num_slots + 1) // 2 if second else num_slots
    ids = [*first[:half], *(0,) * (half - len(first)), *second]
    return tuple(ids[:num_slots] + [0] * (num_slots - len(ids)))


def decode_tokens(
    tokens: np.ndarray, observation: Observation, raw_words: Sequence[str]
) -> Action:
    """The action that the pointer policy's three tokens stand for.

    Args:
      tokens: [3] integers: kind, widget, word.
      observation: What the policy saw.
      raw_words: The instruction's words as `encode_observation` returned them.

    Returns:
      The action, aimed at the middle of its widget; of kind INVALID, with the reason,
      if a token points nowhere. Never an exception, whatever `tokens` holds.
    """
    array = np.asarray(tokens)
    if array.shape != (3,) or not np.issubdtype(array.dtype, np.integer):
        return _invalid("expected three whole numbers")
    kind, index, word = (int(token) for token in array)
    if not 0 <= kind < _NUM_POLICY_KINDS:
        return _invalid(f"there is no action kind {kind}")
    if kind not in (ActionKind.CLICK, ActionKind.TYPE):
        return Action(kind=ActionKind(kind))
    widgets = observation.widgets or ()
    if not 0 <= index < len(widgets):
        return _invalid(f"there is no widget {index} of {len(widgets)}")
    if kind == ActionKind.TYPE and not 0 <= word < len(raw_words):
        return _invalid(f"there is no word {word} of {len(raw_words)}")
    left, top, right, bottom = widgets[index].box
    return Action(
        kind=ActionKind(kind),
        x=(left + right) / 2,
        y=(top + bottom) / 2,
        widget=index,
        text=raw_words[word] if kind == ActionKind.TYPE else "",
    )


def encode_action(action: Action, raw_words: Sequence[str]) -> np.ndarray | None:
    """The tokens that `decode_tokens` turns into `action`, or None if none do.

    Args:
      action: A click or typing aimed at a widget by index, or an action without aim.
      raw_words: The instruction's words as `encode_observation` returned them.

    Returns:
      [3] int32, or None if the policy has no such action: a drag, a click at a place,
      a text that is not a word of the instruction.
    """
    kind = int(action.kind)
    if kind >= _NUM_POLICY_KINDS:
        return None
    aims = kind in (ActionKind.CLICK, ActionKind.TYPE)
    if aims and action.widget is None:
        return None
    if kind == ActionKind.TYPE and action.text not in raw_words:
        return None
    widget = action.widget if aims else 0
    word = raw_words.index(action.text) if kind == ActionKind.TYPE else 0
    return np.array([kind, widget, word], np.int32)


def _invalid(reason: str) -> Action:
    return Action(kind=ActionKind.INVALID, text=reason)


def _target(action: Action, observation: Observation) -> Widget | None:
    widgets = observation.widgets or ()
    index = action.widget
    return widgets[index] if index is not None and index < len(widgets) else None


def remember(action: Action, observation: Observation) -> PastAction:
    """What later prompts keep of an action taken on an observation."""
    target = _target(action, observation)
    text = {
        ActionKind.TYPE: action.text,
        ActionKind.PRESS: "+".join(action.keys),
    }.get(action.kind, "")
    return PastAction(
        int(action.kind), target.label if target else "", text, action.x, action.y
    )


def describe_action(action: Action, observation: Observation) -> str:
    """An action in words, for reports.

    Example:
      >>> screen = Observation(instruction="Read on")
      >>> describe_action(Action(kind=ActionKind.SCROLL_DOWN), screen)
      'scroll down'
    """
    parts = [action.kind.name.lower().replace("_", " ")]
    if action.keys:
        parts.append("+".join(action.keys))
    if action.text:
        parts.append(f'"{action.text}"')
    target = _target(action, observation)
    if target is not None:
        into = "into " if action.kind == ActionKind.TYPE else ""
        name = target.label or target.value  # a list may show its choice alone
        parts.append(into + target.role.replace("_", " ") + f" {name!r}" * bool(name))
    elif action.x is not None and action.y is not None:
        parts.append(f"at ({action.x:.2f}, {action.y:.2f})")
    return " ".join(parts)


@dataclasses.dataclass(frozen=True, kw_only=True)
class PointerCodec:
    """The pointer policy's encoding with its sizes fixed.

    Attributes:
      num_widgets: W.
      num_words: I.
      words_per_widget: K.
      num_history: H.
    """

    num_widgets: int = 32
    num_words: int = 32
    words_per_widget: int = 4
    num_history: int = 3
    num_tokens: int = dataclasses.field(default=3, init=False)

    def encode(
        self, observation: Observation, history: Sequence[PastAction]
    ) -> tuple[ScreenPrompt, tuple[str, ...]]:
        """The prompt, and what `decode` needs beside the tokens."""
        screen = encode_observation(
            observation,
            history,
            num_widgets=self.num_widgets,
            num_words=self.num_words,
            words_per_widget=self.words_per_widget,
            num_history=self.num_history,
        )
        return screen.prompt, screen.raw_words

    def decode(
        self, tokens: np.ndarray, observation: Observation, context: Sequence[str]
    ) -> Action:
        """The action that `tokens` stand for."""
        return decode_tokens(tokens, observation, context)

    def remember(
        self,
        history: Sequence[PastAction],
        tokens: np.ndarray,
        action: Action,
        observation: Observation,
        context: Any,
    ) -> list[PastAction]:
        """The actions so far and one more; only the latest are shown."""
        del tokens, context
        latest = [*history, remember(action, observation)]
        return latest[-self.num_history :] if self.num_history else []

    def empty_prompt(self) -> ScreenPrompt:
        """A prompt of an empty screen: shapes and padding."""
        return self.encode(Observation(instruction=""), ())[0]
