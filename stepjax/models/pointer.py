"""A small policy that points: at widgets to click, at instruction words to type.

One latent query reads the screen, the instruction and its own last actions through a
few layers of multi-head attention, then chooses an action as up to three tokens: what
to do, at which widget, with which word. Each token conditions on the ones before, and
each has its own log-probability, so the token losses are the real ones.

Words are hashed and compared for equality, so the same parameters read the simulator
and web pages. Nothing depends on the number of widgets or words.
"""

import dataclasses
from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from stepjax.envs.actions import ActionKind
from stepjax.envs.words import ROLES, WORD_BUCKETS
from stepjax.models.policy import (
    MASKED,
    Attend,
    Policy,
    check_sizes,
    output_of,
    token_drawer,
)
from stepjax.types import PolicyOutput, ScreenPrompt

__all__ = [
    "NUM_KINDS",
    "NUM_TOKENS",
    "PointerPolicy",
    "make_pointer_policy",
    "token_mask_of",
]

NUM_KINDS = 9
"""Kinds of action the policy can choose: the first nine of `ActionKind`."""

NUM_TOKENS = 3
"""Tokens of an action: kind, widget, word."""

_MAX_CLAUSES = 8
_STATE_BITS = 3
_PAST_KINDS = ActionKind.INVALID + 1  # kinds added later never enter its history


class _Reader(nn.Module):
    """Turns a prompt into a query and the memory it can attend to or point at."""

    width: int

    @nn.compact
    def __call__(self, prompt: ScreenPrompt):
        embed = nn.Embed(
            WORD_BUCKETS,
            self.width,
            embedding_init=nn.initializers.normal(1.0),
            name="words",
        )
        clause_table = nn.Embed(
            _MAX_CLAUSES, self.width, embedding_init=nn.initializers.normal(1.0)
        )
        clause = clause_table(jnp.clip(prompt.clause, 0, _MAX_CLAUSES - 1))
        word = embed(prompt.words) * (prompt.words > 0)[..., None]  # [S, I, D]
        before = jnp.pad(word, ((0, 0), (1, 0), (0, 0)))[:, :-1]
        blend = self.param("before", nn.initializers.normal(0.5), (self.width,))
        word_keys = word + clause + before * blend[None, None]

        same = (prompt.widget_words[..., None] == prompt.words[:, None, None, :]) & (
            prompt.words[:, None, None, :] > 0
        )  # [S, W, K, I]
        overlap = jnp.any(same, axis=2).astype(word.dtype)  # [S, W, I]
        label = _mean_words(embed, prompt.widget_words)
        widget = (
            label
            + nn.Embed(len(ROLES), self.width, name="roles")(prompt.widget_role)
            + nn.Dense(self.width, name="features")(_features(prompt, same))
            + nn.Dense(self.width, name="matched")(
                overlap @ clause / (1.0 + overlap.sum(-1, keepdims=True))
            )
        )
        widget = widget + nn.Dense(self.width, name="widget_out")(
            nn.relu(nn.Dense(self.width, name="widget_in")(widget))
        )
        history = (
            nn.Embed(_PAST_KINDS + 1, self.width, name="past_kind")(
                prompt.history_kind + 1
            )
            + _mean_words(embed, prompt.history_words)
            + self.param(
                "past_position",
                nn.initializers.normal(1.0),
                (prompt.history_kind.shape[-1], self.width),
            )[None]
        )
        memory = jnp.concatenate([word_keys, widget, history], axis=1)
        mask = jnp.concatenate(
            [
                prompt.words > 0,
                prompt.widget_mask,
                jnp.ones_like(prompt.history_kind, bool),
            ],
            axis=1,
        )
        return nn.LayerNorm(name="norm")(memory), mask, same


def _mean_words(embed: Callable[[jax.Array], jax.Array], words: jax.Array) -> jax.Array:
    real = (words > 0)[..., None]
    total = jnp.sum(embed(words) * real, axis=-2)
    return total / jnp.sqrt(jnp.maximum(real.sum(axis=-2), 1))


def _features(prompt: ScreenPrompt, same: jax.Array) -> jax.Array:
    """[S, W, 3 + 4 + 2]: state bits, box, and how much of the label is in the text."""
    shifts = [prompt.widget_state >> bit for bit in range(_STATE_BITS)]
    bits = jnp.stack(shifts, axis=-1) & 1
    named = jnp.any(same, axis=-1)  # [S, W, K]
    real = prompt.widget_words > 0
    share = named.sum(-1) / jnp.maximum(real.sum(-1), 1)
    found = jnp.stack([share, (share == 1.0) & real.any(-1)], axis=-1)
    parts = [bits, prompt.widget_box, found]
    return jnp.concatenate([part.astype(jnp.float32) for part in parts], axis=-1)


