"""How many rows of an update go through the policy at once."""

__all__ = ["rows_of_a_pass"]

_MOST_EXTRA = 4  # passes for one that the limit alone would ask for


def rows_of_a_pass(rows: int, at_most: int, shards: int = 1) -> int:
    """Rows of one forward and backward pass: `micro_batch_size` of the train step.

    Args:
      rows: Rows of an update; `shards` divides them.
      at_most: Rows wanted in a pass, over all devices. Below `shards` it counts as
        `shards`: a pass has a row for each device.
      shards: Devices that split the rows of a batch.

    Returns:
      The largest multiple of `shards` that divides `rows` and is at most `at_most`.

    Raises:
      ValueError: If a number is below 1, if `shards` does not divide `rows`, or if
        `rows` has so few divisors that passes would be far smaller than asked for.

    Example:
      >>> rows_of_a_pass(256, 8), rows_of_a_pass(250, 8), rows_of_a_pass(256, 8, 16)
      (8, 5, 16)
    """
    for name, value in (("rows", rows), ("at_most", at_most), ("shards", shards)):
        if value < 1:
            raise ValueError(f"{name} must be at least 1, got {value}.")
    if rows % shards:
        raise ValueError(
            f"rows_per_update = {rows} is not divisible by the {shards} devices that "
            "split the rows of a batch; choose a multiple of it."
        )
    limit = min(rows, max(at_most, shards))
    found = max(n for n in range(shards, limit + 1, shards) if rows % n == 0)
    if found * _MOST_EXTRA < limit:
        unit = limit // shards * shards
        raise ValueError(
            f"rows_per_update = {rows} has no divisor near {limit}, the rows wanted in "
            f"a pass (the nearest on {shards} devices is {found}); choose "
            f"{max(1, round(rows / unit)) * unit}, a multiple of {unit}."
        )
    return found
