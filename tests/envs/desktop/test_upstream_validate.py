"""The validator of a user's task folder, on small task files of our own."""

import argparse
import json
import re

import pytest

from stepjax.envs.desktop.upstream.assets import asset_name, assets_of, missing_assets
from stepjax.envs.desktop.upstream.names import GETTERS, METRICS
from stepjax.envs.desktop.upstream.needs import Abilities, Need
from stepjax.envs.desktop.upstream.validate import (
    add_validate_arguments,
    table,
    validate,
    validate_command,
)

URL = "https://example.org/files/in.txt"
EVERYTHING = Abilities(has_program=lambda name: True, root=True)
NOTHING = Abilities(has_program=lambda name: False, root=False)


def step(kind, **parameters):
    return {"type": kind, "parameters": parameters}


def download(url=URL, path="/home/user/in.txt"):
    return step("download", files=[{"url": url, "path": path}])


def make_task(config=(), apps=("os",), **evaluator):
    evaluator = evaluator or {
        "func": "exact_match",
        "result": {"type": "vm_command_line", "command": ["ls"]},
        "expected": {"type": "rule", "rules": {"expected": "a\n"}},
    }
    return {
        "id": "t1",
        "instruction": "Do it.",
        "config": list(config),
        "related_apps": list(apps),
        "evaluator": evaluator,
    }


@pytest.fixture
def folder(tmp_path):
    def write(data, name="t1", domain="os"):
        path = tmp_path / "examples" / domain / f"{name}.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(data if isinstance(data, str) else json.dumps(data))
        return tmp_path

    return write


def needs(root, abilities=EVERYTHING, cache=None):
    (row,) = validate(root, cache=cache, abilities=abilities)
    return {obstacle.need for obstacle in row.obstacles}


def test_a_plain_task_runs(folder):
    (row,) = validate(folder(make_task()), abilities=NOTHING)
    assert row.runs and row.name == "os/t1"
    assert not row.infeasible and not row.needs_root


def test_infeasible_is_flagged(folder):
    (row,) = validate(folder(make_task(func="infeasible")), abilities=NOTHING)
    assert row.runs and row.infeasible


LAUNCH_CODE = step("launch", command=["code", "-r"])
LAUNCH_CHROME = step("launch", command=["google-chrome", "--remote-debugging-port=1"])
TABS = step("chrome_open_tabs", urls_to_open=["https://example.org"])
OWN_TABS = step("chrome_open_tabs", urls_to_open=["http://localhost:80/x"])


def judged_by(getter, func="exact_match", **more):
    return make_task(func=func, result={"type": getter, **more}, expected={})


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (make_task([LAUNCH_CODE]), {Need.VS_CODE}),
        (make_task(apps=["vs_code"]), {Need.VS_CODE}),
        (judged_by("vscode_config"), {Need.VS_CODE}),
        (make_task([LAUNCH_CHROME]), set()),
        (make_task([TABS]), {Need.WEB, Need.BROWSER_PORT}),
        (make_task([OWN_TABS]), {Need.BROWSER_PORT}),
        (make_task([step("login", platform="googledrive")]), {Need.WEB}),
        (judged_by("googledrive_file"), {Need.WEB}),
        (judged_by("active_url_from_accessTree"), {Need.CHROME}),
        (judged_by("open_tabs_info"), {Need.BROWSER_PORT}),
        (judged_by("vlc_playing_info"), {Need.BROWSER_PORT}),
        (judged_by("no_such_getter"), {Need.UNKNOWN}),
        (judged_by("vm_file", func="no_such_metric"), {Need.UNKNOWN}),
        (judged_by("vm_file", func="compare_image_text"), {Need.LEFT_OUT}),
        (make_task([step("execute", command="pip install x", shell=True)]), {Need.WEB}),
        (
            make_task([step("execute", command=["apt-get", "-y", "install"])]),
            {Need.WEB},
        ),
        (make_task([step("execute", command=["curl", "https://a.b"])]), {Need.WEB}),
        (make_task([step("execute", command=["curl", "http://localhost"])]), set()),
        (make_task([step("launch", command="VAR=1 x")]), set()),
        (make_task([step("launch", command=["no", "shell"])]), set()),
        ({**make_task(), "proxy": True}, {Need.WEB}),
        ({**make_task(), "proxy": False}, set()),
        (make_task([download()]), {Need.ASSET}),
    ],
)
def test_why_not(folder, data, expected):
    assert needs(folder(data)) == expected


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (make_task([step("launch", command=["nautilus"])]), {Need.APPLICATION}),
        (make_task([step("launch", command="/usr/bin/x y")]), {Need.APPLICATION}),
        (make_task([step("execute", command=["python", "-c", "0"])]), set()),
        (make_task([step("execute", command="strange words", shell=True)]), set()),
        (make_task([LAUNCH_CHROME]), {Need.CHROME}),
        (make_task(apps=["libreoffice calc"]), {Need.APPLICATION}),
        (make_task(apps=["LibreOffice_Writer", "gimp"]), {Need.APPLICATION}),
        (make_task(apps=["terminal", "pdf"]), set()),
        (make_task([step("execute", command="sudo id", shell=True)]), {Need.ROOT}),
        (
            make_task(
                func="exact_match",
                result={"type": "vm_command_line", "command": "sudo id"},
            ),
            {Need.ROOT},
        ),
    ],
)
def test_why_not_on_a_bare_machine(folder, data, expected):
    assert needs(folder(data), NOTHING) == expected


