"""A small policy that sees pixels: a screenshot, an instruction, its latest actions.

The picture is cut into patches over a coarse grid. One latent query reads patches,
words and its own last actions through a few layers of attention, then chooses an action
as up to four tokens: what to do, in which cell of the coarse grid, in which cell of a
fine grid inside it, and with which word of the instruction or which key. Each token
conditions on the ones before. For the fine cell the policy looks again, at the pixels
around the coarse one.

The tables of kinds, keys and grids are `stepjax.envs.screen_actions`.
"""

import dataclasses
from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from stepjax.envs.actions import ActionKind
from stepjax.envs.screen_actions import (
    AIMED_KINDS,
    COARSE_COLUMNS,
    COARSE_ROWS,
    FINE_COLUMNS,
    FINE_ROWS,
    SCREEN_KEYS,
    SCREEN_KINDS,
)
from stepjax.envs.words import WORD_BUCKETS
from stepjax.models.pixels import as_floats, cell_of, pixels_around
from stepjax.models.policy import (
    MASKED,
    Attend,
    Policy,
    check_sizes,
    output_of,
    token_drawer,
)
from stepjax.types import PolicyOutput, ScreenshotPrompt

__all__ = ["NUM_TOKENS", "ScreenPolicy", "make_screen_policy", "screen_token_mask"]

NUM_TOKENS = 4
"""Tokens of an action: kind, coarse cell, fine cell, word or key."""

_CELLS = COARSE_COLUMNS * COARSE_ROWS
_MAX_CLAUSES = 8
_PAST_KINDS = max(ActionKind) + 1
_TYPE = SCREEN_KINDS.index(ActionKind.TYPE)
_PRESS = SCREEN_KINDS.index(ActionKind.PRESS)
_AIMED = tuple(SCREEN_KINDS.index(kind) for kind in sorted(AIMED_KINDS))

_UNIT = nn.initializers.normal(1.0)


class _Reader(nn.Module):
    """Turns a prompt into a first query and the memory it can attend to or point at."""

    width: int

    @nn.compact
    def __call__(self, prompt: ScreenshotPrompt):
        embed = nn.Embed(WORD_BUCKETS, self.width, embedding_init=_UNIT, name="words")
        places = self.param("places", _UNIT, (_CELLS, self.width))
        real = prompt.words > 0
        word = embed(prompt.words) * real[..., None]  # [S, I, D]
        clause_table = nn.Embed(_MAX_CLAUSES, self.width, embedding_init=_UNIT)
        clause = clause_table(jnp.clip(prompt.clause, 0, _MAX_CLAUSES - 1))
        before = jnp.pad(word, ((0, 0), (1, 0), (0, 0)))[:, :-1]
        blend = self.param("before", nn.initializers.normal(0.5), (self.width,))
        position = self.param("word_position", _UNIT, (real.shape[1], self.width))
        word_entries = word + clause + before * blend[None, None] + position[None]

        cells = self._cells(prompt.screenshot) + places[None]
        aimed = prompt.history_place[..., 0] >= 0
        typed = prompt.history_word > 0
        past = (
            nn.Embed(_PAST_KINDS + 1, self.width, embedding_init=_UNIT)(
                jnp.clip(prompt.history_kind, -1, _PAST_KINDS - 1) + 1
            )
            + places[cell_of(prompt.history_place)] * aimed[..., None]
            + embed(prompt.history_word) * typed[..., None]
            + self.param(
                "past_position", _UNIT, (prompt.history_kind.shape[-1], self.width)
            )[None]
        )
        memory = jnp.concatenate([word_entries, cells, past], axis=1)
        ones = jnp.ones(memory.shape[:2], bool)
        mask = ones.at[:, : real.shape[1]].set(real)
        spread = jnp.sqrt(jnp.maximum(real.sum(axis=-1, keepdims=True), 1))
        told = nn.Dense(self.width, name="told")(word.sum(axis=1) / spread)
        latest = nn.Dense(self.width, name="latest")(past[:, 0])
        return told + latest, nn.LayerNorm(name="norm")(memory), mask

    def _cells(self, screenshot: jax.Array) -> jax.Array:
        """[S, cells, D]: what stands in each coarse cell, from four patches."""
        half = self.width // 2
        rows, columns = 2 * COARSE_ROWS, 2 * COARSE_COLUMNS
        size, height, width, _ = screenshot.shape
        blocks = as_floats(screenshot).reshape(
            size, rows, height // rows, columns, width // columns, 3
        )
        patches = blocks.transpose(0, 1, 3, 2, 4, 5).reshape(size, rows, columns, -1)
        seen = nn.relu(nn.Dense(half, name="patch")(patches))
        around = nn.Conv(half, (3, 3), name="around")(seen)
        seen = seen + nn.relu(around)
        quads = seen.reshape(size, COARSE_ROWS, 2, COARSE_COLUMNS, 2, half)
        quads = quads.transpose(0, 1, 3, 2, 4, 5).reshape(size, _CELLS, -1)
        return nn.Dense(self.width, name="cell")(quads)


