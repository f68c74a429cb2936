"""Write docs/api.md: every public name, its module and the first line about it."""

import ast
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
HEAD = """# Public names

Written by `python scripts/api_index.py`; a test fails when a name is missing. Names
of `types`, `kernels`, `losses`, `log_probs` and `batching` can be imported from
`stepjax` itself, the others from their module.
"""
# From the inside out: the order in which the layers build on each other.
ORDER = [
    "types",
    "kernels",
    "losses",
    "log_probs",
    "batching",
    "training",
    "models",
    "envs",
    "rollout",
    "launch",
]


def public_names(tree: ast.Module) -> list[str]:
    """Names that `__all__` of a module lists."""
    for node in tree.body:
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__all__":
            return ast.literal_eval(node.value)
    return []


def first_lines(tree: ast.Module) -> dict[str, str]:
    """First docstring line of every function and class of a module."""
    kinds = ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef
    return {
        node.name: (ast.get_docstring(node) or "").split("\n")[0]
        for node in tree.body
        if isinstance(node, kinds)
    }


def module_section(path: Path) -> str:
    """Markdown about one module, empty where nothing is public."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    names, lines = public_names(tree), first_lines(tree)
    if not names:
        return ""
    module = ".".join(path.relative_to(ROOT).with_suffix("").parts)
    about = (ast.get_docstring(tree) or "").split("\n")[0]
    rows = "\n".join(f"- `{name}`: {lines.get(name, 'constant.')}" for name in names)
    return f"\n## `{module}`\n\n{about}\n\n{rows}\n"


def main() -> None:
    """Write the file."""
    parts = []
    for part in ORDER:
        single = ROOT / "stepjax" / f"{part}.py"
        found = [single] if single.exists() else (ROOT / "stepjax" / part).rglob("*.py")
        found = [path for path in found if "inside" not in path.parts]
        parts += [module_section(path) for path in sorted(found)]
    text = HEAD + "".join(parts)
    (ROOT / "docs" / "api.md").write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
