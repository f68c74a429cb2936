"""Attention by segments: plain, through cuDNN on a GPU, or by a TPU flash kernel.

One rule holds everywhere, for prompts, packed groups and cached decoding. Every entry
has a slot and a segment: -1 is padding, 0 a prompt, g >= 1 the g-th response to it. The
query in slot q sees the key in slot k if k <= q, segment(k) >= 0, and segment(k) is 0
or that of the query. Without an order, as in the vision tower, k <= q is left out.
"""

from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import Mesh

from stepjax.models.qwen_vl.flash import flash_attend
from stepjax.models.qwen_vl.plain_attention import MASKED, plain_attend, visible

__all__ = ["KINDS", "attend", "check_layout", "chunk_of", "resolve"]

KINDS = ("auto", "plain", "cudnn", "tpu_flash")
"""Names of the implementations."""

_SHORT = 256
_WHOLE = 1024
_CHUNKS = 16


def resolve(kind: str, dtype: Any, mesh: Mesh | None = None) -> str:
    """The implementation to use.

    Args:
      kind: One of `KINDS`; "auto" takes the fastest one for the default device.
      dtype: Type of the activations; cuDNN needs 16 bits.
      mesh: Where the TPU kernel is split; without, "auto" takes it on one device only.

    Returns:
      "plain", "cudnn" or "tpu_flash".
    """
    if kind not in KINDS:
        raise ValueError(f"attention must be one of {list(KINDS)}, got {kind!r}.")
    narrow = jnp.dtype(dtype).itemsize == 2
    if kind == "cudnn" and not narrow:
        raise ValueError(
            f'attention "cudnn" needs dtype bfloat16 or float16, got '
            f"{jnp.dtype(dtype).name}."
        )
    if kind != "auto":
        return kind
    backend = jax.default_backend()
    if backend == "tpu":
        alone = mesh is not None or jax.device_count() == 1
        return "tpu_flash" if alone else "plain"
    return "cudnn" if backend == "gpu" and narrow else "plain"


