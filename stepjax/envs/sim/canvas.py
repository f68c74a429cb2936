"""Drawing of windows, dialogs and widgets in shares of the screen, with Pillow."""

import functools
import importlib
from typing import Any

import numpy as np

from stepjax.envs.actions import ActionKind
from stepjax.envs.base import Widget
from stepjax.envs.sim.artwork import ICON_COLORS, Box, draw_content, draw_icon
from stepjax.envs.sim.vocabulary import APPS

__all__ = [
    "Canvas",
    "FAINT",
]

_INK, FAINT, _WHITE = (38, 42, 50), (150, 155, 165), (255, 255, 255)
_LINE, _ACCENT, _BAR = (205, 209, 216), (60, 110, 200), (36, 38, 48)
_RING = (230, 40, 60)


def _pillow() -> tuple[Any, Any]:
    """Pillow's Image and ImageDraw, imported when first needed."""
    try:
        return (
            importlib.import_module("PIL.Image"),
            importlib.import_module("PIL.ImageDraw"),
        )
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            "drawing the simulated desktop needs Pillow: pip install"
            " 'stepjax[experiments]'"
        ) from error


@functools.lru_cache(maxsize=8)
def _font(size: int) -> Any:
    return importlib.import_module("PIL.ImageFont").load_default(size)


