"""The tensors of a Hugging Face folder: where they are, and slices of them.

Both spellings of names are known: that of published folders (`model.layers.0...`,
`visual...`) and that of newer programs (`model.language_model.layers.0...`,
`model.visual...`). Needs safetensors, of the extra `vlm`.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from stepjax.models.qwen_vl.dimensions import QwenVLConfig
from stepjax.models.qwen_vl.slices import read_part
from stepjax.models.qwen_vl.tensors import (
    Entry,
    axis_sizes,
    param_shape,
    stored_shapes,
)

__all__ = ["INDEX_NAME", "Checkpoint", "read_object"]

INDEX_NAME = "model.safetensors.index.json"
"""Says which file holds which tensor, where there are several."""

_SPELLINGS = (
    ("model.language_model.", "model."),
    ("model.visual.", "visual."),
)
_FLOATS = {"F64", "F32", "F16", "BF16"}
_HEAD = "lm_head.weight"
_ROWS_COMPARED = 32
_SHOWN = 3
_HOW = "load_params"


def read_object(path: Path, who: str) -> dict[str, Any]:
    """The JSON object in a file.

    Args:
      path: Of the file.
      who: Named in errors as the one that wants it.

    Returns:
      The object.

    Raises:
      ValueError: If the file cannot be read or holds something else.
    """
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise ValueError(f"{who}: {path} cannot be read: {error}.") from error
    if not isinstance(found, dict):
        raise ValueError(
            f"{who}: {path} must hold an object, got {type(found).__name__}."
        )
    return found


class Checkpoint:
    """The tensors of a folder, checked against a model, and how much was read.

    Attributes:
      config: The model's dimensions.
      bytes_read: Bytes of tensors read so far.
    """

    config: QwenVLConfig
    bytes_read: int

    def __init__(self, folder: str | Path, config: QwenVLConfig):
        """Open a folder; of tensors only some rows of a tied head are read yet.

        Args:
          folder: With `*.safetensors`.
          config: The dimensions expected.

        Raises:
          ValueError: If a tensor is missing, not part of the model, or of another
            shape or type; if the head is tied, but the file holds another one; if a
            file is missing or broken.
          ImportError: If safetensors is not installed.
        """
        self.config = config
        self.bytes_read = 0
        self._sizes = axis_sizes(self.config)
        self._handles: dict[str, Any] = {}
        self._where: dict[str, tuple[Any, str]] = {}
        for path in _files(Path(folder)):
            self._open(path)
        self._check(Path(folder))

    def _open(self, path: Path) -> None:
        try:
            from safetensors import SafetensorError, safe_open
        except ImportError as error:
            raise ImportError(
                f"{_HOW}: safetensors is not installed; install it with "
                "`pip install 'stepjax[vlm]'`."
            ) from error
        try:
            handle = safe_open(path, framework="numpy")
        except (OSError, SafetensorError) as error:
            raise ValueError(f"{_HOW}: {path} cannot be read: {error}.") from error
        for stored in handle.keys():  # noqa: SIM118 (it is no dict)
            name = _canonical(stored)
            if name in self._where:
                raise ValueError(
                    f"{_HOW}: {path} holds {stored}, which another file or spelling "
                    f"holds as {self._where[name][1]}; remove one of them."
                )
            self._where[name] = (handle, stored)

    def _check(self, folder: Path) -> None:
        """Raise unless the tensors are those of the model."""
        expected = stored_shapes(self.config)
        missing = [name for name in expected if name not in self._where]
        known = {*expected, _HEAD}
        extra = [
            name
            for name in self._where
            if name not in known and not name.endswith(".inv_freq")
        ]
        misshapen, types = [], []
        for name, shape in expected.items():
            if name in missing:
                continue
            handle, stored = self._where[name]
            tensor = handle.get_slice(stored)
            found = tuple(tensor.get_shape())
            if found != shape:
                misshapen.append(f"{name} is {list(found)}, must be {list(shape)}")
            if tensor.get_dtype() not in _FLOATS:
                types.append(f"{name} is {tensor.get_dtype()}")
        kind = self.config.architecture
        for wrong, what in (
            (missing, f"lacks tensors of {kind}"),
            (extra, f"holds tensors that {kind} does not have"),
            (misshapen, "holds tensors of other shapes than config.json says"),
            (types, f"holds quantized tensors, only {sorted(_FLOATS)} are read"),
        ):
            if wrong:
                raise ValueError(f"{_HOW}: {folder} {what}: {_some(wrong)}.")
        if self.config.text.tie_word_embeddings and _HEAD in self._where:
            self._check_tied_head(folder)

    def _check_tied_head(self, folder: Path) -> None:
        """Raise if a head that would not be read is not the embedding table."""
        handle, stored = self._where["model.embed_tokens.weight"]
        table = handle.get_slice(stored)
        handle, stored = self._where[_HEAD]
        head = handle.get_slice(stored)
        count = table.get_shape()[0]
        same = head.get_shape() == table.get_shape() and all(
            np.array_equal(
                head[row : row + 1].astype(np.float32),
                table[row : row + 1].astype(np.float32),
            )
            for row in range(0, count, -(-count // _ROWS_COMPARED))
        )
        if not same:
            raise ValueError(
                f"{_HOW}: {folder} holds {_HEAD}, which differs from the embedding "
                "table, but config.json says tie_word_embeddings: true; say false if "
                "the model was trained with a head of its own, or remove the tensor."
            )

    def read(self, entry: Entry, layer: int, index: tuple[slice, ...]) -> np.ndarray:
        """A slice of one layer of a parameter.

        Args:
          entry: Which parameter.
          layer: Which of its tensors.
          index: One slice per axis, without the axis of layers.

        Returns:
          The numbers, in the file's type.
        """
        handle, stored = self._where[entry.names[layer]]
        tensor = _Counting(handle.get_slice(stored))
        found = read_part(
            tensor, entry.stored, entry.ours, self._sizes, index, entry.part
        )
        self.bytes_read += tensor.bytes_read
        return found

    def shape(self, entry: Entry) -> tuple[int, ...]:
        """Shape of a parameter, with its axis of layers."""
        return param_shape(entry, self._sizes)


class _Counting:
    """A tensor in a file that adds up what is read of it."""

    def __init__(self, tensor: Any):
        self._tensor = tensor
        self.bytes_read = 0

    def __getitem__(self, index: Any) -> np.ndarray:
        found = self._tensor[index]
        self.bytes_read += found.nbytes
        return found


def _some(names: list[str]) -> str:
    more = len(names) - _SHOWN
    return ", ".join(names[:_SHOWN]) + (f" and {more} more" if more > 0 else "")


def _canonical(name: str) -> str:
    """A tensor's name as published folders spell it."""
    for newer, published in _SPELLINGS:
        if name.startswith(newer):
            return published + name[len(newer) :]
    return name


def _files(folder: Path) -> list[Path]:
    """The files that hold tensors."""
    index = folder / INDEX_NAME
    if index.is_file():
        listed = read_object(index, _HOW).get("weight_map")
        if not isinstance(listed, Mapping) or not listed:
            raise ValueError(f"{_HOW}: {index} has no weight_map.")
        paths = []
        for name in sorted({str(value) for value in listed.values()}):
            path = folder / name
            if Path(name).name != name or not path.is_file():
                raise ValueError(
                    f"{_HOW}: {index} names {name}, which is not in {folder}; download "
                    "the folder again."
                )
            paths.append(path)
        return paths
    single = folder / "model.safetensors"
    if single.is_file():
        return [single]
    if list(folder.glob("*.bin")):
        raise ValueError(
            f"{_HOW}: {folder} holds weights as *.bin, which are pickles and not read; "
            "save them with transformers: model.save_pretrained(folder)."
        )
    raise ValueError(f"{_HOW}: {folder} has no model.safetensors and no {INDEX_NAME}.")
