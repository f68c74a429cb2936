"""Pictures that say which application is which: icons, and what a window shows."""

from typing import Any

__all__ = [
    "ICON_COLORS",
    "draw_content",
    "draw_icon",
]

ICON_COLORS = (
    (66, 133, 244),
    (140, 110, 90),
    (30, 140, 70),
    (200, 80, 40),
    (30, 100, 180),
    (95, 100, 115),
    (20, 110, 200),
    (240, 130, 20),
    (0, 120, 190),
)
"""Main color of each application, in the order of `vocabulary.APPS`."""

_WHITE, _PALE, _GRAY = (255, 255, 255), (238, 241, 245), (190, 196, 204)
Box = tuple[float, float, float, float]


def _at(box: Box, x: float, y: float) -> tuple[float, float]:
    """A point by its share of a box."""
    return box[0] + x * (box[2] - box[0]), box[1] + y * (box[3] - box[1])


def _part(box: Box, left: float, top: float, right: float, bottom: float) -> Box:
    """A part of a box by shares."""
    return (*_at(box, left, top), *_at(box, right, bottom))


def draw_icon(draw: Any, app: int, box: Box) -> None:
    """A rounded square in the application's color with its sign.

    Args:
      draw: A Pillow `ImageDraw`.
      app: Index in `vocabulary.APPS`.
      box: Left, top, right, bottom in pixels.
    """
    draw.rounded_rectangle(box, radius=(box[2] - box[0]) / 5, fill=ICON_COLORS[app])
    inner = _part(box, 0.2, 0.2, 0.8, 0.8)
    _SIGNS[app](draw, inner)


def _globe(draw: Any, box: Box) -> None:
    draw.ellipse(box, fill=(219, 68, 55))
    draw.pieslice(box, 30, 150, fill=(15, 157, 88))
    draw.pieslice(box, 270, 390, fill=(244, 180, 0))
    draw.ellipse(_part(box, 0.22, 0.22, 0.78, 0.78), fill=_WHITE)
    draw.ellipse(_part(box, 0.3, 0.3, 0.7, 0.7), fill=(66, 133, 244))


def _brush(draw: Any, box: Box) -> None:
    draw.ellipse(_part(box, 0.0, 0.1, 1.0, 0.9), fill=_PALE)
    for x, y, color in (
        (0.25, 0.35, (220, 60, 60)),
        (0.5, 0.25, (240, 190, 40)),
        (0.75, 0.35, (60, 140, 220)),
        (0.35, 0.65, (60, 170, 90)),
    ):
        draw.ellipse(_part(box, x - 0.1, y - 0.1, x + 0.1, y + 0.1), fill=color)


def _sheet(draw: Any, box: Box) -> None:
    draw.rectangle(box, fill=_WHITE)
    draw.rectangle(_part(box, 0, 0, 1, 0.25), fill=(170, 220, 180))
    for share in (0.25, 0.5, 0.75):
        draw.line([*_at(box, 0, share), *_at(box, 1, share)], fill=_GRAY)
        draw.line([*_at(box, share, 0), *_at(box, share, 1)], fill=_GRAY)


def _slide(draw: Any, box: Box) -> None:
    draw.rectangle(_part(box, 0, 0.1, 1, 0.8), fill=_WHITE)
    draw.rectangle(_part(box, 0.12, 0.2, 0.7, 0.32), fill=(200, 80, 40))
    for x, top in ((0.15, 0.6), (0.35, 0.5), (0.55, 0.42)):
        draw.rectangle(_part(box, x, top, x + 0.13, 0.72), fill=(240, 170, 120))
    draw.line([*_at(box, 0.5, 0.8), *_at(box, 0.5, 1)], fill=_WHITE, width=2)


def _page(draw: Any, box: Box) -> None:
    draw.rectangle(_part(box, 0.1, 0, 0.9, 1), fill=_WHITE)
    for i in range(5):
        y, right = 0.18 + 0.16 * i, 0.78 if i % 2 else 0.65
        draw.line([*_at(box, 0.22, y), *_at(box, right, y)], fill=(30, 100, 180))