class _PointerNet(nn.Module):
    """Logits of the three tokens, given the ones before (teacher forcing)."""

    width: int
    layers: int
    heads: int

    def setup(self):
        self.reader = _Reader(self.width)
        self.attend = [Attend(self.width, self.heads) for _ in range(self.layers)]
        self.start = self.param("start", nn.initializers.normal(1.0), (self.width,))
        self.norm = nn.LayerNorm()
        self.kind_head = nn.Dense(NUM_KINDS)
        self.kind_embed = nn.Embed(NUM_KINDS, self.width)
        self.widget_query = nn.Dense(self.width)
        self.word_query = nn.Dense(self.width)
        self.copy_weight = self.param("copy_weight", nn.initializers.zeros, (3,))

    def encode(self, prompt: ScreenPrompt):
        """Query [S, D], kind logits [S, 9] and the memory the pointers need."""
        memory, mask, same = self.reader(prompt)
        query = jnp.broadcast_to(self.start, (memory.shape[0], self.width))
        for layer in self.attend:
            query = layer(query, memory, mask)
        query = self.norm(query)
        return query, self.kind_head(query), (memory, same)

    def widget_logits(self, prompt, query, memory, kind):
        """[S, W] logits of the widget the action is aimed at."""
        num_words, num_widgets = prompt.words.shape[1], prompt.widget_mask.shape[1]
        widgets = memory[0][:, num_words : num_words + num_widgets]
        asked = self.widget_query(query + self.kind_embed(kind))
        scores = jnp.einsum("sd,swd->sw", asked, widgets) / jnp.sqrt(self.width)
        return jnp.where(prompt.widget_mask, scores, MASKED)

    def word_logits(self, prompt, query, memory, widget):
        """[S, I] logits of the instruction word to type into the chosen widget."""
        num_words = prompt.words.shape[1]
        entries, same = memory
        chosen = jnp.take_along_axis(
            entries[:, num_words:], widget[:, None, None], axis=1
        )[:, 0]
        asked = self.word_query(query + chosen)
        scores = jnp.einsum("sd,sid->si", asked, entries[:, :num_words])
        near = jnp.take_along_axis(
            jnp.any(same, axis=2), widget[:, None, None], axis=1
        )[:, 0].astype(scores.dtype)  # [S, I]: the word stands in the widget's label
        shifted = [jnp.pad(near, ((0, 0), (n, 0)))[:, :num_words] for n in range(3)]
        copied = jnp.stack(shifted, axis=-1) @ self.copy_weight
        scores = scores / jnp.sqrt(self.width) + copied
        return jnp.where(prompt.words > 0, scores, MASKED)

    def __call__(self, prompt: ScreenPrompt, tokens: jax.Array):
        query, kind_logits, memory = self.encode(prompt)
        return (
            kind_logits,
            self.widget_logits(prompt, query, memory, tokens[:, 0]),
            self.word_logits(prompt, query, memory, tokens[:, 1]),
        )


def token_mask_of(kind: jax.Array) -> jax.Array:
    """[S, 3] bool: which tokens an action of each kind consists of."""
    types = kind == ActionKind.TYPE
    return jnp.stack(
        [jnp.ones_like(types), types | (kind == ActionKind.CLICK), types], axis=-1
    )


@dataclasses.dataclass(frozen=True, kw_only=True)
class PointerPolicy(Policy):
    """The pointer policy as pure functions over a parameter tree.

    Attributes:
      token_mask: Which of the three tokens an action of each kind consists of.
    """

    token_mask: Callable[[jax.Array], jax.Array] = token_mask_of


def make_pointer_policy(
    *, width: int = 48, layers: int = 2, heads: int = 4
) -> PointerPolicy:
    """Policy functions of a pointer network of the given size.

    Args:
      width: Size of every embedding.
      layers: Attention layers the query passes through.
      heads: Attention heads of a layer.

    Returns:
      The policy's `init`, `sample` and `evaluate`.

    Raises:
      ValueError: At the call, if a size is below 1.

    Example:
      >>> policy = make_pointer_policy(width=16, layers=1, heads=2)
      >>> policy.init.__name__
      'init'
    """
    check_sizes("make_pointer_policy", width=width, layers=layers, heads=heads)
    net = _PointerNet(width, layers, heads)

    def init(key: jax.Array, prompt: ScreenPrompt) -> Any:
        tokens = jnp.zeros((prompt.words.shape[0], NUM_TOKENS), jnp.int32)
        return net.init(key, prompt, tokens)

    def sample(
        params: Any, prompt: ScreenPrompt, keys: jax.Array, *, temperature
    ) -> tuple[jax.Array, jax.Array, jax.Array]:
        bound = net.bind(params)
        query, kind_logits, memory = bound.encode(prompt)
        draw = token_drawer(keys, temperature)
        kind, kind_log_prob = draw(0, kind_logits)
        widget_logits = bound.widget_logits(prompt, query, memory, kind)
        widget, widget_log_prob = draw(1, widget_logits)
        mask = token_mask_of(kind)
        widget = jnp.where(mask[:, 1], widget, 0)
        word_logits = bound.word_logits(prompt, query, memory, widget)
        word, word_log_prob = draw(2, word_logits)
        word = jnp.where(mask[:, 2], word, 0)
        log_prob = jnp.stack([kind_log_prob, widget_log_prob, word_log_prob], axis=-1)
        tokens = jnp.stack([kind, widget, word], axis=-1).astype(jnp.int32)
        return tokens, mask, jnp.where(mask, log_prob, 0.0)

    def evaluate(
        params: Any,
        prompt: ScreenPrompt,
        action_tokens: jax.Array,
        token_mask: jax.Array,
        *,
        temperature=1.0,
    ) -> PolicyOutput:
        logits: Any = net.apply(params, prompt, action_tokens)
        return output_of(logits, action_tokens, token_mask, temperature)

    return PointerPolicy(init=init, sample=sample, evaluate=evaluate)