def test_root_where_there_is_root(folder):
    data = make_task([step("execute", command="sudo id", shell=True)])
    (row,) = validate(folder(data), abilities=EVERYTHING)
    assert row.runs and row.needs_root


def test_name_of_google_chrome_in_the_evaluator(folder):
    rules = [{"selectors": ["application[name='Google Chrome']"]}]
    data = make_task(
        func="check_accessibility_tree",
        result={"type": "accessibility_tree"},
        expected={"type": "rule", "rules": rules},
    )
    assert needs(folder(data)) == {Need.CHROME}


def test_missing_asset_names_its_path(folder, tmp_path):
    cache = tmp_path / "cache"
    path = cache / "t1" / asset_name(URL, "/home/user/in.txt")
    root = folder(make_task([download()]))
    (row,) = validate(root, cache=cache, abilities=EVERYTHING)
    assert str(row.obstacles[0]) == f"asset missing: {path}"
    path.parent.mkdir(parents=True)
    path.write_text("x")
    assert needs(root, cache=cache) == set()
    path.unlink()
    path.mkdir()  # a folder is no asset
    assert needs(root, cache=cache) == {Need.ASSET}


def test_names_in_the_cache():
    # uuid5 of the address in the namespace of addresses, then the target's own name.
    assert asset_name("https://example.org/a?x=1", "/home/user/a.txt") == (
        "b41fa30b-f54a-5461-9428-0b55a0470ef8_a.txt"
    )
    data = make_task(
        [download()],
        func=["compare_table", "compare_table"],
        result=[{"type": "vm_file", "path": "/a", "dest": "a"}] * 2,
        expected=[
            {"type": "cloud_file", "path": URL, "dest": "gold.xlsx"},
            {
                "type": "cloud_file",
                "multi": True,
                "path": [URL, URL],
                "dest": ["one", "two"],
            },
        ],
        postconfig=[
            download(path="/tmp/late"),
            step("update_browse_history", history=[]),
        ],
    )
    names = [asset.name for asset in assets_of(data, source="x")]
    assert names == [
        asset_name(URL, "/home/user/in.txt"),
        asset_name(URL, "/tmp/late"),
        "history_new.sqlite",
        "gold.xlsx",
        "one",
        "two",
    ]
    paths = missing_assets(data, source="x", cache=None)
    assert [path.name for path in paths] == names