def _gear(draw: Any, box: Box) -> None:
    for left, top, right, bottom in (
        (0.4, 0, 0.6, 1),
        (0, 0.4, 1, 0.6),
        (0.15, 0.15, 0.85, 0.85),
    ):
        draw.rectangle(_part(box, left, top, right, bottom), fill=_PALE)
    draw.ellipse(_part(box, 0.32, 0.32, 0.68, 0.68), fill=ICON_COLORS[5])


def _letter(draw: Any, box: Box) -> None:
    draw.rectangle(_part(box, 0, 0.15, 1, 0.85), fill=_WHITE)
    points = [*_at(box, 0, 0.15), *_at(box, 0.5, 0.55), *_at(box, 1, 0.15)]
    draw.line(points, fill=(20, 110, 200), width=2)


def _cone(draw: Any, box: Box) -> None:
    draw.polygon([_at(box, 0.5, 0), _at(box, 0.12, 0.85), _at(box, 0.88, 0.85)], _WHITE)
    band = [_at(box, 0.36, 0.32), _at(box, 0.64, 0.32)]
    draw.polygon([*band, _at(box, 0.74, 0.55), _at(box, 0.26, 0.55)], (240, 130, 20))
    draw.rectangle(_part(box, 0, 0.85, 1, 1), fill=_WHITE)


def _brackets(draw: Any, box: Box) -> None:
    for x, tip in ((0.35, 0.05), (0.65, 0.95)):
        points = [*_at(box, x, 0.15), *_at(box, tip, 0.5), *_at(box, x, 0.85)]
        draw.line(points, fill=_WHITE, width=3)
    draw.line([*_at(box, 0.58, 0.1), *_at(box, 0.42, 0.9)], fill=_WHITE, width=2)


_SIGNS = (
    _globe, _brush, _sheet, _slide, _page, _gear, _letter, _cone, _brackets
)  # fmt: skip


def draw_content(draw: Any, app: int, box: Box) -> None:
    """What the window of an application shows beside its settings.

    Args:
      draw: A Pillow `ImageDraw`.
      app: Index in `vocabulary.APPS`.
      box: Left, top, right, bottom in pixels.
    """
    draw.rectangle(box, fill=_PALE, outline=_GRAY)
    _CONTENTS[app](draw, _part(box, 0.06, 0.05, 0.94, 0.95))


def _lines(draw: Any, box: Box, count: int, color: tuple[int, int, int]) -> None:
    """Lines of text of uneven length."""
    for i in range(count):
        y = (i + 0.5) / count
        right = 0.55 + 0.4 * ((i * 7 + 3) % 10) / 10
        draw.line([*_at(box, 0, y), *_at(box, right, y)], fill=color, width=2)


def _web(draw: Any, box: Box) -> None:
    draw.rounded_rectangle(_part(box, 0, 0, 1, 0.09), 5, fill=_WHITE, outline=_GRAY)
    draw.rectangle(_part(box, 0, 0.14, 1, 0.42), fill=(198, 219, 250))
    _lines(draw, _part(box, 0, 0.48, 1, 1), 9, _GRAY)


def _photo(draw: Any, box: Box) -> None:
    draw.rectangle(box, fill=(165, 205, 235))
    draw.ellipse(_part(box, 0.68, 0.1, 0.86, 0.26), fill=(250, 220, 110))
    hills = [_at(box, 0, 0.75), _at(box, 0.3, 0.35), _at(box, 0.6, 0.75)]
    draw.polygon(hills, (120, 140, 120))
    peak = [_at(box, 0.35, 0.75), _at(box, 0.7, 0.45), _at(box, 1, 0.75)]
    draw.polygon(peak, (95, 120, 100))
    draw.rectangle(_part(box, 0, 0.75, 1, 1), fill=(110, 160, 90))