class _ScreenNet(nn.Module):
    """Logits of the four tokens, given the ones before (teacher forcing)."""

    width: int
    layers: int
    heads: int

    def setup(self):
        self.reader = _Reader(self.width)
        self.attend = [Attend(self.width, self.heads) for _ in range(self.layers)]
        self.norm = nn.LayerNorm()
        self.kind_head = nn.Dense(len(SCREEN_KINDS))
        self.kind_embed = nn.Embed(len(SCREEN_KINDS), self.width)
        self.coarse_query = nn.Dense(self.width)
        self.coarse_asked = nn.Dense(self.width)
        self.coarse_seen = nn.Dense(self.width, use_bias=False)
        self.coarse_score = nn.Dense(1, use_bias=False)
        self.fine_look = nn.Dense(self.width)
        self.fine_hidden = nn.Dense(2 * self.width)
        self.fine_head = nn.Dense(FINE_COLUMNS * FINE_ROWS)
        self.word_query = nn.Dense(self.width)
        self.keys = self.param("keys", _UNIT, (len(SCREEN_KEYS), self.width))

    def encode(self, prompt: ScreenshotPrompt):
        """Query [S, D], kind logits and the memory the pointers need."""
        query, memory, mask = self.reader(prompt)
        for layer in self.attend:
            query = layer(query, memory, mask)
        query = self.norm(query)
        kinds = self.kind_head(query)
        wordless = ~jnp.any(prompt.words > 0, axis=-1)  # nothing there to type
        kinds = kinds.at[:, _TYPE].set(jnp.where(wordless, MASKED, kinds[:, _TYPE]))
        return query, kinds, memory

    def coarse_logits(self, prompt, query, memory, kind):
        """[S, cells] logits of the coarse cell the action is done in."""
        cells = memory[:, prompt.words.shape[1] :][:, :_CELLS]
        asked = query + self.kind_embed(kind)
        pointed = jnp.einsum("sd,scd->sc", self.coarse_query(asked), cells)
        hidden = nn.relu(self.coarse_seen(cells) + self.coarse_asked(asked)[:, None])
        return pointed / jnp.sqrt(self.width) + self.coarse_score(hidden)[..., 0]

    def fine_logits(self, prompt, query, memory, kind, cell):
        """[S, fine cells] logits of the fine cell inside a coarse one."""
        entry = prompt.words.shape[1] + cell
        chosen = jnp.take_along_axis(memory, entry[:, None, None], axis=1)[:, 0]
        seen = nn.relu(self.fine_look(pixels_around(prompt.screenshot, cell)))
        known = [query + self.kind_embed(kind), chosen, seen]
        hidden = nn.relu(self.fine_hidden(jnp.concatenate(known, axis=-1)))
        return self.fine_head(hidden)

    def word_logits(self, prompt, query, memory, kind):
        """[S, I + keys] logits of the word to type, or else of the keys to press."""
        num_words = prompt.words.shape[1]
        asked = self.word_query(query + self.kind_embed(kind))
        words = jnp.einsum("sd,sid->si", asked, memory[:, :num_words])
        scores = jnp.concatenate([words, asked @ self.keys.T], axis=-1)
        presses = jnp.broadcast_to(
            (kind == _PRESS)[:, None], (len(asked), len(SCREEN_KEYS))
        )
        offered = jnp.concatenate(
            [(prompt.words > 0) & (kind != _PRESS)[:, None], presses], axis=-1
        )
        return jnp.where(offered, scores / jnp.sqrt(self.width), MASKED)

    def __call__(self, prompt: ScreenshotPrompt, tokens: jax.Array):
        query, kinds, memory = self.encode(prompt)
        kind, cell = tokens[:, 0], tokens[:, 1]
        return (
            kinds,
            self.coarse_logits(prompt, query, memory, kind),
            self.fine_logits(prompt, query, memory, kind, cell),
            self.word_logits(prompt, query, memory, kind),
        )


