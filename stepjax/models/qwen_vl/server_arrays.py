"""Knowing again which arrays a server was given, without keeping them."""

import weakref
from typing import Any

import jax

__all__ = ["Arrays"]


class Arrays:
    """Which arrays a tree holds, without keeping them."""

    def __init__(self, tree: Any):
        self._leaves = [weakref.ref(leaf) for leaf in jax.tree.leaves(tree)]

    def are(self, other: "Arrays") -> bool:
        """Whether they are the same ones, and still there."""
        mine, theirs = ([leaf() for leaf in one._leaves] for one in (self, other))
        return len(mine) == len(theirs) and all(
            one is not None and one is two
            for one, two in zip(mine, theirs, strict=True)
        )
