"""Which tensor of a Hugging Face folder each parameter comes from, and its layout.

A layout is a line of axis names. `"(heads head_dim) embed"` is a matrix whose rows are
heads times head_dim; the parameter `"embed heads head_dim"` has the same numbers with
axes split and in another order. The axis "part" counts query, key and value where a
file keeps them in one tensor; the parameter is one of them. A leading axis of layers
comes on top.
"""

import dataclasses
import math
import re
from collections.abc import Iterator, Mapping

from stepjax.models.qwen_vl.dimensions import QwenVLConfig

__all__ = [
    "Entry",
    "axis_sizes",
    "entries",
    "param_shape",
    "parse_layout",
    "stored_shapes",
]

_GROUP = re.compile(r"\(([^)]*)\)|(\S+)")
_PARTS = ("query", "key", "value")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Entry:
    """One parameter and the tensors that it comes from.

    Attributes:
      path: Keys in the parameter tree.
      names: Names of the tensors, as the published folders spell them: one per layer,
        or one.
      stacked: Whether the parameter has a leading axis of layers.
      stored: Layout of each tensor.
      ours: Layout of the parameter, without the axis of layers.
      part: Index along the axis "part" of the stored layout, or None without one.
    """

    path: tuple[str, ...]
    names: tuple[str, ...]
    stacked: bool
    stored: str
    ours: str
    part: int | None = None

    @property
    def inputs(self) -> tuple[str, ...]:
        """Axes of a matrix that its input runs over; () for anything else."""
        groups = parse_layout(self.stored)
        return () if len(groups) < 2 else tuple(a for g in groups[1:] for a in g)


def parse_layout(layout: str) -> tuple[tuple[str, ...], ...]:
    """The axes of a layout, each the names whose product it is.

    Example:
      >>> parse_layout("(heads head_dim) embed")
      (('heads', 'head_dim'), ('embed',))
    """
    return tuple(
        tuple(grouped.split()) if grouped else (single,)
        for grouped, single in _GROUP.findall(layout)
    )


def axis_sizes(config: QwenVLConfig) -> dict[str, int]:
    """The size of every axis name that layouts use."""
    text, vision = config.text, config.vision
    return {
        "vocab": text.vocab_size,
        "embed": text.hidden_size,
        "heads": text.num_heads,
        "kv_heads": text.num_kv_heads,
        "head_dim": text.head_dim,
        "mlp": text.intermediate_size,
        "part": len(_PARTS),
        "v_embed": vision.hidden_size,
        "v_heads": vision.num_heads,
        "v_head_dim": vision.head_dim,
        "v_mlp": vision.intermediate_size,
        "v_wide": vision.hidden_size * vision.merge_size**2,
        "v_wide_out": vision.hidden_size * vision.merge_size**2,
        "colors": vision.in_channels,
        "frames": vision.temporal_patch_size,
        "rows": vision.patch_size,
        "columns": vision.patch_size,
    }


def _shape(layout: str, sizes: Mapping[str, int]) -> tuple[int, ...]:
    return tuple(
        math.prod(sizes[name] for name in group) for group in parse_layout(layout)
    )


def stored_shapes(config: QwenVLConfig) -> dict[str, tuple[int, ...]]:
    """The name and shape of every tensor that a folder of this model holds."""
    sizes = axis_sizes(config)
    return {
        name: _shape(entry.stored, sizes)
        for entry in entries(config)
        for name in entry.names
    }


def param_shape(entry: Entry, sizes: Mapping[str, int]) -> tuple[int, ...]:
    """The shape of a parameter, with its axis of layers.

    Args:
      entry: Which parameter.
      sizes: From `axis_sizes`.

    Returns:
      The shape.
    """
    own = _shape(entry.ours, sizes)
    return (len(entry.names), *own) if entry.stacked else own


def entries(config: QwenVLConfig) -> tuple[Entry, ...]:
    """Every parameter of a model, in the order of its layers."""
    return (*_text(config), *_vision(config))


def _linear(
    path: tuple[str, ...], names: tuple[str, ...], stored: str, ours: str, **more
) -> Entry:
    return Entry(
        path=(*path, "kernel"),
        names=tuple(f"{name}.weight" for name in names),
        stored=stored,
        ours=ours,
        **more,
    )


def _bias(path: tuple[str, ...], names: tuple[str, ...], axes: str, **more) -> Entry:
    outputs = " ".join(name for name in axes.split() if name != "part")
    return Entry(
        path=(*path, "bias"),
        names=tuple(f"{name}.bias" for name in names),
        stored=f"({axes})",
        ours=outputs,
        **more,
    )


def _norm(
    path: tuple[str, ...], names: tuple[str, ...], axis: str, bias: bool, stacked: bool
) -> Iterator[Entry]:
    pairs = [("scale", "weight"), ("bias", "bias")] if bias else [("scale", "weight")]
    for ours, theirs in pairs:
        yield Entry(
            path=(*path, ours),
            names=tuple(f"{name}.{theirs}" for name in names),
            stored=axis,
            ours=axis,
            stacked=stacked,
        )