def chunk_of(length: int) -> int:
    """How many queries are scored at once, so that scores fit in memory.

    Args:
      length: Number of queries.

    Returns:
      `length` up to 1024; else so many that there are at most 16 chunks, of 512 or
      more.
    """
    return length if length <= _WHOLE else max(512, -(-length // _CHUNKS))


def _cudnn(query: jax.Array, key: jax.Array, value: jax.Array, seen: jax.Array):
    return jax.nn.dot_product_attention(
        query, key, value, mask=seen[:, None], implementation="cudnn"
    )


def _by_chunks(query, key, value, query_segments, key_segments, offset):
    """Plain attention, chunks of queries one after another.

    If slots are known, a chunk reads only the keys up to its end, and half of the work
    is not done.
    """
    length = query.shape[1]
    chunk = chunk_of(length)
    outs = []
    for start in range(0, length, chunk):
        stop = min(start + chunk, length)
        end = key.shape[1]
        if isinstance(offset, int):
            end = min(end, offset + stop)
        part = query[:, start:stop], key[:, :end], value[:, :end]
        segments = query_segments[:, start:stop], key_segments[:, :end]
        outs.append(plain_attend(*part, *segments, _slots(offset, start, stop)))
    return outs[0] if len(outs) == 1 else jnp.concatenate(outs, axis=1)


def _slots(offset: Any, start: int, stop: int) -> jax.Array | None:
    if offset is None:
        return None
    first = jnp.reshape(jnp.asarray(offset, jnp.int32), (-1, 1))
    return first + jnp.arange(start, stop)[None]


def _responses(query, key, value, prompt, segments, prompt_segments):
    """Attention of responses [S, G, A, ...] to the prompt's entries and their own.

    The keys of other responses are not read at all.
    """
    rows, groups, length = query.shape[:3]
    heads = query.shape[3] // key.shape[3]
    asked = query.reshape(rows, groups, length, key.shape[3], heads, -1)
    form = {"preferred_element_type": jnp.float32}
    shared = jnp.einsum("sgakhe,scke->skhgac", asked, prompt[0], **form)
    own = jnp.einsum("sgakhe,sgbke->skhgab", asked, key, **form)
    flat = segments.reshape(rows * groups, length)
    seen_own = visible(flat, flat, jnp.arange(length)[None])
    seen_own = seen_own.reshape(rows, 1, 1, groups, length, length)
    seen = jnp.broadcast_to(
        (prompt_segments == 0)[:, None, None, None, None], shared.shape
    )
    seen = jnp.concatenate([seen, jnp.broadcast_to(seen_own, own.shape)], axis=-1)
    scores = jnp.concatenate([shared, own], axis=-1) * query.shape[-1] ** -0.5
    shares = jax.nn.softmax(jnp.where(seen, scores, MASKED), axis=-1)
    shares = shares.astype(value.dtype)
    cut = shared.shape[-1]
    out = jnp.einsum("skhgac,scke->sgakhe", shares[..., :cut], prompt[1])
    out += jnp.einsum("skhgab,sgbke->sgakhe", shares[..., cut:], value)
    return out.reshape(query.shape)


def _packed(query, key, value, segments, layout):
    """Plain attention over a prompt and the responses to it, all of one length."""
    prompt, response = layout
    first = slice(0, prompt)
    outs = []
    if prompt:
        asked, seen = query[:, first], segments[:, first]
        outs.append(_by_chunks(asked, key[:, first], value[:, first], seen, seen, 0))

    def split(array):
        return array[:, prompt:].reshape(array.shape[0], -1, response, *array.shape[2:])

    parts = [split(array) for array in (query, key, value, segments)]
    step = max(1, _WHOLE // response)
    total = parts[0].shape[1]
    score = _responses if total <= step else jax.checkpoint(_responses)
    for begin in range(0, total, step):
        query_, key_, value_, segments_ = (
            part[:, begin : begin + step] for part in parts
        )
        out = score(
            query_,
            key_,
            value_,
            (key[:, first], value[:, first]),
            segments_,
            segments[:, first],
        )
        outs.append(out.reshape(out.shape[0], -1, *out.shape[3:]))
    return jnp.concatenate(outs, axis=1)


def attend(
    query: jax.Array,
    key: jax.Array,
    value: jax.Array,
    *,
    query_segments: jax.Array,
    key_segments: jax.Array,
    offset: Any = None,
    layout: tuple[int, int] | None = None,
    kind: str = "plain",
    mesh: Mesh | None = None,
) -> jax.Array:
    """The values that queries see, weighed by how well keys match.

    Args:
      query: [S, T, H, E].
      key: [S, C, K, E]; K divides H, and query head h reads key head h * K // H.
      value: [S, C, K, E].
      query_segments: [S, T] int32.
      key_segments: [S, C] int32.
      offset: Slot of the first query: a number, an int32 scalar, or [S] int32. None
        means that slots do not matter.
      layout: (prompt, response) if T = C = prompt + G * response, the first `prompt`
        entries are of segments 0 and -1, and the next stretches of `response` entries
        of segments 1 and -1, 2 and -1, and so on; saves the work between responses.
      kind: "plain", "cudnn" or "tpu_flash", from `resolve`; the last needs `layout`,
        and more than 256 entries to be worth it, and is plain without.
      mesh: For "tpu_flash" on several devices.

    Returns:
      [S, T, H, E] of the query's type. A query that sees no key gets finite numbers
      without meaning.
    """
    if layout is not None:
        check_layout(layout, query.shape[1])
    if kind == "cudnn":
        slots = _slots(offset, 0, query.shape[1])
        seen = visible(query_segments, key_segments, slots)
        return _cudnn(query, key, value, seen)
    if kind == "tpu_flash" and layout is not None and query.shape[1] > _SHORT:
        ordered = offset is not None
        return flash_attend(
            query, key, value, query_segments, layout=layout, ordered=ordered, mesh=mesh
        )
    if layout is not None and layout[0] < query.shape[1] and offset is not None:
        return _packed(query, key, value, query_segments, layout)
    return _by_chunks(query, key, value, query_segments, key_segments, offset)


def check_layout(layout: tuple[int, int], length: int) -> None:
    """An error if a prompt and whole responses do not fill `length` entries."""
    prompt, response = layout
    rest = length - prompt
    if prompt < 0 or rest < 0 or (rest and (response < 1 or rest % response)):
        raise ValueError(
            f"attend: layout (prompt, response) must fill the {length} entries with a "
            f"prompt and whole responses, got {tuple(layout)}."
        )
