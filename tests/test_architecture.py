"""The promises about structure: who imports whom, what is public, what it weighs.

Everything but the weight is read from the syntax tree, so nothing heavy is imported.
"""

import ast
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = sorted((ROOT / "stepjax").rglob("*.py"))
OURS = PACKAGE + sorted((ROOT / "experiments").rglob("*.py"))
EVERYTHING = (
    OURS
    + sorted((ROOT / "benchmarks").rglob("*.py"))
    + sorted((ROOT / "scripts").rglob("*.py"))
    + sorted((ROOT / "tests").rglob("*.py"))
)
BASE = {"types", "_checks"}
LAYER_2 = {"losses", "log_probs", "batching"}
# What each part may import of the package, itself always included.
ALLOWED = {
    "types": set(),
    "_checks": set(),
    "kernels": BASE,
    **{name: BASE | {"kernels"} | LAYER_2 for name in LAYER_2},
    "training": BASE | {"kernels"} | LAYER_2,
    "envs": BASE,
    "rollout": BASE | {"envs", "models"},
    "models": BASE | {"log_probs", "envs.words", "envs.actions", "envs.screen_actions"},
    "launch": BASE | {"kernels", "training", "models"} | LAYER_2,
    "__init__": BASE | {"kernels"} | LAYER_2,
}
# Arithmetic that kernels share; importable from its module, not from the top.
HELPERS = {"masked", "segments"}
HEAVY = {"flax", "optax", "orbax"}
MAX_LINES = 400


