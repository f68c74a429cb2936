"""Cells of a workbook's first sheet, read in time that grows with the file alone.

The usual reader of such files makes an object for each cell of a merged range, so one
line that merges the whole sheet makes it fill the memory. This one only looks at cells
that the file holds.
"""

import dataclasses
import io
import posixpath
import zipfile
from collections.abc import Iterator
from xml.etree import ElementTree

__all__ = ["Cell", "read_cells"]

_MAIN = "{http://schemas.openxmlformats.org/spreadsheetml/2006/main}"
_LINKS = "{http://schemas.openxmlformats.org/package/2006/relationships}"
_ID = "{http://schemas.openxmlformats.org/officeDocument/2006/relationships}id"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Cell:
    """What stands in a cell.

    Attributes:
      value: Text, number, truth value, or None.
      formula: Formula that the value came from, beginning with "=", or "".
    """

    value: str | float | bool | None
    formula: str = ""


def read_cells(data: bytes) -> dict[str, Cell]:
    """Cells of the first sheet that hold something, by address such as "B2".

    Args:
      data: An .xlsx file that `office.check_package` lets pass.

    Raises:
      Exception: Of many kinds, if it is none.
    """
    with zipfile.ZipFile(io.BytesIO(data)) as package:
        texts = _shared_texts(package)
        found = {}
        for cell in _elements(package, _first_sheet(package), f"{_MAIN}c"):
            one = _read(cell, texts)
            if one.value is not None or one.formula:
                found[cell.attrib["r"]] = one
        return found


def _elements(
    package: zipfile.ZipFile, part: str, tag: str
) -> Iterator[ElementTree.Element]:
    """Elements of a part by tag, each forgotten when the next one is asked for."""
    with package.open(part) as file:
        for _, element in ElementTree.iterparse(file):
            if element.tag == tag:
                yield element
                element.clear()


def _first_sheet(package: zipfile.ZipFile) -> str:
    """Name of the part that holds the first sheet."""
    first = next(_elements(package, "xl/workbook.xml", f"{_MAIN}sheet"))
    wanted = first.attrib[_ID]
    links = "xl/_rels/workbook.xml.rels"
    for link in _elements(package, links, f"{_LINKS}Relationship"):
        if link.attrib["Id"] == wanted:
            return posixpath.join("/xl", link.attrib["Target"]).lstrip("/")
    raise ValueError(f"there is no sheet {wanted}")


def _shared_texts(package: zipfile.ZipFile) -> list[str]:
    part = "xl/sharedStrings.xml"
    if part not in package.namelist():
        return []
    return [_text(one) for one in _elements(package, part, f"{_MAIN}si")]


def _text(element: ElementTree.Element) -> str:
    """All its text but for notes on pronunciation."""
    whole = element.findall(f"{_MAIN}t") + element.findall(f"{_MAIN}r/{_MAIN}t")
    return "".join(part.text or "" for part in whole)


def _read(cell: ElementTree.Element, texts: list[str]) -> Cell:
    kind = cell.attrib.get("t", "n")
    formula = cell.findtext(f"{_MAIN}f")
    shown = f"={formula}" if formula else ""
    inline = cell.find(f"{_MAIN}is")
    if inline is not None:
        return Cell(value=_text(inline), formula=shown)
    raw = cell.findtext(f"{_MAIN}v")
    if not raw:  # a formula that nobody has worked out yet has an empty value
        return Cell(value=None, formula=shown)
    value: str | float | bool = raw
    if kind == "s":
        value = texts[int(raw)]
    elif kind == "b":
        value = raw == "1"
    elif kind == "n":
        value = float(raw)
    return Cell(value=value, formula=shown)