@pytest.mark.parametrize(
    ("data", "key"),
    [
        ("{", "not JSON"),
        ("[]", "the task is"),
        ("[" * 100_000, "not JSON"),
        ({"id": "a"}, "instruction is missing"),
        (make_task([step("teleport")]), r"config\[0\].type"),
        (make_task([step("download")]), r"config\[0\].parameters.files"),
        (
            make_task([step("download", files=[{"path": "/a"}])]),
            r"config\[0\].parameters.files\[0\].url",
        ),
        (judged_by("cloud_file", path=URL, dest="../x"), "without a folder"),
        (judged_by("cloud_file", path=URL), "evaluator.result.dest"),
        (judged_by("cloud_file", path=[URL], dest=[], multi=True), "1 in path and 0"),
        (judged_by("cloud_file", path=URL, dest="a", multi=True), "must be lists"),
    ],
)
def test_malformed_names_file_and_key(folder, data, key):
    root = folder(data)
    (row,) = validate(root, abilities=EVERYTHING)
    (obstacle,) = row.obstacles
    assert obstacle.need is Need.MALFORMED
    assert str(root / "examples" / "os" / "t1.json") in obstacle.detail
    assert "\n" not in obstacle.detail
    assert re.search(key, obstacle.detail)


def test_list_and_order(folder, tmp_path):
    root = folder(make_task())
    folder({**make_task(), "id": "t2"}, name="t2", domain="gimp")
    chosen = tmp_path / "list.json"
    chosen.write_text(json.dumps({"os": ["t1"], "gimp": ["t2"]}))
    names = [row.name for row in validate(root, chosen, abilities=NOTHING)]
    assert names == ["os/t1", "gimp/t2"]
    assert len(validate(root, abilities=NOTHING)) == 2
    chosen.write_text(json.dumps({"os": ["t9", "t1"]}))
    missing, there = validate(root, chosen, abilities=NOTHING)
    assert "t9.json: cannot be read" in str(missing.obstacles[0]) and there.runs


@pytest.mark.parametrize(
    "text",
    ["{", "[]", '{"os": ["../t1"]}', '{"..": ["t1"]}', '{"os": [1]}', '{"os": 1}'],
)
def test_malformed_list(folder, tmp_path, text):
    root = folder(make_task())
    chosen = tmp_path / "list.json"
    chosen.write_text(text)
    with pytest.raises(ValueError, match=re.escape(str(chosen))):
        validate(root, chosen, abilities=NOTHING)
    with pytest.raises(ValueError, match="no.json"):
        validate(root, tmp_path / "no.json", abilities=NOTHING)


def test_no_folder(tmp_path):
    with pytest.raises(ValueError, match="examples"):
        validate(tmp_path)


def test_table(folder, tmp_path):
    root = folder(make_task([LAUNCH_CODE, LAUNCH_CODE]))
    folder(make_task(func="infeasible"), name="t0")
    text = table(validate(root, abilities=EVERYTHING), width=60)
    first, second, _, *summary = text.splitlines()
    assert first.split() == ["os/t0", "runs", "infeasible"]
    assert second.startswith("os/t1  cannot  needs VS Code: config[0] (+1)")
    assert summary[0].startswith("1 of 2 tasks can run here, 1 of them infeasible")
    assert summary[1].split() == ["1", "needs", "VS", "Code"]
    wide = table(
        validate(folder(make_task([download()])), abilities=EVERYTHING), width=40
    )
    assert all(len(line) <= 40 for line in wide.splitlines()[:2])


def arguments(*words):
    parser = argparse.ArgumentParser()
    add_validate_arguments(parser)
    return parser.parse_args(list(words))


def test_command(folder, capsys):
    root = folder(make_task())
    assert validate_command(arguments("--tasks", str(root))) == 0
    assert "1 of 1 tasks can run here" in capsys.readouterr().out
    folder("{", name="broken")
    assert validate_command(arguments("--tasks", str(root), "--json")) == 1
    rows = json.loads(capsys.readouterr().out)
    assert [row["task"] for row in rows] == ["os/broken", "os/t1"]
    assert rows[0]["obstacles"][0]["need"] == "malformed"


def test_names_are_what_tasks_use():
    assert {"vm_file", "cloud_file", "rule"} <= GETTERS
    assert {"infeasible", "compare_table", "exact_match"} <= METRICS