def _text(config: QwenVLConfig) -> Iterator[Entry]:
    count = config.text.num_layers

    def names(part: str) -> tuple[str, ...]:
        return tuple(f"model.layers.{layer}.{part}" for layer in range(count))

    yield Entry(
        path=("embed", "embedding"),
        names=("model.embed_tokens.weight",),
        stored="vocab embed",
        ours="vocab embed",
        stacked=False,
    )
    for ours, theirs in (
        ("attn_norm", "input_layernorm"),
        ("mlp_norm", "post_attention_layernorm"),
    ):
        yield from _norm(
            ("decoder", "layers", ours), names(theirs), "embed", False, True
        )
    for ours, theirs, heads in (
        ("query", "q", "heads"),
        ("key", "k", "kv_heads"),
        ("value", "v", "kv_heads"),
    ):
        path, given = ("decoder", "layers", ours), names(f"self_attn.{theirs}_proj")
        stored, kept = f"({heads} head_dim) embed", f"embed {heads} head_dim"
        yield _linear(path, given, stored, kept, stacked=True)
        yield _bias(path, given, f"{heads} head_dim", stacked=True)
    yield _linear(
        ("decoder", "layers", "out"),
        names("self_attn.o_proj"),
        "embed (heads head_dim)",
        "heads head_dim embed",
        stacked=True,
    )
    for ours in ("gate", "up"):
        given = names(f"mlp.{ours}_proj")
        yield _linear(
            ("decoder", "layers", ours), given, "mlp embed", "embed mlp", stacked=True
        )
    yield _linear(
        ("decoder", "layers", "down"),
        names("mlp.down_proj"),
        "embed mlp",
        "mlp embed",
        stacked=True,
    )
    yield from _norm(("decoder", "norm"), ("model.norm",), "embed", False, False)
    if not config.text.tie_word_embeddings:
        yield _linear(
            ("head",), ("lm_head",), "vocab embed", "embed vocab", stacked=False
        )


def _vision(config: QwenVLConfig) -> Iterator[Entry]:
    windows = config.architecture == "qwen2_5_vl"
    yield _linear(
        ("vision", "patch_embed"),
        ("visual.patch_embed.proj",),
        "v_embed colors frames rows columns",
        "(colors frames rows columns) v_embed",
        stacked=False,
    )
    yield from _vision_blocks(config, windows)
    merger = ("vision", "merger")
    yield from _norm(
        (*merger, "norm"), ("visual.merger.ln_q",), "v_embed", not windows, False
    )
    for ours, theirs, outputs, inputs in (
        ("up", "0", "v_wide_out", "v_wide"),
        ("down", "2", "embed", "v_wide"),
    ):
        path, given = (*merger, ours), (f"visual.merger.mlp.{theirs}",)
        stored, kept = f"{outputs} {inputs}", f"{inputs} {outputs}"
        yield _linear(path, given, stored, kept, stacked=False)
        yield _bias(path, given, outputs, stacked=False)


def _vision_blocks(config: QwenVLConfig, windows: bool) -> Iterator[Entry]:
    def names(part: str) -> tuple[str, ...]:
        return tuple(f"visual.blocks.{i}.{part}" for i in range(config.vision.depth))

    def linear(ours: str, theirs: str, stored: str, kept: str) -> Iterator[Entry]:
        path = ("vision", "blocks", ours)
        yield _linear(path, names(theirs), stored, kept, stacked=True)
        outputs = parse_layout(stored)[0]
        yield _bias(path, names(theirs), " ".join(outputs), stacked=True)

    for name in ("norm1", "norm2"):
        path = ("vision", "blocks", name)
        yield from _norm(path, names(name), "v_embed", not windows, True)
    for part, ours in enumerate(_PARTS):
        path, given = ("vision", "blocks", ours), names("attn.qkv")
        axes, more = "part v_heads v_head_dim", {"stacked": True, "part": part}
        kept = "v_embed v_heads v_head_dim"
        yield _linear(path, given, f"({axes}) v_embed", kept, **more)
        yield _bias(path, given, axes, **more)
    yield from linear(
        "out",
        "attn.proj",
        "v_embed (v_heads v_head_dim)",
        "v_heads v_head_dim v_embed",
    )
    wide = (("gate", "mlp.gate_proj"), ("up", "mlp.up_proj"))
    for ours, theirs in wide if windows else (("up", "mlp.fc1"),):
        yield from linear(ours, theirs, "v_mlp v_embed", "v_embed v_mlp")
    down = "mlp.down_proj" if windows else "mlp.fc2"
    yield from linear("down", down, "v_embed v_mlp", "v_mlp v_embed")
