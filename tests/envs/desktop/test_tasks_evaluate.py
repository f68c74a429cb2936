"""Evaluators on what agents leave behind: right, wrong, malformed, made to hurt."""

import io
import struct
import zipfile
import zlib

import docx
import openpyxl
import pptx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from stepjax.envs.actions import ActionKind
from stepjax.envs.desktop.tasks import getters, office
from stepjax.envs.desktop.tasks.evaluate import evaluate, unknown_parts
from stepjax.envs.desktop.tasks.metrics import METRICS
from stepjax.envs.desktop.tasks.office import UnfitFileError, check_package
from stepjax.envs.desktop.tasks.schema import parse_task
from tests.envs.desktop.fake_files import FakeFilesClient

PATH = "/home/user/a"


def spec_of(evaluator):
    data = {"id": "t", "instruction": "x", "evaluator": evaluator}
    return parse_task(data, source="t.json")


def check(metric, rules, result=None):
    return {
        "func": metric,
        "result": result or {"type": "vm_file", "path": PATH},
        "expected": {"type": "rule", "rules": rules},
    }


def score(data, metric, rules):
    client = FakeFilesClient({} if data is None else {PATH: data})
    spec = spec_of(check(metric, rules))
    return evaluate(spec, client, ended_by=ActionKind.DONE)


def saved(document):
    file = io.BytesIO()
    document.save(file)
    return file.getvalue()


def workbook(cells):
    book = openpyxl.Workbook()
    for place, value in cells.items():
        book.active[place] = value
    return saved(book)


def document(*paragraphs, bold=None, centered=None):
    made = docx.Document()
    for index, text in enumerate(paragraphs):
        paragraph = made.add_paragraph()
        paragraph.add_run(text).bold = bold
        if index == centered:
            paragraph.alignment = docx.enum.text.WD_ALIGN_PARAGRAPH.CENTER
    return saved(made)


def slides(*titles):
    made = pptx.Presentation()
    for title in titles:
        made.slides.add_slide(made.slide_layouts[5]).shapes.title.text = title
    return saved(made)


def picture(color, size=(8, 6), kind="PNG"):
    file = io.BytesIO()
    Image.new("RGB", size, color).save(file, kind)
    return file.getvalue()


CELLS = {"cells": {"A1": "x", "B2": 3, "C3": None}, "only": "A1:B2"}
PARAGRAPHS = {"paragraphs": [{"text": "one", "alignment": "left"}, {"text": "two"}]}
SLIDES = {"slides": [["one"], ["two"]]}
RED = {"size": [8, 6], "color": [200, 0, 0], "format": "PNG"}
LINES = {"lines": ["a", "", "b"]}


