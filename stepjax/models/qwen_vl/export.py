"""A parameter tree as a Hugging Face folder, for transformers and inference servers.

The folder is written beside its place and moved there when it is whole, so whoever
reads it never sees half of it. Parameters that are spread over hosts are gathered one
layer at a time; every process takes part and the first one writes.
"""

import functools
import json
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import jax
import ml_dtypes
import numpy as np

from stepjax.models.qwen_vl.config import config_to_hf
from stepjax.models.qwen_vl.dimensions import QwenVLConfig
from stepjax.models.qwen_vl.lora import ADAPTERS, LoRA, merged_kernel
from stepjax.models.qwen_vl.slices import to_stored
from stepjax.models.qwen_vl.tensor_files import INDEX_NAME, read_object
from stepjax.models.qwen_vl.tensors import Entry, axis_sizes, entries, param_shape

__all__ = ["COPIED_FILES", "save_params"]

COPIED_FILES = (
    "tokenizer.json",
    "tokenizer_config.json",
    "vocab.json",
    "merges.txt",
    "special_tokens_map.json",
    "added_tokens.json",
    "chat_template.jinja",
    "chat_template.json",
    "generation_config.json",
    "preprocessor_config.json",
    "processor_config.json",
    "video_preprocessor_config.json",
)
"""Files beside the weights that a new folder takes over."""

_DTYPES = {
    "bfloat16": np.dtype(ml_dtypes.bfloat16),
    "float16": np.dtype(np.float16),
    "float32": np.dtype(np.float32),
}


