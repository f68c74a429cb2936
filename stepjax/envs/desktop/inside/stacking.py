"""Which widgets lie under other windows, where nobody sees or clicks them."""

from typing import Any

__all__ = ["uncovered"]

Box = tuple[int, int, int, int]


def uncovered(
    widgets: list[dict[str, Any]],
    windows: list[dict[str, Any]],
    stack: list[tuple[str, Box]],
) -> list[dict[str, Any]]:
    """The widgets whose middle is not under another window.

    Args:
      widgets: With `box` (left, top, right, bottom) and `window`, a place in `windows`.
      windows: What accessibility calls windows: `name` and `box` (left, top, width,
        height) each.
      stack: What the X server calls windows, the lowest first: title and box.

    Returns:
      Those that can be seen; all of a window's, if it is not in the stack.
    """
    places = [_place(window, stack) for window in windows]
    return [one for one in widgets if not _covered(one, places, stack)]


def _place(window: dict[str, Any], stack: list[tuple[str, Box]]) -> int | None:
    """Where a window lies in the stack: the same title, or else the same place."""
    name, box = window["name"], window["box"]
    for place in reversed(range(len(stack))):
        title, _ = stack[place]
        if name and title == name:
            return place
    for place in reversed(range(len(stack))):
        if box is not None and not stack[place][0] and stack[place][1] == tuple(box):
            return place
    return None


def _covered(
    one: dict[str, Any], places: list[int | None], stack: list[tuple[str, Box]]
) -> bool:
    number = one["window"]
    place = places[number] if 0 <= number < len(places) else None
    if place is None:
        return False
    left, top, right, bottom = one["box"]
    x, y = (left + right) // 2, (top + bottom) // 2
    return any(
        box[0] <= x < box[0] + box[2] and box[1] <= y < box[1] + box[3]
        for _, box in stack[place + 1 :]
    )