@pytest.mark.parametrize(
    ("data", "metric", "rules", "wanted"),
    [
        (b"a\n\nb\n", "match_lines", LINES, 1),
        (b"a \n\nb", "match_lines", LINES, 1),
        (b"a\nb\n", "match_lines", LINES, 0),
        (b"a\n\nB\n", "match_lines", LINES, 0),
        (b"\xff\xfe", "match_lines", LINES, 0),
        (None, "match_lines", LINES, 0),
        ("folder", "match_lines", LINES, 0),
        (b" 3\n", "exact_match", {"expected": "3"}, 1),
        (b"33", "exact_match", {"expected": "3"}, 0),
        (None, "exact_match", {"expected": "None"}, 0),
        (workbook({"A1": "x", "B2": 3}), "match_cells", CELLS, 1),
        (workbook({"A1": "x", "B2": 3.0000001}), "match_cells", CELLS, 1),
        (workbook({"A1": "x", "B2": 4}), "match_cells", CELLS, 0),
        (workbook({"A1": "x", "B2": True}), "match_cells", CELLS, 0),
        (workbook({"A1": "x", "B2": "3"}), "match_cells", CELLS, 0),
        (workbook({"A1": "x", "B2": 3, "C3": 1}), "match_cells", CELLS, 0),
        (workbook({"A1": "x", "B2": 3, "XFD1048576": 1}), "match_cells", CELLS, 0),
        (workbook({"B1": "=sum( A1:A2)"}), "match_cells",
         {"formulas": {"B1": "=SUM(A1:A2)"}}, 1),
        (workbook({"B1": 3}), "match_cells", {"formulas": {"B1": "=SUM(A1:A2)"}}, 0),
        (document("one", "two"), "match_paragraphs", PARAGRAPHS, 1),
        (document("one", "two", " "), "match_paragraphs", PARAGRAPHS, 1),
        (document("one"), "match_paragraphs", PARAGRAPHS, 0),
        (document("one", "three"), "match_paragraphs", PARAGRAPHS, 0),
        (document("one", "two", centered=0), "match_paragraphs", PARAGRAPHS, 0),
        (document("a", bold=True), "match_paragraphs",
         {"paragraphs": [{"text": "a", "bold": True}]}, 1),
        (document("a"), "match_paragraphs",
         {"paragraphs": [{"text": "a", "bold": True}]}, 0),
        (document("a", centered=0), "match_paragraphs",
         {"paragraphs": [{"text": "a", "alignment": "center"}]}, 1),
        (slides("one", "two"), "match_slides", SLIDES, 1),
        (slides("one"), "match_slides", SLIDES, 0),
        (slides("two", "one"), "match_slides", SLIDES, 0),
        (picture((200, 0, 0)), "match_picture", RED, 1),
        (picture((204, 3, 0)), "match_picture", RED, 1),
        (picture((150, 0, 0)), "match_picture", RED, 0),
        (picture((200, 0, 0), (8, 7)), "match_picture", RED, 0),
        (picture((200, 0, 0), kind="BMP"), "match_picture", RED, 0),
        (picture((9, 9, 9)), "match_picture",
         {"size": [8, 6], "areas": [[0, 0, 4, 6, [9, 9, 9]]]}, 1),
        (picture((9, 9, 9)), "match_picture",
         {"size": [8, 6], "areas": [[0, 0, 4, 6, [99, 9, 9]]]}, 0),
    ],
)  # fmt: skip
def test_right_and_wrong(data, metric, rules, wanted):
    assert score(data, metric, rules) == float(wanted)


def zipped(parts, method=zipfile.ZIP_DEFLATED):
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", method) as package:
        for name, data in parts.items():
            package.writestr(name, data)
    return file.getvalue()


def replaced_part(data, name, content):
    """A document with one part of its package replaced."""
    with zipfile.ZipFile(io.BytesIO(data)) as package:
        parts = {one.filename: package.read(one) for one in package.infolist()}
    parts[name] = content
    return zipped(parts)


def part_of(data, name):
    with zipfile.ZipFile(io.BytesIO(data)) as package:
        return package.read(name)


BOMB = b"<?xml version='1.0'?><!DOCTYPE x [<!ENTITY a 'aaaa'>]><x>&a;</x>"
HEADER = b"IHDR" + struct.pack(">IIBBBBB", 60000, 60000, 8, 2, 0, 0, 0)
HUGE_PICTURE = (
    b"\x89PNG\r\n\x1a\n"
    + struct.pack(">I", 13)
    + HEADER
    + struct.pack(">I", zlib.crc32(HEADER))
)
MERGED = openpyxl.Workbook()
MERGED.active.merge_cells("A1:B2")
NASTY = {
    "empty": b"",
    "text": b"hello",
    "zip of nothing": zipped({}),
    "truncated": workbook({"A1": 1})[:900],
    "bomb": zipped({"[Content_Types].xml": b" " * 30_000_000}),
    "many parts": zipped({f"a{index}.xml": b"" for index in range(501)}),
    "entities": replaced_part(workbook({"A1": 1}), "xl/workbook.xml", BOMB),
    "entities in UTF-16": replaced_part(
        workbook({"A1": 1}), "xl/workbook.xml", BOMB.decode().encode("utf-16")
    ),
    "no XML": replaced_part(workbook({"A1": 1}), "xl/workbook.xml", b"\0\1\2"),
    "deep": replaced_part(
        workbook({"A1": 1}), "xl/workbook.xml", b"<a>" * 200_000
    ),
    "all merged": replaced_part(
        saved(MERGED),
        "xl/worksheets/sheet1.xml",
        part_of(saved(MERGED), "xl/worksheets/sheet1.xml").replace(
            b"A1:B2", b"A1:XFD1048576"
        ),
    ),
    "other kind": slides("a"),
    "huge picture": HUGE_PICTURE,
    "broken picture": picture((1, 2, 3))[:40],
}  # fmt: skip