class Canvas:
    """Draws in shares of the screen."""

    def __init__(self, width: int, height: int, *, on: Any = None) -> None:
        """An empty canvas, or a copy of the picture `on` to go on drawing on."""
        image, image_draw = _pillow()
        self.width, self.height = width, height
        self.image = image.new("RGB", (width, height)) if on is None else on.copy()
        self.draw = image_draw.Draw(self.image, "RGBA")

    def pixels(self, box: Box) -> Box:
        """A box of screen shares in pixels."""
        left, top, right, bottom = box
        across, down = self.width, self.height
        return (left * across, top * down, right * across - 1, bottom * down - 1)

    def text(
        self,
        text: str,
        box: Box,
        color: tuple[int, int, int] = _INK,
        *,
        size: float = 0.034,
        anchor: str = "lm",
    ) -> None:
        """Text at the left ("lm"), middle ("mm") or right ("rm") of a box."""
        left, top, right, bottom = self.pixels(box)
        x = {"l": left, "m": (left + right) / 2, "r": right}[anchor[0]]
        font = _font(max(8, round(size * self.height)))
        self.draw.text((x, (top + bottom) / 2), text, color, font, anchor)

    def wallpaper(self) -> None:
        """What lies behind all windows."""
        for y in range(self.height):
            share = y / self.height
            color = (
                round(58 + 120 * share),
                round(36 + 60 * share),
                round(98 + 10 * share),
            )
            self.draw.line([0, y, self.width, y], fill=color)
        hill = (-0.2, 0.62, 0.7, 1.6)
        self.draw.ellipse(self.pixels(hill), fill=(255, 190, 120, 40))
        self.draw.ellipse(self.pixels((0.4, 0.7, 1.3, 1.7)), fill=(255, 120, 90, 45))

    def taskbar(self) -> None:
        """The bar along the bottom, without its widgets."""
        self.draw.rectangle(self.pixels((0, 0.92, 1, 1)), fill=(*_BAR, 235))
        self.text("10:24", (0.9, 0.93, 0.985, 0.99), _WHITE, anchor="rm")

    def window(self, app: int, *, with_panel: bool) -> None:
        """A maximized window of an application, without its widgets."""
        self.draw.rectangle(self.pixels((0, 0, 1, 0.92)), fill=(246, 247, 249))
        self.draw.rectangle(self.pixels((0, 0, 1, 0.07)), fill=ICON_COLORS[app])
        for i, color in enumerate(((98, 200, 90), (250, 190, 60), (240, 90, 80))):
            left = 0.9 + 0.03 * i
            self.draw.ellipse(self.pixels((left, 0.02, left + 0.02, 0.052)), fill=color)
        self.draw.rectangle(self.pixels((0, 0.07, 1, 0.14)), fill=(232, 235, 239))
        if not with_panel:
            draw_content(self.draw, app, self.pixels((0.015, 0.16, 0.985, 0.9)))
            return
        panel = self.pixels((0.015, 0.16, 0.575, 0.9))
        self.draw.rounded_rectangle(panel, 6, fill=_WHITE, outline=_LINE)
        draw_content(self.draw, app, self.pixels((0.59, 0.16, 0.985, 0.9)))

    def sheet(self, left: float, top: float, right: float, bottom: float) -> None:
        """A dialog's frame over a dimmed screen."""
        self.draw.rectangle(self.pixels((0, 0, 1, 0.92)), fill=(20, 22, 30, 120))
        shade = self.pixels((left + 0.008, top + 0.015, right + 0.008, bottom + 0.015))
        self.draw.rounded_rectangle(shade, 8, fill=(0, 0, 0, 90))
        frame = self.pixels((left, top, right, bottom))
        self.draw.rounded_rectangle(frame, 8, fill=(250, 250, 252), outline=_LINE)

    def widget(self, widget: Widget) -> None:
        """One widget inside its box."""
        {
            "icon": self._icon,
            "menu": self._menu,
            "check_box": self._item,
            "menu_item": self._item,
            "radio": self._radio,
            "text_field": self._field,
            "button": self._button,
            "status": self._status,
            "dialog": self._heading,
            "text": self._title,
        }[widget.role](widget)

    def _icon(self, widget: Widget) -> None:
        left, top, right, bottom = widget.box
        x, y, x2, y2 = self.pixels((left, top, right, bottom - 0.065))
        side = min(x2 - x, y2 - y)
        x += (x2 - x - side) / 2
        app = [name for _, name in APPS].index(widget.label)
        draw_icon(self.draw, app, (x, y, x + side, y + side))
        name = (left, bottom - 0.06, right, bottom)
        self.text(widget.label, name, _WHITE, size=0.036, anchor="mm")

    def _menu(self, widget: Widget) -> None:
        if widget.on:
            self.draw.rounded_rectangle(self.pixels(widget.box), 4, fill=_ACCENT)
        self.text(widget.label, widget.box, _WHITE if widget.on else _INK, anchor="mm")

    def _item(self, widget: Widget) -> None:
        left, top, right, bottom = widget.box
        color = FAINT if widget.disabled else _INK
        self.draw.rectangle(self.pixels(widget.box), fill=(247, 248, 250))
        middle = (top + bottom) / 2
        mark = self.pixels((left + 0.012, middle - 0.022, left + 0.04, middle + 0.022))
        if widget.role == "check_box":
            fill = _ACCENT if widget.on and not widget.disabled else _WHITE
            self.draw.rounded_rectangle(mark, 3, fill=fill, outline=FAINT)
            if widget.on:
                self._tick(mark, _WHITE if not widget.disabled else FAINT)
        self.text(widget.label, (left + 0.055, top, right, bottom), color, size=0.038)
        if widget.role == "menu_item":
            value = "done" if widget.on else f"{widget.value or ''} >"
            area = (left, top, right - 0.02, bottom)
            self.text(value.strip(), area, FAINT, size=0.036, anchor="rm")

    def _tick(self, box: Box, color: tuple[int, int, int]) -> None:
        left, top, right, bottom = box
        across, down = right - left, bottom - top
        points = [(0.2, 0.55), (0.42, 0.78), (0.82, 0.25)]
        line = [(left + x * across, top + y * down) for x, y in points]
        self.draw.line(line, fill=color, width=2)

    def _radio(self, widget: Widget) -> None:
        left, top, right, bottom = widget.box
        x, y, _, y2 = self.pixels((left + 0.015, top + 0.015, right, bottom - 0.015))
        circle = (x, y, x + y2 - y, y2)
        self.draw.ellipse(circle, fill=_WHITE, outline=FAINT)
        if widget.on:
            inset = min(4.0, (y2 - y) / 4)
            self.draw.ellipse(
                (x + inset, y + inset, circle[2] - inset, y2 - inset), _ACCENT
            )
        self.text(widget.label, (left + 0.06, top, right, bottom), size=0.038)

    def _field(self, widget: Widget) -> None:
        box = self.pixels(widget.box)
        self.draw.rectangle(box, fill=_WHITE, outline=_ACCENT, width=2)
        left, top, right, bottom = widget.box
        self.text(f"{widget.value}|", (left + 0.015, top, right, bottom), size=0.038)

    def _button(self, widget: Widget) -> None:
        strong = widget.label in ("OK", "Restart now")
        dark = widget.label == "Desktop"
        fill = _ACCENT if strong else (70, 74, 90) if dark else (232, 235, 239)
        self.draw.rounded_rectangle(
            self.pixels(widget.box), 5, fill=fill, outline=_LINE
        )
        color = _WHITE if strong or dark else _INK
        self.text(widget.label, widget.box, color, anchor="mm")

    def _status(self, widget: Widget) -> None:
        text = f"{widget.label}: {widget.value}"
        self.text(text, widget.box, (225, 228, 235), anchor="mm")

    def _heading(self, widget: Widget) -> None:
        left, top, right, bottom = widget.box
        self.text(widget.label, (left + 0.015, top, right, bottom), size=0.046)
        left, _, right, bottom = self.pixels(widget.box)
        self.draw.line([left, bottom, right, bottom], fill=_LINE)

    def _title(self, widget: Widget) -> None:
        self.text(widget.label, widget.box, _WHITE, size=0.04)

    def action(
        self, action: np.ndarray, widgets: tuple[Widget, ...], text: str
    ) -> None:
        """A ring and a cursor on the widget aimed at, and the action in words."""
        kind, index = int(action[0]), int(action[1])
        if kind in (ActionKind.CLICK, ActionKind.TYPE) and 0 <= index < len(widgets):
            left, top, right, bottom = self.pixels(widgets[index].box)
            frame = (left - 2, top - 2, right + 2, bottom + 2)
            self.draw.rounded_rectangle(frame, 6, outline=_RING, width=2)
            x, y = (left + right) / 2, (top + bottom) / 2
            self.draw.ellipse((x - 10, y - 10, x + 10, y + 10), outline=_RING, width=2)
            shape = ((0, 0), (0, 15), (4, 11), (7, 17), (10, 16), (7, 10), (12, 10))
            cursor = [(x + dx, y + dy) for dx, dy in shape]
            self.draw.polygon(cursor, fill=_WHITE, outline=(0, 0, 0))
        font = _font(max(8, round(0.038 * self.height)))
        wide = self.draw.textlength(text, font=font) / self.width
        box = (0.49 - wide / 2, 0.855, 0.51 + wide / 2, 0.91)
        self.draw.rounded_rectangle(self.pixels(box), 6, fill=(*_RING, 235))
        self.text(text, box, _WHITE, size=0.038, anchor="mm")
