"""Parts of a parameter, read from a file without reading the rest.

A device holds a slice of a parameter whose axes are those of the file's tensor split
and permuted. Here such a slice becomes ranges of rows and columns of the tensor.
"""

import itertools
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import numpy as np

from stepjax.models.qwen_vl.tensors import parse_layout

__all__ = ["Sliceable", "read_part", "to_stored"]

Range = tuple[int, int]


class Sliceable(Protocol):
    """Anything that gives a numpy array for a tuple of slices."""

    def __getitem__(self, index: Any) -> np.ndarray:
        """The part at `index`."""
        ...


def read_part(
    tensor: Sliceable,
    stored: str,
    ours: str,
    sizes: Mapping[str, int],
    index: Sequence[slice],
    part: int | None = None,
) -> np.ndarray:
    """A slice of a parameter, from the tensor that holds it.

    Args:
      tensor: What the file has, in the layout `stored`.
      stored: Its layout.
      ours: Layout of the parameter.
      sizes: Size of each axis name.
      index: One slice, of step 1, per axis of the parameter.
      part: Index along the axis "part" of the stored layout, if it has one.

    Returns:
      The slice, of the file's type.
    """
    wanted: dict[str, Range] = {name: (0, size) for name, size in sizes.items()}
    if part is not None:
        wanted["part"] = (part, part + 1)
    rest: list[slice] = []  # of axes that are products: cut after reading
    for group, cut in zip(parse_layout(ours), index, strict=True):
        if len(group) == 1:
            start, stop, _ = cut.indices(sizes[group[0]])
            wanted[group[0]] = (start, stop)
            rest.append(slice(None))
        else:
            rest.append(cut)
    groups = parse_layout(stored)
    found = _read(tensor, [_ranges(group, sizes, wanted) for group in groups])
    names = [name for group in groups for name in group]
    found = found.reshape([wanted[name][1] - wanted[name][0] for name in names])
    order = [name for group in parse_layout(ours) for name in group]
    if part is not None:
        found = found.squeeze(names.index("part"))
        names.remove("part")
    found = found.transpose([names.index(name) for name in order])
    shape = [
        int(np.prod([wanted[name][1] - wanted[name][0] for name in group]))
        for group in parse_layout(ours)
    ]
    return found.reshape(shape)[tuple(rest)]


def _ranges(
    group: Sequence[str], sizes: Mapping[str, int], wanted: Mapping[str, Range]
) -> list[Range]:
    """Where in a product of axes the wanted entries lie, as few ranges as possible."""
    start, stop = wanted[group[0]]
    inner = int(np.prod([sizes[name] for name in group[1:]]))
    if all(wanted[name] == (0, sizes[name]) for name in group[1:]):
        return [(start * inner, stop * inner)]
    within = _ranges(group[1:], sizes, wanted)
    return [
        (at * inner + first, at * inner + last)
        for at in range(start, stop)
        for first, last in within
    ]


def _read(tensor: Sliceable, ranges: list[list[Range]]) -> np.ndarray:
    """The blocks where ranges of all axes meet, put together."""
    blocks = np.empty([len(some) for some in ranges], object)
    places = itertools.product(*(range(len(some)) for some in ranges))
    for place in places:
        at = tuple(
            slice(*some[index]) for some, index in zip(ranges, place, strict=True)
        )
        blocks[place] = np.asarray(tensor[at])
    return blocks.item() if blocks.size == 1 else np.block(blocks.tolist())


def to_stored(
    parts: Sequence[np.ndarray], stored: str, ours: str, sizes: Mapping[str, int]
) -> np.ndarray:
    """A tensor in the file's layout, from one layer of the parameters it holds.

    Args:
      parts: One parameter, or one per index of the axis "part".
      stored: Layout of the tensor.
      ours: Layout of each parameter.
      sizes: Size of each axis name.

    Returns:
      The tensor, contiguous.
    """
    groups = parse_layout(stored)
    names = [name for group in groups for name in group]
    order = [name for group in parse_layout(ours) for name in group]
    whole = np.stack([part.reshape([sizes[name] for name in order]) for part in parts])
    if "part" in names:
        order = ["part", *order]
    else:
        whole = whole[0]
    whole = whole.transpose([order.index(name) for name in names])
    shape = [int(np.prod([sizes[name] for name in group])) for group in groups]
    return np.ascontiguousarray(whole.reshape(shape))
