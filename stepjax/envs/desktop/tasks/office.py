"""Judging spreadsheets, documents and slides that an agent may have made to hurt.

A file of a few kilobytes can unpack to gigabytes or nest entities without end, so what
it claims to hold is checked before any parser sees it.
"""

import io
import logging
import zipfile
from collections.abc import Callable
from typing import Any

from stepjax.envs.desktop.tasks.sheets import Cell, read_cells

__all__ = [
    "MAX_PARTS",
    "MAX_UNPACKED_BYTES",
    "UnfitFileError",
    "check_package",
    "match_cells",
    "match_paragraphs",
    "match_slides",
]

MAX_PARTS = 500
"""Most files in a document's package."""

MAX_UNPACKED_BYTES = 24 * 2**20
"""Most bytes that all of them unpack to."""

_MAX_PARAGRAPHS = 2000
_TOLERANCE = 1e-6

_LOG = logging.getLogger(__name__)


class UnfitFileError(ValueError):
    """A file that is not looked into."""


def check_package(data: bytes) -> None:
    """Refuse what is no zip file, unpacks to too much, or brings its own entities.

    Raises:
      UnfitFileError: If so; the message says which.
    """
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as package:
            parts = package.infolist()
            if len(parts) > MAX_PARTS:
                raise UnfitFileError(f"{len(parts)} parts")
            total = sum(part.file_size for part in parts)
            if total > MAX_UNPACKED_BYTES:
                raise UnfitFileError(f"unpacks to {total} bytes")
            for part in parts:
                _check_part(package, part)
    except UnfitFileError:
        raise
    except Exception as error:  # a zip file can be broken in many ways
        raise UnfitFileError(f"no document: {type(error).__name__}") from error


def _check_part(package: zipfile.ZipFile, part: zipfile.ZipInfo) -> None:
    if part.flag_bits & 1:
        raise UnfitFileError("encrypted")
    if not part.filename.lower().endswith((".xml", ".rels", ".vml")):
        return
    # Reading stops at the size that was claimed, which the sum above has bounded.
    # Without its zeros, UTF-16 looks like ASCII, so one search finds both.
    if b"<!DOCTYPE" in package.read(part).replace(b"\0", b""):
        raise UnfitFileError(f"{part.filename} has a document type")


def match_cells(result: Any, rules: dict[str, Any]) -> float:
    """Cells of a workbook's first sheet hold what `cells` and `formulas` say.

    `cells` maps addresses to numbers, texts or None (empty); `formulas` to formulas,
    compared without spaces and in capitals. `only` is the range outside of which
    nothing may stand, such as "A1:B6".
    """
    return _judge(result, rules, _cells_hold)


def match_paragraphs(result: Any, rules: dict[str, Any]) -> float:
    """A document consists of just `paragraphs`.

    Each is a dictionary with its `text`, and optionally `bold` (all of its letters are,
    or none is) and `alignment` ("left", "center", "right", "justify").
    """
    return _judge(result, rules, _paragraphs_hold)


def match_slides(result: Any, rules: dict[str, Any]) -> float:
    """A presentation has just these `slides`, each a list of its texts in order."""
    return _judge(result, rules, _slides_hold)


def _judge(
    result: Any, rules: dict[str, Any], holds: Callable[[bytes, dict], bool]
) -> float:
    if not isinstance(result, bytes):
        return 0.0
    try:
        check_package(result)
        return float(holds(result, rules))
    except ImportError:
        raise
    # Parsers of untrusted files fail with whatever their innards fail with; each way
    # means that this is no such document, which is for the agent to answer for.
    except Exception as error:
        _LOG.info("not judged: %s: %.200s", type(error).__name__, error)
        return 0.0


def _cells_hold(data: bytes, rules: dict[str, Any]) -> bool:
    found = read_cells(data)
    nothing = Cell(value=None)
    for place, wanted in rules.get("cells", {}).items():
        if not _same(found.get(place, nothing).value, wanted):
            return False
    for place, wanted in rules.get("formulas", {}).items():
        if _plain(found.get(place, nothing).formula) != _plain(wanted):
            return False
    return "only" not in rules or all(_inside(one, rules["only"]) for one in found)


def _inside(place: str, area: str) -> bool:
    """True if a cell such as "B2" lies in an area such as "A1:C9"."""
    column, row = _column_and_row(place)
    (left, top), (right, bottom) = map(_column_and_row, area.split(":"))
    return left <= column <= right and top <= row <= bottom


def _column_and_row(place: str) -> tuple[int, int]:
    letters = place.rstrip("0123456789")
    column = 0
    for letter in letters[:3].upper():
        column = 26 * column + ord(letter) - ord("A") + 1
    return column, int(place[len(letters) :])


def _same(value: Any, wanted: Any) -> bool:
    if wanted is None or isinstance(wanted, str):
        return value == wanted
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return False
    return abs(value - wanted) <= _TOLERANCE * max(1.0, abs(wanted))


def _plain(formula: Any) -> str:
    return str(formula).replace(" ", "").upper()


def _paragraphs_hold(data: bytes, rules: dict[str, Any]) -> bool:
    import docx

    found = docx.Document(io.BytesIO(data)).paragraphs[:_MAX_PARAGRAPHS]
    while found and not found[-1].text.strip():
        found.pop()
    wanted = rules["paragraphs"]
    return len(found) == len(wanted) and all(
        _paragraph_holds(one, rule) for one, rule in zip(found, wanted, strict=True)
    )


def _paragraph_holds(paragraph: Any, rule: dict[str, Any]) -> bool:
    if paragraph.text.rstrip() != rule["text"]:
        return False
    bold = rule.get("bold")
    if bold is not None and any(
        bool(run.bold) != bold for run in paragraph.runs if run.text.strip()
    ):
        return False
    if "alignment" not in rule:
        return True
    found = paragraph.alignment
    # Left is where text goes that says nothing.
    name = "left" if found is None else found.name.lower()
    return {"start": "left"}.get(name, name) == rule["alignment"]


def _slides_hold(data: bytes, rules: dict[str, Any]) -> bool:
    import pptx

    slides = pptx.Presentation(io.BytesIO(data)).slides
    wanted = rules["slides"]
    if len(slides) != len(wanted):
        return False
    return all(
        [text for text in map(_shape_text, slide.shapes) if text] == texts
        for slide, texts in zip(slides, wanted, strict=True)
    )


def _shape_text(shape: Any) -> str:
    return shape.text_frame.text.strip() if shape.has_text_frame else ""
