"""What an engine runs: compiled for one device, or for the devices of a mesh."""

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from stepjax.models.qwen_vl.acting import model_on_mesh
from stepjax.models.qwen_vl.engine_sizes import EngineSizes
from stepjax.models.qwen_vl.generate import draw_tokens, prefill

__all__ = ["Programs", "Slots", "make_programs"]


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True, kw_only=True)
class Slots:
    """Responses under way, N of them.

    Attributes:
      cache: What they go on from, N rows.
      keys: [N] keys.
      token: [N] int32. Drawn last, not decoded yet.
      place: [N] int32. Rotary position of that token.
      count: [N] int32. Tokens drawn.
      alive: [N] bool. Whether a response goes on.
      tokens: [N, A] int32.
      log_prob: [N, A] float32.
    """

    cache: Any
    keys: jax.Array  # [N] keys
    token: jax.Array  # [N] int32
    place: jax.Array  # [N] int32
    count: jax.Array  # [N] int32
    alive: jax.Array  # [N] bool
    tokens: jax.Array  # [N, A] int32
    log_prob: jax.Array  # [N, A] float32


@dataclasses.dataclass(frozen=True, kw_only=True)
class Programs:
    """What an engine runs.

    Attributes:
      empty: `empty(params)`, slots without responses.
      join: `join(params, prompt, *, slots, rows, key, whose, temperature)`, the slots
        with new requests in `rows`.
      advance: `advance(params, *, slots, temperature, held=None)`, the slots after some
        tokens. Responses that `held` [N] bool does not name are ended before; None
        ends none.
      where: Shardings of slots; None on one device.
    """

    empty: Any
    join: Any
    advance: Any
    where: Any


def make_programs(
    model: Any,
    mesh: Mesh | None,
    *,
    sizes: EngineSizes,
    most: int,
    stop_tokens: tuple[int, ...],
    top_p: float,
) -> Programs:
    """Programs that compile when they are first called; all but `empty` donate slots.

    Args:
      model: A `stepjax.models.qwen_vl.model.QwenVL`.
      mesh: Where the parameters lie; None for one device.
      sizes: Slots and buckets.
      most: Most tokens of a response, A.
      stop_tokens: Tokens that end a response.
      top_p: See `stepjax.models.qwen_vl.generate.draw_tokens`.

    Returns:
      The programs.
    """
    model = model_on_mesh(model, mesh)
    options = {
        "model": model,
        "stop_tokens": stop_tokens,
        "top_p": top_p,
        "most": most,
    }
    empty = functools.partial(_empty, model=model, sizes=sizes, most=most)
    where = None
    if mesh is not None:
        # Said for all, so that what one returns is what the next one takes.
        params = jax.eval_shape(model.init, jax.random.key(0))
        where = _slot_sharding(jax.eval_shape(empty, params), mesh)
    compiled = functools.partial(jax.jit, out_shardings=where)
    donating = functools.partial(compiled, donate_argnames="slots")
    return Programs(
        # It reads no parameter, but is to lie where they do, as what the others return.
        empty=compiled(empty, keep_unused=True),
        join=donating(functools.partial(_join, **options)),
        advance=donating(functools.partial(_advance, **options, chunk=sizes.chunk)),
        where=where,
    )


def _slot_sharding(slots: Any, mesh: Mesh) -> Any:
    """Where slots live: the cache by rows and heads, the rest everywhere."""

    def choose(leaf: Any) -> NamedSharding:
        if leaf.ndim < 4:
            return NamedSharding(mesh, P())
        groups, heads = mesh.shape["data"], mesh.shape["tensor"]
        axes = (
            "data" if leaf.shape[-4] % groups == 0 else None,
            None,
            "tensor" if leaf.shape[-2] % heads == 0 else None,
            None,
        )
        return NamedSharding(mesh, P(*[None] * (leaf.ndim - 4), *axes))

    return jax.tree.map(choose, slots)


def _empty(params: Any, *, model: Any, sizes: EngineSizes, most: int) -> Slots:
    """Slots without responses."""
    count = sizes.slots
    dtype = jax.eval_shape(
        lambda params: model.embed(params, jnp.zeros((1, 1), jnp.int32), None, None),
        params,
    ).dtype
    cache = model.init_cache(count, max(sizes.prompt_buckets) + most, dtype)
    return Slots(
        cache=dataclasses.replace(cache, length=jnp.zeros(count, jnp.int32)),
        keys=jax.random.split(jax.random.key(0), count),
        token=jnp.zeros(count, jnp.int32),
        place=jnp.zeros(count, jnp.int32),
        count=jnp.zeros(count, jnp.int32),
        alive=jnp.zeros(count, bool),
        tokens=jnp.zeros((count, most), jnp.int32),
        log_prob=jnp.zeros((count, most), jnp.float32),
    )


