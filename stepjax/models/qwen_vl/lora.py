"""LoRA: small trainable matrices beside frozen ones.

The trainable tree holds, for each chosen kernel, `a` [layers, inputs, rank] and `b`
[layers, rank, outputs]; the kernel acts as `kernel + alpha / rank * a @ b`. It is a
tree of its own, so an optimizer given this tree keeps no state for the frozen weights.

```python
lora = LoRA(config=config, rank=16)
tree = lora.init(key)
gradients = jax.grad(lambda tree: objective(lora.merge(base, tree)))(tree)
save_params(folder, lora.merge(base, tree), config, source=checkpoint)
```
"""

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp

from stepjax.models.qwen_vl.dimensions import QwenVLConfig
from stepjax.models.qwen_vl.tensors import Entry, axis_sizes, entries, parse_layout

__all__ = ["LoRA", "TARGETS"]

TARGETS = ("query", "key", "value", "out", "gate", "up", "down")
"""Kernels of a layer that LoRA can stand beside, by their names in the tree."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class LoRA:
    """Which kernels are adapted, and how.

    Attributes:
      config: Of the model.
      rank: Of the product beside each kernel.
      alpha: The product is multiplied by alpha / rank.
      targets: Names out of `TARGETS`.
      vision: Whether the blocks of the vision tower are adapted too.

    Raises:
      ValueError: If a number is out of range or a target unknown.

    Example:
      >>> import jax
      >>> from stepjax.models.qwen_vl.config import PRESETS
      >>> lora = LoRA(config=PRESETS["tiny-qwen2-vl"], rank=4, targets=("query",))
      >>> tree = lora.init(jax.random.key(0))
      >>> tree["decoder"]["layers"]["query"]["kernel"]["a"].shape
      (2, 64, 4)
    """

    config: QwenVLConfig
    rank: int = 16
    alpha: float = 32.0
    targets: Sequence[str] = TARGETS
    vision: bool = False

    def __post_init__(self):
        """Check the numbers and names."""
        if self.rank < 1:
            raise ValueError(f"LoRA: rank must be >= 1, got {self.rank}.")
        if not (math.isfinite(self.alpha) and self.alpha > 0):
            raise ValueError(f"LoRA: alpha must be > 0, got {self.alpha}.")
        unknown = [name for name in self.targets if name not in TARGETS]
        if unknown or not self.targets:
            raise ValueError(
                f"LoRA: targets must be names out of {list(TARGETS)}, got "
                f"{list(self.targets)}."
            )

    @property
    def scale(self) -> float:
        """What the product is multiplied by."""
        return self.alpha / self.rank

    def _chosen(self) -> list[Entry]:
        """Entries of the adapted kernels."""
        stacks = [("decoder", "layers")]
        if self.vision:
            stacks.append(("vision", "blocks"))
        return [
            entry
            for entry in entries(self.config)
            if entry.path[:2] in stacks
            and entry.path[-1] == "kernel"
            and entry.path[2] in self.targets
        ]

    def _sizes(self, entry: Entry) -> tuple[int, int]:
        """Inputs and outputs of a kernel."""
        sizes = axis_sizes(self.config)
        names = [name for group in parse_layout(entry.ours) for name in group]
        inputs = math.prod(sizes[name] for name in entry.inputs)
        return inputs, math.prod(sizes[name] for name in names) // inputs

    def init(self, key: jax.Array, dtype: Any = jnp.float32) -> dict[str, Any]:
        """A tree that changes nothing yet: `a` random, `b` zero.

        Args:
          key: Consumed.
          dtype: Of the leaves.

        Returns:
          The paths of the adapted kernels, with `a` and `b` under each.
        """
        tree: dict[str, Any] = {}
        chosen = self._chosen()
        for entry, own in zip(chosen, jax.random.split(key, len(chosen)), strict=True):
            inputs, outputs = self._sizes(entry)
            layers = len(entry.names)
            bound = 1.0 / math.sqrt(inputs)
            a = jax.random.uniform(
                own, (layers, inputs, self.rank), dtype, -bound, bound
            )
            node = tree
            for name in entry.path:
                node = node.setdefault(name, {})
            node["a"], node["b"] = a, jnp.zeros((layers, self.rank, outputs), dtype)
        return tree

    def logical_axes(self) -> dict[str, Any]:
        """A tree like `init`'s, of tuples of the names of the leaves' axes.

        The long axes have the names of the kernel's axes where it has one of them on
        that side, and None where several are folded into one.
        """
        tree: dict[str, Any] = {}
        for entry in self._chosen():
            names = [name for group in parse_layout(entry.ours) for name in group]
            outputs = [name for name in names if name not in entry.inputs]
            node = tree
            for name in entry.path:
                node = node.setdefault(name, {})
            node["a"] = ("layers", _one(entry.inputs), None)
            node["b"] = ("layers", None, _one(outputs))
        return tree

    def merge(self, base: Mapping[str, Any], lora: Mapping[str, Any]) -> dict[str, Any]:
        """The parameters with the products added to their kernels.

        Args:
          base: The model's tree.
          lora: A tree as `init` makes it.

        Returns:
          A tree like `base`, of its types; leaves without LoRA are the same arrays.

        Raises:
          ValueError: At trace time, if the trees do not fit each other.
        """
        return _merge(base, lora, self.scale, ())

    def num_params(self) -> int:
        """Numbers in the trainable tree."""
        return sum(
            len(entry.names) * self.rank * sum(self._sizes(entry))
            for entry in self._chosen()
        )


def _one(names: Sequence[str]) -> str | None:
    if len(names) != 1:
        # heads and head_dim folded: sharded as heads are
        return next((_LOGICAL[name] for name in names if name in _FOLDED), None)
    return _LOGICAL.get(names[0], names[0])


_FOLDED = ("heads", "kv_heads", "v_heads")
_LOGICAL = {
    "heads": "heads",
    "kv_heads": "kv_heads",
    "v_heads": "vision_heads",
    "v_embed": "vision_embed",
    "v_mlp": "vision_mlp",
}


def _merge(base: Any, lora: Any, scale: float, path: tuple[str, ...]) -> Any:
    where = "/".join(path) or "the tree"
    if not isinstance(base, Mapping):
        return _merged_leaf(base, lora, scale, where)
    unknown = set(lora) - set(base)
    if unknown:
        raise ValueError(
            f"LoRA: {where} of the model has no {sorted(unknown)[0]!r}; the trees are "
            "of different models."
        )
    return {
        name: _merge(value, lora[name], scale, (*path, name)) if name in lora else value
        for name, value in base.items()
    }


def _merged_leaf(kernel: Any, lora: Any, scale: float, where: str) -> jax.Array:
    if not isinstance(lora, Mapping) or set(lora) != {"a", "b"}:
        raise ValueError(f"LoRA: {where} must hold 'a' and 'b'.")
    a, b = lora["a"], lora["b"]
    if (
        a.ndim != 3
        or b.ndim != 3
        or a.shape[::2] != b.shape[:2]
        or a.shape[0] * a.shape[1] * b.shape[2] != kernel.size
    ):
        raise ValueError(
            f"LoRA: a {a.shape} and b {b.shape} do not fit the kernel {kernel.shape} "
            f"of {where}."
        )
    product = jnp.matmul(a, b, preferred_element_type=jnp.float32) * scale
    whole = kernel.astype(jnp.float32) + product.reshape(kernel.shape)
    return whole.astype(kernel.dtype)