def screen_token_mask(kind: jax.Array) -> jax.Array:
    """[S, 4] bool: which tokens an action of each kind consists of.

    Args:
      kind: [S] int32. Indices into `SCREEN_KINDS`, the first token of an action.
    """
    aims = jnp.isin(kind, jnp.array(_AIMED, kind.dtype))
    names = (kind == _TYPE) | (kind == _PRESS)
    return jnp.stack([jnp.ones_like(aims), aims, aims, names], axis=-1)


@dataclasses.dataclass(frozen=True, kw_only=True)
class ScreenPolicy(Policy):
    """The screenshot policy as pure functions over a parameter tree.

    Attributes:
      token_mask: Which of the four tokens an action of each kind consists of.
    """

    token_mask: Callable[[jax.Array], jax.Array] = screen_token_mask


def make_screen_policy(
    *, width: int = 64, layers: int = 2, heads: int = 4
) -> ScreenPolicy:
    """Policy functions of a screenshot network of the given size.

    The picture may have any size that is a whole multiple of 32 x 20; parameters depend
    on it.

    Args:
      width: Size of every embedding; at least 2.
      layers: Attention layers the query passes through.
      heads: Attention heads of a layer.

    Returns:
      The policy's `init`, `sample` and `evaluate`.

    Raises:
      ValueError: At the call, if a size is too small.

    Example:
      >>> policy = make_screen_policy(width=16, layers=1, heads=2)
      >>> policy.token_mask(jnp.array([0])).tolist()  # a click: kind and two cells
      [[True, True, True, False]]
    """
    check_sizes("make_screen_policy", layers=layers, heads=heads)
    if width < 2:
        raise ValueError(f"make_screen_policy: width must be >= 2, got {width}.")
    net = _ScreenNet(width, layers, heads)

    def init(key: jax.Array, prompt: ScreenshotPrompt) -> Any:
        tokens = jnp.zeros((prompt.words.shape[0], NUM_TOKENS), jnp.int32)
        return net.init(key, prompt, tokens)

    def sample(
        params: Any, prompt: ScreenshotPrompt, keys: jax.Array, *, temperature
    ) -> tuple[jax.Array, jax.Array, jax.Array]:
        bound = net.bind(params)
        query, kinds, memory = bound.encode(prompt)
        draw = token_drawer(keys, temperature)
        kind, of_kind = draw(0, kinds)
        mask = screen_token_mask(kind)
        cell, of_cell = draw(1, bound.coarse_logits(prompt, query, memory, kind))
        cell = jnp.where(mask[:, 1], cell, 0)
        fine, of_fine = draw(2, bound.fine_logits(prompt, query, memory, kind, cell))
        word, of_word = draw(3, bound.word_logits(prompt, query, memory, kind))
        tokens = jnp.stack([kind, cell, fine, word], axis=-1).astype(jnp.int32)
        log_prob = jnp.stack([of_kind, of_cell, of_fine, of_word], axis=-1)
        return jnp.where(mask, tokens, 0), mask, jnp.where(mask, log_prob, 0.0)

    def evaluate(
        params: Any,
        prompt: ScreenshotPrompt,
        action_tokens: jax.Array,
        token_mask: jax.Array,
        *,
        temperature=1.0,
    ) -> PolicyOutput:
        logits: Any = net.apply(params, prompt, action_tokens)
        return output_of(logits, action_tokens, token_mask, temperature)

    return ScreenPolicy(init=init, sample=sample, evaluate=evaluate)
