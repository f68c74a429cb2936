"""Task files: what is accepted, and what one reads about the rest."""

import copy
import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stepjax.envs.desktop.tasks import files
from stepjax.envs.desktop.tasks.files import load_task, load_tasks, task_files
from stepjax.envs.desktop.tasks.schema import TaskSpec, parse_task
from stepjax.envs.desktop.tasks.setup_types import SETUP_TYPES

TASK = {
    "id": "a-1",
    "snapshot": "calc",
    "instruction": "Put 3 into B2.",
    "source": "",
    "config": [
        {"type": "download",
         "parameters": {"files": [{"url": "data:,x", "path": "/home/user/a.txt"}]}},
        {"type": "launch", "parameters": {"command": ["mousepad"]}},
        {"type": "sleep", "parameters": {"seconds": 0.5}},
    ],
    "trajectory": "trajectories/",
    "related_apps": ["calc", "os"],
    "evaluator": {
        "func": ["exact_match", "match_lines"],
        "conj": "or",
        "result": [{"type": "vm_command_line", "command": "ls"},
                   {"type": "vm_file", "path": "/home/user/a.txt"}],
        "expected": [{"type": "rule", "rules": {}}, None],
        "options": [{}, {"strict": True}],
        "postconfig": [{"type": "activate_window", "parameters":
                        {"window_name": "a", "strict": True}}],
    },
}  # fmt: skip


def changed(path, value):
    """The task with another value at a path such as "config.0.type"."""
    data = copy.deepcopy(TASK)
    *above, last = (int(p) if p.isdecimal() else p for p in path.split("."))
    at = data
    for part in above:
        at = at[part]
    if value is ...:
        del at[last]
    else:
        at[last] = value
    return data


def test_a_task_is_read():
    spec = parse_task(TASK, source="a.json", domain="libreoffice_calc")
    assert (spec.id, spec.name) == ("a-1", "libreoffice_calc/a-1")
    assert spec.instruction == "Put 3 into B2."
    assert [step.type for step in spec.config] == ["download", "launch", "sleep"]
    assert spec.related_apps == ("calc", "os")
    assert not spec.infeasible and not spec.needs_root
    first, second = spec.evaluator.checks
    assert first.metric == "exact_match" and first.options == {}
    assert second.expected is None and second.options == {"strict": True}
    assert spec.evaluator.conjunction == "or"
    assert spec.evaluator.postconfig[0].parameters["window_name"] == "a"
    assert spec.data == TASK


def test_defaults():
    data = {"id": "x", "instruction": "y", "evaluator": {"func": "infeasible"}}
    spec = parse_task(data, source="x.json")
    assert spec.infeasible and spec.config == () and spec.domain == "other"
    assert spec.evaluator.conjunction == "and"


def test_sudo_needs_root():
    step = {"type": "execute", "parameters": {"command": ["sudo", "ls"]}}
    assert parse_task(changed("config.1", step), source="a").needs_root
    text = {"type": "command", "parameters": {"command": "echo pseudo"}}
    assert not parse_task(changed("config.1", text), source="a").needs_root
    asked = changed("config.1", text) | {"needs_root": True}
    assert parse_task(asked, source="a").needs_root


@pytest.mark.parametrize(
    ("path", "value", "key"),
    [
        ("id", ..., "id"),
        ("id", 3, "id"),
        ("id", "../x", "id"),
        ("id", "a/b", "id"),
        ("id", "", "id"),
        ("id", "x" * 200, "id"),
        ("instruction", ..., "instruction"),
        ("instruction", "  ", "instruction"),
        ("instruction", None, "instruction"),
        ("related_apps", "calc", "related_apps"),
        ("related_apps", [1], "related_apps[0]"),
        ("config", {}, "config"),
        ("config.1", "launch", "config[1]"),
        ("config.1.type", "reboot", "config[1].type"),
        ("config.1.type", ["launch"], "config[1].type"),
        ("config.1.parameters", [], "config[1].parameters"),
        ("config.1.parameters", {}, "config[1].parameters.command"),
        ("config.1.parameters.command", 3, "config[1].parameters.command"),
        ("config.1.parameters.command", [], "config[1].parameters.command"),
        ("config.1.parameters.command", ["a", 1], "config[1].parameters.command"),
        ("config.1.parameters.until", {}, "config[1].parameters.until"),
        ("config.0.parameters.files", [{}], "config[0].parameters.files[0]"),
        ("config.2.parameters.seconds", -1, "config[2].parameters.seconds"),
        ("config.2.parameters.seconds", True, "config[2].parameters.seconds"),
        ("config.2.parameters.seconds", 1e9, "config[2].parameters.seconds"),
        ("config.2.parameters.seconds", float("nan"), "config[2].parameters.seconds"),
        ("evaluator", ..., "evaluator"),
        ("evaluator", [], "evaluator"),
        ("evaluator.func", ..., "evaluator.func"),
        ("evaluator.func", [], "evaluator.func"),
        ("evaluator.func", ["a", 1], "evaluator.func"),
        ("evaluator.func", ["infeasible", "exact_match"], "evaluator.func"),
        ("evaluator.conj", "xor", "evaluator.conj"),
        ("evaluator.result", {"type": "a"}, "evaluator.result"),
        ("evaluator.result", [{"type": "a"}], "evaluator.result"),
        ("evaluator.result", [{"type": "a"}, {"x": 1}], "evaluator.result[1].type"),
        ("evaluator.expected", [1, 2], "evaluator.expected[0]"),
        ("evaluator.options", "x", "evaluator.options"),
        ("evaluator.postconfig", [{"type": "x"}], "evaluator.postconfig[0].type"),
        ("needs_root", "yes", "needs_root"),
    ],
)
def test_what_is_wrong_is_said_in_one_line(path, value, key):
    with pytest.raises(ValueError) as error:
        parse_task(changed(path, value), source="some/file.json")
    line = str(error.value)
    assert line.startswith(f"some/file.json: {key} ")
    assert "\n" not in line and len(line) < 400