@pytest.mark.parametrize("name", NASTY)
@pytest.mark.parametrize(
    ("metric", "rules"),
    [
        ("match_cells", {"cells": {"A1": 7}}),
        ("match_paragraphs", PARAGRAPHS),
        ("match_slides", SLIDES),
        ("match_picture", {"size": [60000, 60000]}),
        ("match_picture", RED),
        ("match_lines", LINES),
    ],
)
def test_files_made_to_hurt_are_worth_nothing(name, metric, rules):
    assert score(NASTY[name], metric, rules) == 0.0


@pytest.mark.parametrize("name", ["bomb", "many parts", "entities", "zip of nothing"])
def test_bombs_are_refused_before_a_parser_sees_them(name):
    if name == "zip of nothing":
        check_package(NASTY[name])
        return
    with pytest.raises(UnfitFileError):
        check_package(NASTY[name])


def test_a_size_that_lies_is_no_way_around(monkeypatch):
    """A part that claims to be small is cut at what it claims, and fails its check."""
    data = bytearray(zipped({"a.xml": b"y" * 5_000_000}))
    claimed = struct.pack("<I", 5_000_000)
    assert data.count(claimed) == 2
    lying = bytes(data).replace(claimed, struct.pack("<I", 100))
    monkeypatch.setattr(office, "MAX_UNPACKED_BYTES", 1000)
    with pytest.raises(UnfitFileError):
        check_package(lying)


def test_large_files_are_not_fetched(monkeypatch):
    monkeypatch.setattr(getters, "MAX_FILE_BYTES", 4)
    client = FakeFilesClient({PATH: b"12345"})
    client.read_file = lambda path, max_bytes: pytest.fail("it was fetched")
    spec = spec_of(check("match_lines", {"lines": ["12345"]}))
    assert evaluate(spec, client, ended_by=None) == 0.0


@settings(max_examples=150, deadline=None)
@given(data=st.binary(max_size=400), metric=st.sampled_from(sorted(METRICS)))
def test_no_bytes_break_a_metric(data, metric):
    rules = {
        "expected": "x", "include": "x", "lines": ["x"], "entries": {}, "cells": {},
        "paragraphs": [{"text": "x"}], "slides": [], "size": [1, 1],
    }  # fmt: skip
    for result in (data, None, data.decode("latin-1"), {}, []):
        assert METRICS[metric](result, rules) in (0.0, 1.0)


WHOLE = {
    "w": (workbook({"A1": "x", "B2": 3}), "match_cells", CELLS),
    "d": (document("one", "two"), "match_paragraphs", PARAGRAPHS),
    "s": (slides("one", "two"), "match_slides", SLIDES),
    "p": (picture((200, 0, 0)), "match_picture", RED),
}


@settings(max_examples=60, deadline=None)
@given(place=st.integers(0), byte=st.integers(0, 255), kind=st.sampled_from("wdsp"))
def test_damaged_documents_break_no_metric(place, byte, kind):
    whole, metric, rules = WHOLE[kind]
    data = bytearray(whole)
    data[place % len(data)] = byte
    assert METRICS[metric](bytes(data), rules) in (0.0, 1.0)


