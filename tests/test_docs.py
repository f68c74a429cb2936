"""What the documents say is true: snippets run, links lead somewhere, names exist."""

import doctest
import importlib
import importlib.util
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
DOCUMENTS = [ROOT / name for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md")]
DOCUMENTS += sorted((ROOT / "docs").glob("*.md"))
FENCE = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"\]\(([^)#\s]+)(?:#[^)]*)?\)")
DOTTED = re.compile(r"`(stepjax(?:\.\w+)+)`")
MODULE = re.compile(r"python -m ((?:experiments|benchmarks)[\w.]*)")


def _relative(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def _module_name(path: Path) -> str:
    name = ".".join(path.relative_to(ROOT).with_suffix("").parts)
    return name.removesuffix(".__init__")


def _blocks(path: Path, language: str) -> list[tuple[int, str]]:
    """First line number and text of every fenced block in a language."""
    text = path.read_text(encoding="utf-8")
    return [
        (text.count("\n", 0, match.start()) + 2, match.group(2))
        for match in FENCE.finditer(text)
        if match.group(1) == language
    ]


def _entry_points() -> list[str]:
    """Modules of `experiments` that are commands for people."""
    files = sorted((ROOT / "experiments").glob("*.py"))
    return [
        _module_name(path)
        for path in files
        if '__name__ == "__main__"' in path.read_text(encoding="utf-8")
        and not path.stem.endswith("_worker")
    ]


def _long_ones_apart(path: Path):
    """Examples take the compiler long; only the README's are in the default set."""
    name = _relative(path)
    return pytest.param(path, marks=[pytest.mark.slow] * (name != "README.md"), id=name)


@pytest.mark.parametrize(
    "path", [_long_ones_apart(path) for path in DOCUMENTS if _blocks(path, "python")]
)
def test_snippets_run(path, tmp_path, monkeypatch):
    """Blocks of a document run in order and share their names, as a reader's would."""
    monkeypatch.chdir(tmp_path)
    names: dict = {"__name__": "__snippet__"}
    for line, text in _blocks(path, "python"):
        # Padding makes the line numbers of a traceback those of the document.
        code = compile("\n" * (line - 1) + text, str(path), "exec")
        exec(code, names)


@pytest.mark.parametrize("path", DOCUMENTS, ids=_relative)
def test_links_lead_somewhere(path):
    for target in LINK.findall(path.read_text(encoding="utf-8")):
        if not target.startswith(("http://", "https://", "mailto:")):
            assert (path.parent / target).exists(), f"{_relative(path)}: {target}"


@pytest.mark.parametrize("path", DOCUMENTS, ids=_relative)
def test_names_exist(path):
    text = path.read_text(encoding="utf-8")
    for dotted in sorted(set(DOTTED.findall(text))):
        assert _resolves(dotted), f"{_relative(path)} names {dotted}"
    for module in sorted(set(MODULE.findall(text))):
        found = importlib.util.find_spec(module)
        assert found is not None, f"{_relative(path)} runs {module}"


def _resolves(dotted: str) -> bool:
    parts = dotted.split(".")
    for cut in range(len(parts), 0, -1):
        try:
            thing = importlib.import_module(".".join(parts[:cut]))
        except ModuleNotFoundError:
            continue
        for name in parts[cut:]:
            if not hasattr(thing, name):
                return False
            thing = getattr(thing, name)
        return True
    return False


@pytest.mark.parametrize(
    "path",
    [
        _long_ones_apart(path)
        for folder in ("stepjax", "experiments")
        for path in sorted((ROOT / folder).rglob("*.py"))
        if ">>> " in path.read_text(encoding="utf-8")
    ],
)
def test_docstring_examples(path):
    module = importlib.import_module(_module_name(path))
    flags = doctest.NORMALIZE_WHITESPACE | doctest.ELLIPSIS
    result = doctest.testmod(module, optionflags=flags, verbose=False)
    assert result.attempted > 0
    assert result.failed == 0, f"run python -m doctest on {_relative(path)}"


@pytest.mark.parametrize("module", _entry_points())
def test_help_answers_without_jax(module):
    done = subprocess.run(
        [sys.executable, "-X", "importtime", "-m", module, "--help"],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT), "NO_COLOR": "1"},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert module in done.stdout
    imported = {
        line.rsplit("|", 1)[1].strip()
        for line in done.stderr.splitlines()
        if line.startswith("import time:")
    }
    assert not imported & {"jax", "flax", "optax", "matplotlib", "orbax.checkpoint"}


def test_no_placeholder_is_left(repository_root):
    for path in sorted((repository_root / "docs").glob("*.md")):
        assert "@@" not in path.read_text(), path.name
