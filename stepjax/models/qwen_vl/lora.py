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
save_params(target, params, config, source=folder, lora=lora)  # merged
```
"""

import dataclasses
import math
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

__all__ = [
    "ADAPTERS",
    "ALL_BUT_ADAPTERS",
    "TARGETS",
    "LoRA",
    "merge_adapters",
    "merged_kernel",
    "with_adapters",
]

TARGETS = ("query", "key", "value", "out", "gate", "up", "down")
"""Kernels of a layer that LoRA can stand beside, by their names in the tree."""

ALL_BUT_ADAPTERS = r"^(?!.*/lora_[ab]$)"
"""Pattern of parameters at rest, for `stepjax.training.freezing.trainable_mask`."""

ADAPTERS = ("lora_a", "lora_b")
"""Names of the leaves beside a kernel."""


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

    Sums are rounded to the kernels' types. bfloat16 has no room for products much
    smaller than their kernels, as they are after few updates; `save_params` merges what
    it writes, to its own type.

    Args:
      params: Of a model with `lora`.
      lora: How it is adapted.

    Returns:
      The tree without adapters; leaves without adapters are the same arrays.

    Raises:
      ValueError: If there are no adapters, or they are not of this rank.
    """
    if not _adapters(params):
        raise ValueError("LoRA: these parameters have no adapters to merge.")
    return _merged(params, lora, "")


def merged_kernel(kernel: np.ndarray, a: Any, b: Any, lora: LoRA) -> np.ndarray:
    """One layer's kernel with its adapters' product, in float32, on the host.

    Args:
      kernel: [inputs, outputs], each several axes or one.
      a: [inputs, rank].
      b: [rank, outputs].
      lora: How it is adapted.
    """
    a, b = np.asarray(a, np.float32), np.asarray(b, np.float32)
    product = np.tensordot(a, b, axes=1)
    return np.asarray(kernel, np.float32) + np.float32(lora.scale) * product


def _merged(tree: Mapping[str, Any], lora: LoRA, where: str) -> dict[str, Any]:
    out = {}
    for name, value in tree.items():
        if isinstance(value, Mapping):
            out[name] = _merged(value, lora, f"{where}{name}/")
        elif name not in ADAPTERS:
            out[name] = value
    if ADAPTERS[0] in tree:
        a, b = (jnp.asarray(tree[name], jnp.float32) for name in ADAPTERS)
        if not a.shape[-1] == b.shape[1] == lora.rank:
            raise ValueError(
                f"LoRA: rank is {lora.rank}, but adapters at {where} are {a.shape} and "
                f"{b.shape}."
            )
        product = jax.vmap(lambda a, b: jnp.tensordot(a, b, axes=1))(a, b)
        kernel = tree["kernel"]
        whole = jnp.asarray(kernel, jnp.float32) + lora.scale * product
        out["kernel"] = whole.astype(kernel.dtype)
    return out


def _adapters(tree: Mapping[str, Any]) -> dict[str, Any]:
    """The part of a tree that holds adapters."""
    inner = {
        name: _adapters(value)
        for name, value in tree.items()
        if isinstance(value, Mapping)
    }
    own = {name: tree[name] for name in ADAPTERS if name in tree}
    return {name: value for name, value in inner.items() if value} | own


def _joined(tree: Mapping[str, Any], more: Mapping[str, Any]) -> dict[str, Any]:
    """The leaves of both trees in one."""
    out = dict(tree)
    for name, value in more.items():
        both = isinstance(value, Mapping) and name in tree
        out[name] = _joined(tree[name], value) if both else value
    return out
