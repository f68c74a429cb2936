"""LoRA: small matrices beside kernels, which alone are trained.

Of a model made with `lora=...`, each chosen kernel [inputs, outputs] has two neighbors
in the tree, `lora_a` [inputs, rank] and `lora_b` [rank, outputs], and its layer
computes `x @ kernel + alpha / rank * (x @ lora_a) @ lora_b`. Nothing else is new: such
a tree is sharded, cast, saved and acted with like any other.

```python
lora = LoRA(rank=16)
model = make_qwen_vl(config, lora=lora)
params = with_adapters(model, load_params(folder), jax.random.key(0))
trainable = trainable_mask(params, [ALL_BUT_ADAPTERS])  # for make_train_step
save_params(target, merge_adapters(params, lora), config, source=folder)
```
"""

import dataclasses
import math
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp

__all__ = ["ALL_BUT_ADAPTERS", "TARGETS", "LoRA", "merge_adapters", "with_adapters"]

TARGETS = ("query", "key", "value", "out", "gate", "up", "down")
"""Kernels of a layer that LoRA can stand beside, by their names in the tree."""

ALL_BUT_ADAPTERS = r"^(?!.*/lora_[ab]$)"
"""Pattern of parameters at rest, for `stepjax.training.freezing.trainable_mask`."""

_NAMES = ("lora_a", "lora_b")


@dataclasses.dataclass(frozen=True, kw_only=True)
class LoRA:
    """Which kernels are adapted, and how.

    Attributes:
      rank: Of the product beside each kernel.
      alpha: The product is multiplied by alpha / rank.
      targets: Names out of `TARGETS`.
      vision: Whether the blocks of the vision tower are adapted too.

    Raises:
      ValueError: If a number is out of range or a target unknown.

    Example:
      >>> import jax
      >>> from stepjax.models.qwen_vl.config import PRESETS
      >>> from stepjax.models.qwen_vl.model import make_qwen_vl
      >>> lora = LoRA(rank=4, targets=("query",))
      >>> model = make_qwen_vl(PRESETS["tiny-qwen2-vl"], lora=lora)
      >>> params = jax.eval_shape(model.init, jax.random.key(0))
      >>> params["decoder"]["layers"]["query"]["lora_a"].shape
      (2, 64, 4)

    Source: arXiv:2106.09685.
    """

    rank: int = 16
    alpha: float = 32.0
    targets: tuple[str, ...] = TARGETS
    vision: bool = False

    def __post_init__(self):
        """Check the numbers and names."""
        object.__setattr__(self, "targets", tuple(self.targets))
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


def with_adapters(
    model: Any, params: Mapping[str, Any], key: jax.Array, *, shardings: Any = None
) -> dict[str, Any]:
    """Parameters with fresh adapters, which change nothing yet: `lora_b` is zero.

    Args:
      model: A `stepjax.models.qwen_vl.model.QwenVL`.
      params: Of the same model without LoRA, such as a folder's.
      key: Decides `lora_a`.
      shardings: Of the whole tree, or one for all; None for the default device.

    Returns:
      The tree that the model takes, `params` themselves in it.
    """
    where = _adapters(shardings) if isinstance(shardings, Mapping) else shardings
    fresh = jax.jit(lambda key: _adapters(model.init(key)), out_shardings=where)(key)
    return _joined(params, fresh)


def merge_adapters(params: Mapping[str, Any], lora: LoRA) -> dict[str, Any]:
    """The parameters of a model without LoRA that computes the same.

    Args:
      params: Of a model with `lora`.
      lora: How it is adapted.

    Returns:
      The tree without adapters, of the kernels' types, to which sums are rounded;
      leaves without adapters are the same arrays.
    """
    out = {}
    for name, value in params.items():
        if isinstance(value, Mapping):
            out[name] = merge_adapters(value, lora)
        elif name not in _NAMES:
            out[name] = value
    if _NAMES[0] in params:
        out["kernel"] = _merged(
            params["kernel"], params["lora_a"], params["lora_b"], lora.scale
        )
    return out


def _merged(kernel: Any, a: Any, b: Any, scale: float) -> jax.Array:
    a, b = jnp.asarray(a, jnp.float32), jnp.asarray(b, jnp.float32)
    product = jax.vmap(lambda a, b: jnp.tensordot(a, b, axes=1))(a, b)
    return (jnp.asarray(kernel, jnp.float32) + scale * product).astype(kernel.dtype)


def _adapters(tree: Mapping[str, Any]) -> dict[str, Any]:
    """The part of a tree that holds adapters."""
    inner = {
        name: _adapters(value)
        for name, value in tree.items()
        if isinstance(value, Mapping)
    }
    own = {name: tree[name] for name in _NAMES if name in tree}
    return {name: value for name, value in inner.items() if value} | own


def _joined(tree: Mapping[str, Any], more: Mapping[str, Any]) -> dict[str, Any]:
    """The leaves of both trees in one."""
    out = dict(tree)
    for name, value in more.items():
        both = isinstance(value, Mapping) and name in tree
        out[name] = _joined(tree[name], value) if both else value
    return out