@pytest.mark.parametrize("value", [None, 1, "x", [], [TASK]])
def test_a_task_is_an_object(value):
    with pytest.raises(ValueError, match="a.json: the task is .* it must be an object"):
        parse_task(value, source="a.json")


plain = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(
            st.sampled_from(
                ["type", "parameters", "command", "files", "path", "func", "conj"]
                + ["result", "expected", "options", "postconfig", "seconds", "rules"]
            ),
            inner,
            max_size=4,
        )
    ),
    max_leaves=12,
)


@settings(max_examples=150, deadline=None)
@given(data=plain)
def test_any_json_is_a_task_or_a_line(data):
    expect_task_or_line(data)


@settings(max_examples=150, deadline=None)
@given(
    keys=st.lists(st.sampled_from(sorted(TASK)), max_size=3),
    values=st.lists(plain, min_size=3, max_size=3),
    kind=st.sampled_from(sorted(SETUP_TYPES)),
    parameters=plain,
)
def test_a_task_with_odd_parts_is_a_task_or_a_line(keys, values, kind, parameters):
    data = copy.deepcopy(TASK)
    data["config"][1] = {"type": kind, "parameters": parameters}
    data |= dict(zip(keys, values, strict=False))
    expect_task_or_line(data)


def expect_task_or_line(data):
    try:
        assert isinstance(parse_task(data, source="f.json"), TaskSpec)
    except ValueError as error:
        assert str(error).startswith("f.json: ") and "\n" not in str(error)


def write(folder, name, data):
    path = folder / "examples" / name
    path.parent.mkdir(parents=True, exist_ok=True)
    text = data if isinstance(data, str | bytes) else json.dumps(data)
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return path


def test_a_folder_of_tasks(tmp_path):
    for domain, name in (("os", "b"), ("calc", "a"), ("calc", "b")):
        write(tmp_path, f"{domain}/{name}.json", TASK | {"id": name})
    specs = load_tasks(tmp_path)
    assert [spec.name for spec in specs] == ["calc/a", "calc/b", "os/b"]
    listed = tmp_path / "list.json"
    listed.write_text(json.dumps({"os": ["b"], "calc": ["b", "b"]}))
    assert [s.name for s in load_tasks(tmp_path, listed)] == ["os/b", "calc/b"]


@pytest.mark.parametrize(
    ("listed", "reason"),
    [
        ({"os": ["zz"]}, "file is missing: .*zz.json"),
        ({"os": "b"}, "os must be a list"),
        ({"os": ["../b"]}, r"os\[0\]"),
        ({"os": [1]}, r"os\[0\]"),
        ({"../os": ["b"]}, "no folder name"),
        ([], "an object"),
        ({}, "no task in"),
    ],
)
def test_lists_that_cannot_be_followed(tmp_path, listed, reason):
    write(tmp_path, "os/b.json", TASK | {"id": "b"})
    path = tmp_path / "list.json"
    path.write_text(json.dumps(listed))
    with pytest.raises(ValueError, match=reason):
        task_files(tmp_path, path)


@pytest.mark.parametrize(
    "content", [b"", b"{", b"\xff\xfe{", b'{"id": ' * 100_000, b"[" * 1_000_000]
)
def test_files_that_are_no_json(tmp_path, content):
    path = write(tmp_path, "os/b.json", content)
    with pytest.raises(ValueError, match=r"b\.json: not JSON") as error:
        load_task(path)
    assert len(str(error.value)) < 400


def test_files_that_cannot_be_read(tmp_path, monkeypatch):
    with pytest.raises(ValueError, match="holds examples/<domain>/<id>.json"):
        task_files(tmp_path)
    with pytest.raises(ValueError, match="none.json: cannot be read"):
        load_task(tmp_path / "none.json")
    monkeypatch.setattr(files, "MAX_TASK_BYTES", 10)
    with pytest.raises(ValueError, match="larger than 10 bytes"):
        load_task(write(tmp_path, "os/b.json", TASK))


def test_two_files_with_one_task(tmp_path):
    for name in ("a", "b"):
        write(tmp_path, f"os/{name}.json", TASK | {"id": "same"})
    with pytest.raises(ValueError, match="b.json: id 'same' is also the id of"):
        load_tasks(tmp_path)


def test_an_odd_byte_order_mark_is_passed_over(tmp_path):
    path = write(tmp_path, "os/b.json", b"\xef\xbb\xbf" + json.dumps(TASK).encode())
    assert load_task(path).id == "a-1"