def _relative(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def _parameters(paths: list[Path]):
    return pytest.mark.parametrize("path", paths, ids=_relative)


def _tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"), filename=str(path))


def _part(path: Path) -> str:
    """The layer a file of the package belongs to."""
    first = path.relative_to(ROOT / "stepjax").parts[0]
    return first.removesuffix(".py")


def _imports(path: Path) -> set[str]:
    """Full names of all modules a file imports, also inside functions."""
    names: set[str] = set()
    for node in ast.walk(_tree(path)):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{_relative(path)}: write absolute imports"
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return names


def _declared_names(path: Path) -> list[str] | None:
    """The literal value of `__all__`, or None where there is none."""
    for node in _tree(path).body:
        if isinstance(node, ast.Assign) and any(
            isinstance(target, ast.Name) and target.id == "__all__"
            for target in node.targets
        ):
            return ast.literal_eval(node.value)
    return None


def _public_definitions(path: Path):
    """Functions and classes of a file that its `__all__` lists."""
    public = set(_declared_names(path) or ())
    kinds = ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef
    return [
        node
        for node in _tree(path).body
        if isinstance(node, kinds) and node.name in public
    ]


@_parameters(PACKAGE)
def test_import_direction(path):
    part = _part(path)
    allowed = ALLOWED[part] | {part}
    for name in sorted(_imports(path)):
        parts = name.split(".")
        assert parts[0] not in {"experiments", "benchmarks", "tests"}, name
        if parts[0] != "stepjax" or len(parts) == 1:
            continue
        inside = ".".join(parts[1:])
        assert any(inside == ok or inside.startswith(ok + ".") for ok in allowed), (
            f"{_relative(path)} imports {name}; {part} may import only "
            f"{sorted(allowed)}. See docs/composing.md for the direction."
        )


@_parameters(PACKAGE)
def test_third_party_imports(path):
    part, top = _part(path), {name.split(".")[0] for name in _imports(path)}
    if part not in {"training", "models"}:
        assert not top & HEAVY, f"{_relative(path)} imports {top & HEAVY}"
    if part != "_checks":
        assert "chex" not in top, f"{_relative(path)}: only _checks may import chex"
    if part == "kernels":
        outside = top - set(sys.stdlib_module_names) - {"jax", "stepjax"}
        assert not outside, f"{_relative(path)}: kernels need jax only, got {outside}"


def test_import_stepjax_is_light():
    code = (
        "import json, sys, stepjax;"
        "print(json.dumps(sorted({name.split('.')[0] for name in sys.modules})))"
    )
    out = subprocess.run(
        [sys.executable, "-c", code],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    unwanted = HEAVY | {
        "PIL",
        "aiohttp",
        "experiments",
        "gymnasium",
        "matplotlib",
        "miniwob",
        "rich",
        "selenium",
        "tensorboardX",
        "torch",
        "tyro",
        "websockets",
    }
    assert not unwanted & set(json.loads(out))


@_parameters([path for path in PACKAGE if path.name != "__init__.py"])
def test_all_is_declared_and_true(path):
    names = _declared_names(path)
    assert names is not None, f"{_relative(path)} has no __all__"
    assert len(names) == len(set(names)), f"{_relative(path)} lists a name twice"
    defined: set[str] = set()
    for node in _tree(path).body:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            defined.add(node.name)
        elif isinstance(node, ast.Assign):
            targets = (name for target in node.targets for name in ast.walk(target))
            defined |= {name.id for name in targets if isinstance(name, ast.Name)}
        elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            defined.add(node.target.id)
    assert set(names) <= defined, f"{_relative(path)}: {set(names) - defined}"
    unlisted = {
        node.name
        for node in _tree(path).body
        if isinstance(node, ast.FunctionDef | ast.ClassDef)
        and not node.name.startswith("_")
    } - set(names)
    assert not unlisted, f"{_relative(path)}: public but not in __all__: {unlisted}"


def test_package_exports_layers_0_to_2():
    import stepjax

    exported = set(stepjax.__all__)
    assert all(hasattr(stepjax, name) for name in exported)
    for path in PACKAGE:
        if _part(path) not in {"types", "kernels"} | LAYER_2 or path.stem in HELPERS:
            continue
        # Where layer 2 is a folder, its __init__ says what is public.
        if _part(path) in LAYER_2 and path.parent.name in LAYER_2:
            path = path.parent / "__init__.py"
        missing = set(_declared_names(path) or ()) - exported
        assert not missing, f"stepjax does not export {missing} of {path.stem}"


@_parameters(PACKAGE)
def test_public_names_are_documented(path):
    assert ast.get_docstring(_tree(path)) or path.name == "__init__.py"
    for node in _public_definitions(path):
        text = ast.get_docstring(node)
        assert text, f"{_relative(path)}: {node.name} has no docstring"
        if isinstance(node, ast.ClassDef):
            fields = [n for n in node.body if isinstance(n, ast.AnnAssign)]
            if fields and not any("Protocol" in ast.unparse(b) for b in node.bases):
                assert "Attributes:" in text, f"{node.name}: no Attributes section"
            continue
        if _part(path) in {"kernels", "losses", "log_probs"}:
            for section in ("Args:", "Returns:", "Example:", "Source:"):
                assert section in text, f"{node.name}: no {section} section"
        for argument in node.args.posonlyargs + node.args.args + node.args.kwonlyargs:
            if "Args:" in text:
                assert f"{argument.arg}:" in text or f"{argument.arg}," in text, (
                    f"{_relative(path)}: {node.name} does not describe {argument.arg}"
                )


@_parameters(EVERYTHING)
def test_files_are_short(path):
    lines = len(path.read_text(encoding="utf-8").splitlines())
    assert lines <= MAX_LINES, f"{_relative(path)} has {lines} lines; split it"


@_parameters(OURS)
def test_no_forbidden_constructs(path):
    for node in ast.walk(_tree(path)):
        where = f"{_relative(path)}:{getattr(node, 'lineno', 0)}"
        assert not isinstance(node, ast.Assert), f"{where}: raise ValueError instead"
        if isinstance(node, ast.ExceptHandler):
            assert node.type is not None, f"{where}: bare except"
            broad = ast.unparse(node.type) in {"Exception", "BaseException"}
            swallowed = [type(n) for n in node.body] == [ast.Pass]
            assert not (broad and swallowed), f"{where}: swallows every error"
        if isinstance(node, ast.Call):
            called = ast.unparse(node.func)
            assert called not in {"eval", "exec", "os.system"}, f"{where}: {called}"
            shell = {k.arg: ast.unparse(k.value) for k in node.keywords}.get("shell")
            assert shell != "True", f"{where}: no shell strings"
    modules = {name.split(".")[0] for name in _imports(path)}
    assert not modules & {"pickle", "dill", "cloudpickle"}, _relative(path)


def test_api_index_is_complete():
    listed = (ROOT / "docs" / "api.md").read_text(encoding="utf-8")
    missing = [
        f"{_relative(path)}: {name}"
        for path in PACKAGE
        if path.name not in {"__init__.py", "_checks.py"} and "inside" not in path.parts
        for name in _declared_names(path) or ()
        if f"`{name}`" not in listed
    ]
    assert not missing, f"run `python scripts/api_index.py`; missing: {missing}"
