"""Setting tasks up, on a desktop that is a dictionary."""

import pytest

from stepjax.envs.desktop.tasks import setup
from stepjax.envs.desktop.tasks.schema import parse_task
from stepjax.envs.desktop.tasks.setup import SetupError, asset_path, run_setup
from tests.envs.desktop.fake_files import FakeFilesClient


def spec_of(*steps):
    config = [{"type": kind, "parameters": one} for kind, one in steps]
    return parse_task(
        {"id": "t", "instruction": "x", "config": config,
         "evaluator": {"func": "infeasible"}},
        source="t.json",
    )  # fmt: skip


def file_step(url, path="/home/user/a.txt"):
    return "download", {"files": [{"url": url, "path": path}]}


def test_steps_run_in_order():
    client = FakeFilesClient(titles=["Some Window"])
    spec = spec_of(
        file_step("data:;base64,aGk="),
        file_step("data:,a%20b", "~/b.txt"),
        ("launch", {"command": ["mousepad", "a"]}),
        ("launch", {"command": "echo x > y", "shell": True}),
        ("execute", {"command": ["touch", "x"], "shell": "False"}),
        ("command", {"command": ["a", "&&", "b"], "shell": "true"}),
        ("open", {"path": "~/a.txt"}),
        ("activate_window", {"window_name": "window"}),
        ("close_window", {"window_name": "some"}),
        ("sleep", {"seconds": 0}),
    )
    run_setup(spec, client)
    assert client.files == {"/home/user/a.txt": b"hi", "/home/user/b.txt": b"a b"}
    assert client.done == [
        ("launch", ["mousepad", "a"]),
        ("launch", ["/bin/bash", "-c", "echo x > y"]),
        ("execute", ["touch", "x"]),
        ("execute", ["/bin/bash", "-c", "a && b"]),
        ("open_file", "/home/user/a.txt"),
        ("activate_window", "Some Window"),
        ("close_window", "Some Window"),
    ]


def test_a_window_is_waited_for(monkeypatch):
    monkeypatch.setattr(setup, "_LOOK_SECONDS", 0.0)
    client = FakeFilesClient(titles=[[], ["Other"], ["Other", "It"]])
    run_setup(spec_of(("activate_window", {"window_name": "It"})), client)
    assert client.done == [("activate_window", "It")]


def test_a_window_that_never_comes(monkeypatch):
    monkeypatch.setattr(setup, "_WINDOW_SECONDS", 0.0)
    client = FakeFilesClient(titles=["Other"])
    with pytest.raises(SetupError, match=r"t.json: config\[0\].*no window 'It'.*Other"):
        run_setup(spec_of(("activate_window", {"window_name": "It"})), client)


def test_files_from_a_cache(tmp_path):
    url, path = "https://example.org/a?b=1", "/home/user/d/in.xlsx"
    client = FakeFilesClient()
    with pytest.raises(SetupError, match="in.xlsx comes from https://.*the cache"):
        run_setup(spec_of(file_step(url, path)), client)
    file = asset_path(tmp_path, "t", url, path)
    with pytest.raises(SetupError, match=f"missing file {file}"):
        run_setup(spec_of(file_step(url, path)), client, cache=tmp_path)
    file.parent.mkdir()
    file.write_bytes(b"cells")
    run_setup(spec_of(file_step(url, path)), client, cache=tmp_path)
    assert client.files == {path: b"cells"}


def test_large_files_are_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(setup, "MAX_ASSET_BYTES", 3)
    file = asset_path(tmp_path, "t", "http://x/", "/home/user/a.txt")
    file.parent.mkdir()
    file.write_bytes(b"four")
    with pytest.raises(SetupError, match="larger than 3 bytes"):
        run_setup(
            spec_of(file_step("http://x/")), FakeFilesClient(), cache=tmp_path
        )  # fmt: skip


@pytest.mark.parametrize(
    ("step", "reason"),
    [
        (file_step("data:;base64,!"), "malformed data address"),
        (file_step("data:none"), "it has no comma"),
        (file_step(None), "url of /home/user/a.txt is None"),
        (file_step("data:,x", "a.txt"), "must begin with / or ~/"),
        (file_step("data:,x", "/a\0b"), "must begin with / or ~/"),
        (("open", {"path": "a.txt"}), "must begin with / or ~/"),
        (("login", {"platform": "googledrive"}), "'login' cannot run here"),
        (("chrome_open_tabs", {"urls_to_open": []}), "cannot run here; these can"),
    ],
)
def test_steps_that_cannot_run(step, reason):
    with pytest.raises(SetupError, match=reason) as error:
        run_setup(spec_of(("sleep", {"seconds": 0}), step), FakeFilesClient())
    assert str(error.value).startswith("t.json: config[1]")
    assert "\n" not in str(error.value)


def test_failing_commands_are_passed_over_and_missing_programs_are_not():
    spec = spec_of(("execute", {"command": ["pkill", "x"]}))
    run_setup(spec, FakeFilesClient(outputs={"pkill": (1, "")}))
    with pytest.raises(SetupError, match="'pkill', 'x'.* cannot run"):
        run_setup(spec, FakeFilesClient(outputs={"pkill": (127, "")}))