def _join(
    params: Any,
    prompt: Any,
    *,
    slots: Slots,
    rows: jax.Array,
    key: jax.Array,
    whose: jax.Array,
    temperature: jax.Array,
    model: Any,
    stop_tokens: tuple[int, ...],
    top_p: float,
    most: int,
) -> Slots:
    """The slots with new requests in `rows`; rows beyond the last are dropped."""
    length = prompt.tokens.shape[1]
    hidden, fresh = prefill(model, params, prompt, capacity=length)

    def key_of(who: jax.Array) -> jax.Array:
        return jax.random.fold_in(jax.random.fold_in(key, who[0]), who[1])

    keys = jax.vmap(key_of)(whose)
    token, log_prob = draw_tokens(
        hidden,
        model.unembed(params),
        keys,
        jnp.int32(0),
        temperature=temperature,
        top_p=top_p,
    )
    stops = jnp.asarray(stop_tokens, jnp.int32)
    old = slots.cache

    def put(whole: jax.Array, part: jax.Array) -> jax.Array:
        if whole.ndim == 5:  # [layers, N, C, heads, head_dim]
            return whole.at[:, rows, :length].set(part[:, :, :length])
        return whole.at[rows, :length].set(part[:, :length])

    segments = old.segments.at[rows].set(-1)
    cache = dataclasses.replace(
        old,
        keys=jax.tree.map(put, old.keys, fresh.keys),
        values=jax.tree.map(put, old.values, fresh.values),
        segments=segments.at[rows, :length].set(prompt.segments),
        length=old.length.at[rows].set(length),
    )
    return Slots(
        cache=cache,
        keys=slots.keys.at[rows].set(keys),
        token=slots.token.at[rows].set(token),
        place=slots.place.at[rows].set(prompt.next_position),
        count=slots.count.at[rows].set(1),
        alive=slots.alive.at[rows].set(~jnp.isin(token, stops) & (most > 1)),
        tokens=slots.tokens.at[rows].set(0).at[rows, 0].set(token),
        log_prob=slots.log_prob.at[rows].set(0.0).at[rows, 0].set(log_prob),
    )


def _advance(
    params: Any,
    *,
    slots: Slots,
    temperature: jax.Array,
    held: jax.Array | None = None,
    model: Any,
    stop_tokens: tuple[int, ...],
    top_p: float,
    most: int,
    chunk: int,
) -> Slots:
    """The slots after at most `chunk` more tokens each; fewer if all have ended."""
    if held is not None:
        slots = dataclasses.replace(slots, alive=slots.alive & held)
    head, stops = model.unembed(params), jnp.asarray(stop_tokens, jnp.int32)
    size = slots.token.shape[0]
    every = jnp.arange(size)

    def going_on(carry: tuple) -> jax.Array:
        step, now = carry
        return (step < chunk) & jnp.any(now.alive)

    def one_more(carry: tuple) -> tuple:
        step, now = carry
        places = jnp.broadcast_to(now.place[:, None, None], (size, 3, 1))
        hidden, cache = model.decode(
            params,
            model.embed(params, now.token[:, None], None, None),
            places,
            jnp.where(now.alive, 0, -1)[:, None],
            now.cache,
        )
        token, log_prob = draw_tokens(
            hidden[:, 0],
            head,
            now.keys,
            now.count,
            temperature=temperature,
            top_p=top_p,
        )
        # Slots that have ended write where nothing is.
        at = jnp.where(now.alive, now.count, most)
        count = now.count + now.alive
        length = jnp.where(now.alive, cache.length, now.cache.length)
        return step + 1, dataclasses.replace(
            now,
            cache=dataclasses.replace(cache, length=length),
            token=jnp.where(now.alive, token, now.token),
            place=now.place + now.alive,
            count=count,
            alive=now.alive & ~jnp.isin(token, stops) & (count < most),
            tokens=now.tokens.at[every, at].set(token, mode="drop"),
            log_prob=now.log_prob.at[every, at].set(log_prob, mode="drop"),
        )

    return jax.lax.while_loop(going_on, one_more, (jnp.int32(0), slots))[1]
