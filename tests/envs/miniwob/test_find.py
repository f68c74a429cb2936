"""What is found, refused and served without starting a browser."""

import sys

import pytest

from stepjax.envs.miniwob import ORACLES, TRAIN_TASKS, UNSEEN_TASKS, task_table
from stepjax.envs.miniwob.chromium import CHROMIUM_VARIABLE, find_chromium
from stepjax.envs.miniwob.pages import ORIGIN, PageFolder, find_pages


def test_missing_browser_says_how_to_get_one(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv(CHROMIUM_VARIABLE, raising=False)
    with pytest.raises(FileNotFoundError, match="apt-get install chromium") as caught:
        find_chromium()
    assert "\n" not in str(caught.value)
    assert "--env.chromium" in str(caught.value)


def test_named_browser_must_exist(monkeypatch, tmp_path):
    missing = str(tmp_path / "nothing")
    with pytest.raises(FileNotFoundError, match="--env.chromium=.*nothing"):
        find_chromium(missing)
    monkeypatch.setenv(CHROMIUM_VARIABLE, missing)
    with pytest.raises(FileNotFoundError, match=CHROMIUM_VARIABLE):
        find_chromium()


def test_order_is_flag_variable_path(monkeypatch, tmp_path):
    places = {}
    for name in ("flag", "variable", "chromium"):
        places[name] = tmp_path / name
        places[name].write_text("#!/bin/sh\n")
        places[name].chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setenv(CHROMIUM_VARIABLE, str(places["variable"]))
    assert find_chromium(str(places["flag"])) == str(places["flag"])
    assert find_chromium() == str(places["variable"])
    monkeypatch.delenv(CHROMIUM_VARIABLE)
    assert find_chromium() == str(places["chromium"])


def test_folder_must_be_the_npm_package(tmp_path):
    with pytest.raises(FileNotFoundError, match="@sparticuz/chromium"):
        find_chromium(str(tmp_path))


def test_missing_pages_say_how_to_get_them(monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ImportError, match="pip install --no-deps miniwob"):
        find_pages()


def test_pages_are_found_without_importing_the_package():
    pytest.importorskip("importlib.metadata")
    try:
        folder = find_pages()
    except ImportError as error:
        pytest.skip(str(error))
    assert "miniwob" not in sys.modules
    for name in TRAIN_TASKS | UNSEEN_TASKS:
        assert (folder / "miniwob" / f"{name}.html").is_file()


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "secret.txt").write_text("secret")
    (tmp_path / "html").mkdir()
    (tmp_path / "html" / "page.html").write_text("page")
    (tmp_path / "html" / "link").symlink_to(tmp_path / "secret.txt")
    return PageFolder(tmp_path / "html")


def test_serves_the_folder(folder):
    assert folder.read(f"{ORIGIN}/page.html") == (200, "text/html", b"page")
    assert folder.read(f"{ORIGIN}/page.html?x=1#y")[0] == 200
    assert folder.read(f"{ORIGIN}/host.html")[0] == 200


@pytest.mark.parametrize(
    "path",
    [
        "/../secret.txt",
        "/%2e%2e/secret.txt",
        "/..%2fsecret.txt",
        "//../secret.txt",
        "/link",
        "/etc/passwd",
        "//etc/passwd",
        "/missing.html",
        "/",
    ],
)
def test_serves_nothing_else(folder, path):
    assert folder.read(ORIGIN + path)[0] == 404


@pytest.mark.parametrize(
    "url", ["https://example.com/page.html", "http://miniwob.invalid/page.html", "x:y"]
)
def test_serves_no_other_origin(folder, url):
    assert folder.read(url)[0] == 404


def test_every_task_has_an_oracle():
    assert set(TRAIN_TASKS | UNSEEN_TASKS) == set(ORACLES)
    assert not set(TRAIN_TASKS) & set(UNSEEN_TASKS)


def test_task_table():
    table = task_table(["click-tab", "enter-text"])
    assert table.names[:2] == ("click-tab", "enter-text")
    assert table.train_ids.tolist() == [0, 1]
    assert len(table.unseen_ids) == len(UNSEEN_TASKS)
    assert len(table.names) == len(table.domains) == len(table.infeasible)
    with pytest.raises(ValueError, match="'no-such-page'"):
        task_table(["no-such-page"])