def save_params(
    folder: str | Path,
    params: Mapping[str, Any],
    config: QwenVLConfig,
    *,
    source: str | Path | None = None,
    dtype: str = "bfloat16",
    max_file_bytes: int = 4_000_000_000,
    overwrite: bool = False,
    lora: LoRA | None = None,
) -> None:
    """Write a Hugging Face folder.

    Args:
      folder: Where to. With several processes it is on a disk that the first one
        reaches, and all of them call this.
      params: The tree that `QwenVL.init` makes.
      config: The dimensions.
      source: Folder that the model came from: its tokenizer and other files are
        copied, and its `config.json` is kept. None writes weights and a `config.json`.
      dtype: "bfloat16", "float16" or "float32".
      max_file_bytes: Size at which another file of weights is begun.
      overwrite: Whether a folder that is there already is replaced.
      lora: How the model is adapted, or None. Adapters are merged into their kernels in
        float32, layer by layer, and then rounded to `dtype`.

    Raises:
      OSError: If the weights cannot be written.
      ValueError: If the tree is not one of this model, or a value is out of range.
      FileExistsError: If the folder is there already and not to be replaced.
      ImportError: If safetensors is not installed.
    """
    target = Path(folder).absolute()
    if dtype not in _DTYPES:
        raise ValueError(
            f"save_params: dtype must be one of {sorted(_DTYPES)}, got {dtype!r}."
        )
    if max_file_bytes < 1:
        raise ValueError(
            f"save_params: max_file_bytes must be >= 1, got {max_file_bytes}."
        )
    _check_tree(params, config, lora)
    first = jax.process_index() == 0
    if first and target.exists() and not overwrite:
        if not target.is_dir() or any(target.iterdir()):
            raise FileExistsError(
                f"save_params: {target} is there already; remove it, choose another "
                "place, or pass overwrite=True."
            )
    values = _config_values(source, config, dtype)
    tensors = _tensors(params, config, _DTYPES[dtype], lora)
    if not first:
        for _ in tensors:  # takes part in gathering
            pass
        return
    partial = target.with_name(f".{target.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    try:
        _write_weights(partial, tensors, max_file_bytes)
        text = json.dumps(values, indent=2) + "\n"
        (partial / "config.json").write_text(text, encoding="utf-8")
        for name in COPIED_FILES if source is not None else ():
            if (Path(source or "") / name).is_file():
                shutil.copyfile(Path(source or "") / name, partial / name)
        _move(partial, target)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _move(partial: Path, target: Path) -> None:
    """Put a finished folder in its place; what was there goes when it stands."""
    old = target.with_name(f".{target.name}.old")
    shutil.rmtree(old, ignore_errors=True)
    if target.exists():
        target.rename(old)
    partial.rename(target)
    shutil.rmtree(old, ignore_errors=True)


def _config_values(
    source: str | Path | None, config: QwenVLConfig, dtype: str
) -> dict[str, Any]:
    """What goes into config.json."""
    path = None if source is None else Path(source) / "config.json"
    if path is None or not path.is_file():
        return {**config_to_hf(config), "torch_dtype": dtype}
    values = read_object(path, "save_params")
    for part in (values, values.get("text_config"), values.get("vision_config")):
        if isinstance(part, dict):
            for name in ("dtype", "torch_dtype"):
                if name in part:
                    part[name] = dtype
    if "dtype" not in values:
        values["torch_dtype"] = dtype
    return values


def _check_tree(
    params: Mapping[str, Any], config: QwenVLConfig, lora: LoRA | None
) -> None:
    expected = {entry.path for entry in entries(config)}
    leaves = {
        tuple(str(getattr(key, "key", key)) for key in path): leaf
        for path, leaf in jax.tree_util.tree_leaves_with_path(params)
    }
    adapters = {path for path in leaves if path[-1] in ADAPTERS}
    if bool(adapters) != (lora is not None):
        raise ValueError(
            "save_params: params hold adapters: pass lora, which says their scale."
            if adapters
            else "save_params: lora is given, but params hold no adapters."
        )
    found = set(leaves) - adapters
    if expected != found:
        wrong = sorted("/".join(path) for path in expected ^ found)
        raise ValueError(
            f"save_params: params are not those of this {config.architecture}: "
            f"{', '.join(wrong[:3])} differ."
        )
    sizes = axis_sizes(config)
    for entry in entries(config):
        shape = tuple(leaves[entry.path].shape)
        if shape != param_shape(entry, sizes):
            raise ValueError(
                f"save_params: {'/'.join(entry.path)} must have shape "
                f"{param_shape(entry, sizes)}, got {shape}."
            )


def _tensors(
    params: Mapping[str, Any],
    config: QwenVLConfig,
    dtype: np.dtype,
    lora: LoRA | None,
) -> Iterator[tuple[str, np.ndarray]]:
    """Names and contents of the tensors, as the file holds them."""
    sizes = axis_sizes(config)
    together: dict[tuple[str, ...], list[Entry]] = {}
    for entry in entries(config):
        together.setdefault(entry.names, []).append(entry)
    for names, parts in together.items():
        ordered = sorted(parts, key=lambda entry: entry.part or 0)
        for layer, name in enumerate(names):
            found = [
                _layer(params, entry, layer if entry.stacked else None, lora)
                for entry in ordered
            ]
            whole = to_stored(found, ordered[0].stored, ordered[0].ours, sizes)
            yield name, whole.astype(dtype)


def _layer(
    params: Mapping[str, Any], entry: Entry, layer: int | None, lora: LoRA | None
) -> np.ndarray:
    """A parameter, or one layer of it, on this host; adapters merged into a kernel."""
    node: Any = params
    for key in entry.path[:-1]:
        node = node[key]
    found = _fetch(node[entry.path[-1]], layer)
    if lora is None or entry.path[-1] != "kernel" or ADAPTERS[0] not in node:
        return found
    a, b = (_fetch(node[name], layer) for name in ADAPTERS)
    return merged_kernel(found, a, b, lora)


def _fetch(leaf: Any, layer: int | None) -> np.ndarray:
    """A parameter, or one layer of it, on this host."""
    if isinstance(leaf, jax.Array) and not leaf.is_fully_addressable:
        mesh = getattr(leaf.sharding, "mesh", None)
        if mesh is None:
            raise ValueError(
                "save_params: parameters that are spread over hosts must have a "
                f"NamedSharding, got {leaf.sharding}."
            )
        everywhere = jax.NamedSharding(mesh, jax.P())
        leaf = _gather(everywhere)(leaf, 0 if layer is None else layer, layer is None)
        return np.asarray(leaf.addressable_data(0))
    return np.asarray(leaf if layer is None else leaf[layer])


@functools.lru_cache(maxsize=8)
def _gather(everywhere: Any) -> Any:
    def pick(leaf: jax.Array, layer: Any, whole: bool) -> jax.Array:
        return leaf if whole else jax.lax.dynamic_index_in_dim(leaf, layer, 0, False)

    return jax.jit(pick, static_argnums=2, out_shardings=everywhere)


def _write_weights(
    folder: Path, tensors: Iterator[tuple[str, np.ndarray]], max_file_bytes: int
) -> None:
    """Files of weights, and their index if there are several."""
    try:
        from safetensors import SafetensorError
        from safetensors.numpy import save_file
    except ImportError as error:
        raise ImportError(
            "save_params: safetensors is not installed; install it with "
            "`pip install 'stepjax[vlm]'`."
        ) from error
    files: list[list[str]] = []
    held: dict[str, np.ndarray] = {}
    total = size = 0

    def flush() -> None:
        path = folder / f"{len(files)}.safetensors"
        path.touch()
        mode = path.stat().st_mode  # as the user wants it; safetensors makes it private
        try:
            save_file(held, path, metadata={"format": "pt"})
        except SafetensorError as error:  # how it tells of a full disk
            raise OSError(f"{path} cannot be written ({error})") from error
        path.chmod(mode)
        files.append(list(held))
        held.clear()

    for name, tensor in tensors:
        if held and size + tensor.nbytes > max_file_bytes:
            flush()
            size = 0
        held[name] = tensor
        size += tensor.nbytes
        total += tensor.nbytes
    flush()
    if len(files) == 1:
        (folder / "0.safetensors").rename(folder / "model.safetensors")
        return
    where = {}
    for index, names in enumerate(files):
        name = f"model-{index + 1:05d}-of-{len(files):05d}.safetensors"
        (folder / f"{index}.safetensors").rename(folder / name)
        where.update(dict.fromkeys(names, name))
    content = {"metadata": {"total_size": total}, "weight_map": where}
    (folder / INDEX_NAME).write_text(json.dumps(content, indent=2), encoding="utf-8")