def _cells(draw: Any, box: Box) -> None:
    draw.rectangle(box, fill=_WHITE)
    draw.rectangle(_part(box, 0, 0, 1, 1 / 12), fill=(215, 232, 219))
    draw.rectangle(_part(box, 0, 0, 0.14, 1), fill=(215, 232, 219))
    for i in range(13):
        draw.line([*_at(box, 0, i / 12), *_at(box, 1, i / 12)], fill=_GRAY)
    for x in (0, 0.14, 0.36, 0.58, 0.8, 1):
        draw.line([*_at(box, x, 0), *_at(box, x, 1)], fill=_GRAY)
    draw.rectangle(
        _part(box, 0.36, 3 / 12, 0.58, 4 / 12), outline=(30, 140, 70), width=2
    )


def _deck(draw: Any, box: Box) -> None:
    for i in range(4):
        top = 0.26 * i
        part = _part(box, 0, top, 0.22, top + 0.2)
        draw.rectangle(part, fill=_WHITE, outline=(200, 80, 40) if i == 1 else _GRAY)
    slide = _part(box, 0.3, 0.12, 1, 0.75)
    draw.rectangle(slide, fill=_WHITE, outline=_GRAY)
    draw.rectangle(_part(slide, 0.08, 0.1, 0.7, 0.22), fill=(200, 80, 40))
    _lines(draw, _part(slide, 0.1, 0.35, 0.9, 0.9), 4, _GRAY)


def _document(draw: Any, box: Box) -> None:
    page = _part(box, 0.12, 0, 0.88, 1)
    draw.rectangle(page, fill=_WHITE, outline=_GRAY)
    draw.rectangle(_part(page, 0.1, 0.07, 0.6, 0.11), fill=(60, 90, 140))
    _lines(draw, _part(page, 0.1, 0.17, 0.9, 0.94), 14, _GRAY)


def _gauges(draw: Any, box: Box) -> None:
    for i, share in enumerate((0.7, 0.35, 0.55, 0.2)):
        top = 0.04 + 0.15 * i
        draw.rounded_rectangle(_part(box, 0, top, 1, top + 0.06), 4, fill=_GRAY)
        fill = _part(box, 0, top, share, top + 0.06)
        draw.rounded_rectangle(fill, 4, fill=(95, 130, 190))
    graph = _part(box, 0, 0.66, 1, 1)
    draw.rectangle(graph, fill=_WHITE, outline=_GRAY)
    points = [_at(graph, i / 10, 0.9 - 0.08 * ((i * 7) % 9)) for i in range(11)]
    draw.line(points, fill=(95, 130, 190), width=2)


def _mails(draw: Any, box: Box) -> None:
    for i in range(5):
        row = _part(box, 0, i / 5, 1, (i + 0.88) / 5)
        draw.rectangle(row, fill=(214, 230, 248) if i == 1 else _WHITE)
        draw.ellipse(_part(row, 0.03, 0.2, 0.17, 0.8), fill=ICON_COLORS[i + 2])
        _lines(draw, _part(row, 0.24, 0.15, 0.95, 0.85), 2, _GRAY)


def _film(draw: Any, box: Box) -> None:
    draw.rectangle(box, fill=(28, 30, 36))
    triangle = [_at(box, 0.4, 0.3), _at(box, 0.4, 0.6), _at(box, 0.65, 0.45)]
    draw.polygon(triangle, (240, 130, 20))
    draw.line([*_at(box, 0.06, 0.88), *_at(box, 0.94, 0.88)], fill=_GRAY, width=3)
    draw.line(
        [*_at(box, 0.06, 0.88), *_at(box, 0.4, 0.88)], fill=(240, 130, 20), width=3
    )


def _program(draw: Any, box: Box) -> None:
    draw.rectangle(box, fill=(30, 32, 40))
    colors = ((86, 156, 214), (206, 145, 120), (106, 153, 85), (220, 220, 170))
    for i in range(14):
        left, y = 0.06 + 0.07 * ((i * 5) % 4), 0.05 + i / 15
        right = min(0.95, left + 0.2 + 0.05 * ((i * 3) % 9))
        color = colors[i % 4]
        draw.line([*_at(box, left, y), *_at(box, right, y)], fill=color, width=2)


_CONTENTS = (
    _web, _photo, _cells, _deck, _document, _gauges, _mails, _film, _program
)  # fmt: skip
