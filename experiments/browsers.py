"""How pages are shared out over browsers."""

__all__ = ["pages_per_browser"]


def pages_per_browser(pages: int, most: int) -> tuple[int, ...]:
    """Pages of each browser: as few browsers as can be, as even as can be.

    Args:
      pages: All of them, at least 1.
      most: Of one browser, at least 1.

    Returns:
      Positive numbers whose sum is `pages`, none above `most`.

    Example:
      >>> pages_per_browser(7, 6)
      (4, 3)
    """
    browsers = -(-pages // most)
    return tuple(
        pages // browsers + (index < pages % browsers) for index in range(browsers)
    )
