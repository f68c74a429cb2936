"""What the small policies have in common: their face, their attention, their draws.

An action is a few tokens. Each is drawn given the ones before, and each has its own
log-probability, so the token losses are the real ones.
"""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from stepjax.types import PolicyOutput

__all__ = ["MASKED", "Attend", "Policy", "check_sizes", "output_of", "token_drawer"]

MASKED = -1e9
"""Logit of a choice that there is not."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Policy:
    """A policy as pure functions over a parameter tree.

    Attributes:
      init: `init(key, prompt) -> params`; `prompt` gives shapes, leading axis S.
      sample: `sample(params, prompt, keys, *, temperature) -> (tokens, token_mask,
        log_prob)`, each [S, A]; one key per row, so a row's draw does not depend on
        its neighbors; temperature 0 takes the likeliest tokens.
      evaluate: `evaluate(params, prompt, action_tokens, token_mask, *, temperature)
        -> PolicyOutput` for given tokens, under the same distribution as `sample`.
      token_mask: `token_mask(kind [S]) -> [S, A]` bool, which tokens an action
        consists of, given its first.
      load: `load(shardings=None) -> params`, the parameters to start from, for a policy
        that is trained already; each device reads its part if told where parameters go.
    """

    init: Callable[..., Any]
    sample: Callable[..., tuple[jax.Array, jax.Array, jax.Array]]
    evaluate: Callable[..., PolicyOutput]
    token_mask: Callable[[jax.Array], jax.Array]
    load: Callable[..., Any] | None = None

    def mask_of(self, tokens: jax.Array) -> jax.Array:
        """[S, A] bool: which of the tokens [S, A] their actions consist of."""
        return self.token_mask(tokens[:, 0])


class Attend(nn.Module):
    """One layer for one query: attention over the memory, then a feed-forward block.

    Keys and values are projected on the query's side, so the cost of a memory entry is
    a dot product and not a matrix.

    Attributes:
      width: Size of the query and of every memory entry.
      heads: Attention heads.
    """

    width: int
    heads: int

    @nn.compact
    def __call__(self, query: jax.Array, memory: jax.Array, mask: jax.Array):
        """The query [S, D] after reading memory [S, M, D] where mask [S, M]."""
        init = nn.initializers.lecun_normal(in_axis=1, out_axis=(0, 2))
        shape = (self.heads, self.width, self.width)
        into = self.param("query_key", init, shape)
        out = self.param("value_out", init, shape)
        asked = jnp.einsum("sd,hde->she", nn.LayerNorm()(query), into)
        scores = jnp.einsum("she,sme->shm", asked, memory) / jnp.sqrt(self.width)
        shares = jax.nn.softmax(jnp.where(mask[:, None], scores, MASKED), axis=-1)
        read = jnp.einsum("shm,sme->she", shares, memory)
        query = query + jnp.einsum("she,hed->sd", read, out) / jnp.sqrt(self.heads)
        hidden = nn.relu(nn.Dense(4 * self.width)(nn.LayerNorm()(query)))
        return query + nn.Dense(self.width)(hidden)


def check_sizes(maker: str, **sizes: int) -> None:
    """An error naming `maker` and the first of `sizes` that is below 1."""
    for name, value in sizes.items():
        if value < 1:
            raise ValueError(f"{maker}: {name} must be >= 1, got {value}.")


def token_drawer(keys: jax.Array, temperature: Any) -> Callable[..., tuple]:
    """A function that draws one token per row and returns it with its log-probability.

    Greedy draws report log-probabilities at temperature 1, where 0 has none.

    Args:
      keys: [S] keys, one per row.
      temperature: Number >= 0.

    Returns:
      `draw(position, logits [S, C]) -> (token [S], log_prob [S])`.
    """
    temperature = jnp.asarray(temperature, jnp.float32)
    divisor = jnp.where(temperature > 0, temperature, 1.0)

    def draw(position: int, logits: jax.Array) -> tuple[jax.Array, jax.Array]:
        logits = logits.astype(jnp.float32)

        def noise(key: jax.Array) -> jax.Array:
            key = jax.random.fold_in(key, position)
            return jax.random.gumbel(key, logits.shape[1:])

        token = jnp.argmax(logits + temperature * jax.vmap(noise)(keys), axis=-1)
        log_probs = jax.nn.log_softmax(logits / divisor, axis=-1)
        return token, jnp.take_along_axis(log_probs, token[:, None], axis=-1)[:, 0]

    return draw


def output_of(
    logits: Sequence[jax.Array],
    action_tokens: jax.Array,
    token_mask: jax.Array,
    temperature: Any,
) -> PolicyOutput:
    """Log-probabilities and entropies of given tokens.

    Args:
      logits: A arrays [S, C], one for each token of an action; C may differ.
      action_tokens: [S, A] int32.
      token_mask: [S, A] bool.
      temperature: Number > 0.

    Returns:
      The output, 0 where masked.
    """
    log_prob, entropy = [], []
    for position, row in enumerate(logits):
        log_probs = jax.nn.log_softmax(row.astype(jnp.float32) / temperature)
        token = action_tokens[:, position, None]
        log_prob.append(jnp.take_along_axis(log_probs, token, axis=-1)[:, 0])
        entropy.append(-jnp.sum(jnp.exp(log_probs) * log_probs, axis=-1))
    zero = jnp.float32(0.0)
    return PolicyOutput(
        log_prob=jnp.where(token_mask, jnp.stack(log_prob, axis=-1), zero),
        entropy=jnp.where(token_mask, jnp.stack(entropy, axis=-1), zero),
    )
