"""Checks that name the argument, the value, and the fix.

The checks of arrays look only at shapes and dtypes, so inside `jax.jit` they run once,
at trace time, and cost nothing afterwards. The checks of Python numbers let arrays and
tracers pass: a number that someone sweeps inside `jit` cannot be looked at.
"""

import numbers
from collections.abc import Mapping
from typing import Any

import jax.numpy as jnp
import numpy as np

__all__ = [
    "check_bool",
    "check_count",
    "check_float",
    "check_integer",
    "check_range",
    "check_same_shape",
    "check_shapes",
    "check_task_ids",
]

_BATCH_HINT = "For a batch, wrap the call in jax.vmap."


def check_shapes(where: str, **specs: tuple[Any, str]) -> dict[str, int]:
    """The size of each axis letter, after checking that all arrays agree on them.

    Args:
      where: Name of the calling function, for the message.
      **specs: Per argument its array and its axis letters, such as `(rewards, "M L")`;
        `""` means a scalar.

    Returns:
      Axis sizes by letter.

    Raises:
      ValueError: At trace time, if a rank is wrong or two arrays differ in a letter.
    """
    sizes: dict[str, int] = {}
    owner: dict[str, str] = {}
    for name, (array, letters) in specs.items():
        axes = letters.split()
        shape = jnp.shape(array)
        wanted = f"[{', '.join(axes)}]"
        if len(shape) != len(axes):
            raise ValueError(
                f"{where}: {name} must have shape {wanted}, got {shape}. {_BATCH_HINT}"
            )
        for axis, size in zip(axes, shape, strict=True):
            if sizes.setdefault(axis, size) != size:
                raise ValueError(
                    f"{where}: {name} must have shape {wanted} with {axis} = "
                    f"{sizes[axis]} as in {owner[axis]}, got {shape}."
                )
            owner.setdefault(axis, name)
    return sizes


def check_same_shape(where: str, **arrays: Any) -> None:
    """Nothing; raises if the arrays differ in shape.

    Args:
      where: Name of the calling function, for the message.
      **arrays: Arrays of any shape, by argument name.

    Raises:
      ValueError: At trace time, if two shapes differ.
    """
    items = iter(arrays.items())
    first_name, first = next(items)
    for name, array in items:
        if jnp.shape(array) != jnp.shape(first):
            raise ValueError(
                f"{where}: {name} must have the shape of {first_name}, "
                f"{jnp.shape(first)}, got {jnp.shape(array)}. "
                "Broadcast it first, for example with x[:, None]."
            )


def _check_dtype(where: str, kinds: Any, what: str, arrays: Mapping[str, Any]) -> None:
    for name, array in arrays.items():
        dtype = jnp.result_type(array)
        if not jnp.issubdtype(dtype, kinds):
            raise TypeError(f"{where}: {name} must be {what}, got {dtype}.")


def check_float(where: str, **arrays: Any) -> None:
    """Nothing; raises unless every array holds floating-point numbers.

    Args:
      where: Name of the calling function, for the message.
      **arrays: Arrays of any shape, by argument name.

    Raises:
      TypeError: At trace time, if a dtype is not a float.
    """
    _check_dtype(
        where, jnp.floating, "a float array; convert with .astype(jnp.float32)", arrays
    )


def check_integer(where: str, **arrays: Any) -> None:
    """Nothing; raises unless every array holds integers.

    Args:
      where: Name of the calling function, for the message.
      **arrays: Arrays of any shape, by argument name.

    Raises:
      TypeError: At trace time, if a dtype is not an integer.
    """
    _check_dtype(
        where, jnp.integer, "an integer array; convert with .astype(jnp.int32)", arrays
    )


def check_bool(where: str, **arrays: Any) -> None:
    """Nothing; raises unless every array is boolean.

    Args:
      where: Name of the calling function, for the message.
      **arrays: Masks of any shape, by argument name.

    Raises:
      TypeError: At trace time, if a dtype is not bool.
    """
    _check_dtype(
        where,
        jnp.bool_,
        "a bool array, True for real entries; convert with .astype(bool)",
        arrays,
    )


def check_range(where: str, low: float, high: float, **values: Any) -> None:
    """Nothing; raises if a Python number lies outside `[low, high]`.

    Args:
      where: Name of the calling function, for the message.
      low: Smallest value allowed.
      high: Largest value allowed.
      **values: Numbers by argument name. Arrays and tracers are not looked at.

    Raises:
      ValueError: On the call, if a number is outside the range or NaN.
    """
    for name, value in values.items():
        if isinstance(value, numbers.Real) and not low <= float(value) <= high:
            raise ValueError(
                f"{where}: {name} must be in [{low}, {high}], got {value}."
            )


def check_count(where: str, *, minimum: int, **values: Any) -> None:
    """Nothing; raises unless every value is a Python integer of at least `minimum`.

    Args:
      where: Name of the calling function, for the message.
      minimum: Smallest value allowed.
      **values: Counts that set an array's size, by argument name.

    Raises:
      TypeError: On the call, if a value is not a Python integer (an array's size cannot
        depend on a traced number).
      ValueError: On the call, if a value is too small.
    """
    for name, value in values.items():
        if isinstance(value, bool) or not isinstance(value, (int, np.integer)):
            raise TypeError(
                f"{where}: {name} must be a Python integer because it sets the size "
                f"of an array, got {type(value).__name__}."
            )
        if value < minimum:
            raise ValueError(f"{where}: {name} must be >= {minimum}, got {value}.")


def check_task_ids(task_ids: Any, num_tasks: int) -> np.ndarray:
    """The ids as a NumPy array, after checking that each names a task of the pool.

    Inside `jax.jit` an id outside the pool would be dropped or clamped without a word,
    so ids that come from a file, a user or an environment are checked here, on the
    host, before they are sent to a device.

    Args:
      task_ids: [...] int. Ids on the host (a device array is copied back).
      num_tasks: Number of tasks in the pool, T.

    Returns:
      [...] int32 NumPy array.

    Raises:
      TypeError: On the call, if the ids are not integers.
      ValueError: On the call, if an id is outside `[0, num_tasks)`; the message names
        the index and the value.

    Example:
      >>> check_task_ids([0, 3], num_tasks=4)
      array([0, 3], dtype=int32)
    """
    ids = np.asarray(task_ids)
    if ids.size and not np.issubdtype(ids.dtype, np.integer):
        raise TypeError(
            f"task_ids must be integers, got {ids.dtype}; convert with .astype(int)."
        )
    outside = np.argwhere((ids < 0) | (ids >= num_tasks))
    if outside.size:
        index = tuple(int(i) for i in outside[0])
        raise ValueError(
            f"task_ids[{', '.join(map(str, index))}] = {int(ids[index])} is outside "
            f"[0, {num_tasks}). Check that the ids and the pool belong together."
        )
    return ids.astype(np.int32)
