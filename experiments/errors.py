"""Errors that end a run with one line instead of a traceback."""

import contextlib
from collections.abc import Iterator

__all__ = ["RunError", "UsageError", "as_usage_error"]


class UsageError(Exception):
    """A setting or a surrounding that a run cannot start with."""

    exit_code = 2


class RunError(Exception):
    """Something that ends a run that had started."""

    exit_code = 1


@contextlib.contextmanager
def as_usage_error(*kinds: type[Exception]) -> Iterator[None]:
    """A block in which errors of these kinds are the user's to mend.

    Args:
      kinds: Exception types that the called functions raise for bad settings.

    Raises:
      UsageError: At once, with the first error's own text.

    Example:
      >>> with as_usage_error(ValueError):
      ...     raise ValueError("rounds must be >= 1, got 0.")
      Traceback (most recent call last):
      experiments.errors.UsageError: rounds must be >= 1, got 0.
    """
    try:
        yield
    except kinds as error:
        raise UsageError(" ".join(str(error).split())) from error
