"""Weights of a Hugging Face folder as a parameter tree, read straight into shards.

Every device's part of a parameter is read from the file by itself, so a host reads only
what its devices hold. Needs safetensors, of the extra `vlm`. The way back is
`stepjax.models.qwen_vl.export`.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from stepjax.models.qwen_vl.config import config_from_hf
from stepjax.models.qwen_vl.dimensions import QwenVLConfig
from stepjax.models.qwen_vl.tensor_files import Checkpoint, read_object
from stepjax.models.qwen_vl.tensors import Entry, entries

__all__ = ["load_params", "read_config"]


def read_config(folder: str | Path) -> QwenVLConfig:
    """The configuration in a Hugging Face folder.

    Args:
      folder: With `config.json`.

    Returns:
      The configuration.

    Raises:
      ValueError: If the file is missing, broken, or of another architecture.
    """
    path = Path(folder) / "config.json"
    if not path.is_file():
        raise ValueError(
            f"read_config: {folder} has no config.json; give the folder of a Qwen2-VL "
            "or Qwen2.5-VL model (UI-TARS is one)."
        )
    found = read_object(path, "read_config")
    try:
        return config_from_hf(found)
    except (TypeError, ValueError, ArithmeticError, LookupError) as error:
        raise ValueError(f"{path}: {error}") from error


def load_params(
    folder: str | Path | Checkpoint,
    *,
    shardings: Any = None,
    dtype: Any = jnp.float32,
) -> dict[str, Any]:
    """The parameter tree of a Hugging Face folder.

    Args:
      folder: With `config.json` and `*.safetensors`, or an opened `Checkpoint`.
      shardings: A tree like the parameters' of `jax.sharding.Sharding`, or one of them
        for all; None for the default device.
      dtype: Type of the parameters.

    Returns:
      The tree that `QwenVL.init` makes, its leaves jax arrays with these shardings.

    Raises:
      ValueError: If the folder does not hold a model as its `config.json` says.
      ImportError: If safetensors is not installed.

    Example:
      A folder from the hub, onto a mesh::

        params = load_params("UI-TARS-7B-DPO", shardings=shardings)
    """
    checkpoint = folder
    if not isinstance(checkpoint, Checkpoint):
        checkpoint = Checkpoint(checkpoint, read_config(checkpoint))
    params: dict[str, Any] = {}
    for entry in entries(checkpoint.config):
        place = shardings
        if isinstance(shardings, Mapping):
            for key in entry.path:
                place = place[key]
        if place is None:
            place = jax.sharding.SingleDeviceSharding(jax.devices()[0])
        node = params
        for key in entry.path[:-1]:
            node = node.setdefault(key, {})
        node[entry.path[-1]] = _load(checkpoint, entry, place, np.dtype(dtype))
    return params


def _load(
    checkpoint: Checkpoint, entry: Entry, sharding: Any, dtype: np.dtype
) -> jax.Array:
    """One parameter; devices that hold the same slice share what was read."""
    shape = checkpoint.shape(entry)
    seen: dict[tuple, np.ndarray] = {}

    def slice_of(index: Any) -> np.ndarray:
        ranges = tuple(
            cut.indices(size)[:2] for cut, size in zip(index, shape, strict=True)
        )
        if ranges not in seen:
            seen[ranges] = _slice(checkpoint, entry, ranges, dtype)
        return seen[ranges]

    return jax.make_array_from_callback(shape, sharding, slice_of)


def _slice(
    checkpoint: Checkpoint,
    entry: Entry,
    ranges: tuple[tuple[int, int], ...],
    dtype: np.dtype,
) -> np.ndarray:
    if not entry.stacked:
        index = tuple(slice(*one) for one in ranges)
        return np.ascontiguousarray(checkpoint.read(entry, 0, index).astype(dtype))
    (first, last), *own = ranges
    index = tuple(slice(*one) for one in own)
    out = np.empty((last - first, *(stop - start for start, stop in own)), dtype)
    for layer in range(first, last):
        out[layer - first] = checkpoint.read(entry, layer, index)
    return out