def test_folders_windows_and_commands():
    found = "d box\0f box/a.txt\0l b\nf c\0"
    client = FakeFilesClient(
        titles=["box - Files", "Terminal"], outputs={"find": (0, found)}
    )
    folder = {"type": "vm_listing", "path": "/home/user"}
    entries = {"box": "folder", "box/a.txt": "file", "b\nf c": "other"}
    windows = {"type": "vm_windows"}
    cases = [
        (check("match_listing", {"entries": entries}, folder), 1),
        (check("match_listing", {"entries": {"box": "folder"}}, folder), 0),
        (check("match_windows", {"include": "BOX"}, windows), 1),
        (check("match_windows", {"include": "pear"}, windows), 0),
        (check("match_windows", {"include": "box", "exclude": ["term"]}, windows), 0),
    ]
    for evaluator, wanted in cases:
        assert evaluate(spec_of(evaluator), client, ended_by=None) == wanted
    for code, wanted in ((0, 1), (1, 0)):
        client.outputs["ls"] = (code, "abc\n")
        told = {"type": "vm_command_line", "command": ["ls"]}
        evaluator = check("check_include_exclude", {"include": ["b"]}, told)
        assert evaluate(spec_of(evaluator), client, ended_by=None) == wanted
    client.outputs["find"] = (0, "f a\0" * (getters.MAX_LISTED + 1))
    evaluator = check("match_listing", {"entries": {"a": "file"}}, folder)
    assert evaluate(spec_of(evaluator), client, ended_by=None) == 0.0


@pytest.mark.parametrize(
    ("conj", "first", "second", "wanted"),
    [("and", 1, 1, 1), ("and", 1, 0, 0), ("and", 0, 1, 0)]
    + [("or", 0, 1, 1), ("or", 1, 0, 1), ("or", 0, 0, 0)],
)
def test_conditions_are_joined(conj, first, second, wanted):
    client = FakeFilesClient({PATH: b"1"})
    one = {"type": "vm_file", "path": PATH}
    rules = [{"type": "rule", "rules": {"expected": str(x)}} for x in (first, second)]
    spec = spec_of(
        {"func": ["exact_match"] * 2, "conj": conj, "result": [one, one],
         "expected": rules}
    )  # fmt: skip
    assert evaluate(spec, client, ended_by=ActionKind.DONE) == wanted


@pytest.mark.parametrize("ended", [ActionKind.DONE, ActionKind.FAIL, None])
def test_infeasible_tasks_want_fail_and_nothing_else(ended):
    spec = spec_of({"func": "infeasible"})
    wanted = float(ended == ActionKind.FAIL)
    assert evaluate(spec, FakeFilesClient(), ended_by=ended) == wanted


def test_fail_on_a_task_that_was_solved_is_worth_nothing():
    client = FakeFilesClient({PATH: b"3"})
    spec = spec_of(check("exact_match", {"expected": "3"}))
    assert evaluate(spec, client, ended_by=ActionKind.FAIL) == 0.0
    assert evaluate(spec, client, ended_by=ActionKind.DONE) == 1.0


def test_steps_before_judging():
    client = FakeFilesClient({PATH: b"3"}, titles=["a"])
    step = {"type": "activate_window", "parameters": {"window_name": "a"}}
    spec = spec_of(check("exact_match", {"expected": "3"}) | {"postconfig": [step]})
    assert evaluate(spec, client, ended_by=None) == 1.0
    assert ("activate_window", "a") in client.done


def test_what_is_not_known_here_is_named():
    spec = spec_of(check("compare_table", {}))
    (line,) = unknown_parts(spec)
    assert "'compare_table' is unknown here; known are exact_match" in line
    with pytest.raises(ValueError, match="t.json: evaluator.func: 'compare_table'"):
        evaluate(spec, FakeFilesClient(), ended_by=None)
    spec = spec_of(check("exact_match", {}, {"type": "cloud_file"}))
    assert "evaluator.result.type: 'cloud_file'" in unknown_parts(spec)[0]


def test_rules_that_a_metric_cannot_use_are_the_tasks_fault():
    client = FakeFilesClient({PATH: b"3"})
    spec = spec_of(check("exact_match", {"wanted": "3"}))
    with pytest.raises(ValueError, match="t.json: evaluator: exact_match .*'expected'"):
        evaluate(spec, client, ended_by=None)
