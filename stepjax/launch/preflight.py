"""What every process must agree on before anything heavy starts."""

import dataclasses
import hashlib
import importlib.metadata
import json
import os
import platform
import socket
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

__all__ = ["Facts", "difference", "gather_facts"]

PACKAGES = ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "numpy", "libtpu")
"""Packages whose version decides what is compiled and what is written."""

_SHOWN = 3  # differences named in a message


@dataclasses.dataclass(frozen=True, kw_only=True)
class Facts:
    """What one process knows of itself.

    Attributes:
      host: Name of its host.
      folder: Where its source code lies.
      commit: Git commit of that folder, "" if there is none.
      python: Version of Python, "3.12".
      packages: Version of each installed package that matters.
      source: Digest of each source file, by its path in `folder`.
      settings: Flags of the run that must agree, by name.
    """

    host: str
    folder: str
    commit: str
    python: str
    packages: Mapping[str, str]
    source: Mapping[str, str]
    settings: Mapping[str, Any]

    def to_json(self) -> bytes:
        """The facts as JSON; `from_json` reads them."""
        return json.dumps(dataclasses.asdict(self), default=str).encode()

    @classmethod
    def from_json(cls, text: bytes) -> "Facts":
        """Facts that another process wrote.

        Raises:
          ValueError: If the text holds anything else.
        """
        try:
            facts = cls(**json.loads(text))
            for name in ("packages", "source", "settings"):
                dict(getattr(facts, name))
        except (TypeError, ValueError) as error:
            raise ValueError(f"not the facts of a process: {error}") from error
        return facts


def gather_facts(
    settings: Mapping[str, Any] | None = None, *, folders: Sequence[Path] = ()
) -> Facts:
    """The facts of this process.

    Args:
      settings: Flags of the run that must agree on all processes, by name.
      folders: Further folders whose Python files must agree, beside the package.

    Returns:
      The facts; reading and hashing the sources takes milliseconds.
    """
    package = Path(__file__).resolve().parents[1]
    root = package.parent
    source = {
        os.path.relpath(path, root): _digest(path)
        for folder in (package, *folders)
        for path in sorted(Path(folder).resolve().rglob("*.py"))
    }
    return Facts(
        host=socket.gethostname(),
        folder=str(root),
        commit=_commit(root),
        python=".".join(platform.python_version_tuple()[:2]),
        packages={name: version for name in PACKAGES if (version := _version(name))},
        source=source,
        settings=json.loads(json.dumps(dict(settings or {}), default=str)),
    )


def difference(first: Facts, other: Facts, process_id: int) -> str | None:
    """What keeps a process from running with process 0, and how to mend it.

    Args:
      first: Facts of process 0.
      other: Facts of the other process.
      process_id: Its number.

    Returns:
      One line that names the process, the difference and the fix; None if all agree.
    """
    here, there = f"process 0 ({first.host})", f"process {process_id} ({other.host})"
    if other.python != first.python:
        return (
            f"{there} runs Python {other.python}, {here} Python {first.python}; make "
            f"its environment again with: python{first.python} -m venv"
        )
    for name in PACKAGES:
        mine, its = first.packages.get(name), other.packages.get(name)
        if mine != its:
            fix = f"pip install {name}=={mine}" if mine else f"pip uninstall {name}"
            return (
                f"{there} has {name} {its or 'not installed'}, {here} has "
                f"{mine or 'not'}; on {other.host} run: {fix}"
            )
    if other.source != first.source:
        fix = (
            f"git -C {other.folder} checkout {first.commit}"
            if first.commit and first.commit != other.commit
            else f"rsync -a {first.host}:{first.folder}/ {other.folder}/"
        )
        if (other.host, other.folder) == (first.host, first.folder):
            fix = "nothing: the files were changed meanwhile, start all again"
        files = _differing(first.source, other.source)
        return (
            f"{there} has other source code than {here} ({_some(files)}); on "
            f"{other.host} run: {fix}"
        )
    names = _differing(first.settings, other.settings)
    if names:
        parts = [
            f"{_flag(name)} {other.settings.get(name)} instead of "
            f"{first.settings.get(name)}"
            for name in names
        ]
        return (
            f"{there} was started with other settings than {here} ({_some(parts)}); "
            "start every process with the same flags"
        )
    return None


def _flag(name: str) -> str:
    return "--" + name.replace("_", "-")


def _differing(first: Mapping[str, Any], other: Mapping[str, Any]) -> list[str]:
    return [
        name
        for name in sorted(first.keys() | other.keys())
        if first.get(name) != other.get(name)
    ]


def _some(names: Sequence[str]) -> str:
    more = len(names) - _SHOWN
    shown = ", ".join(names[:_SHOWN])
    return f"{shown} and {more} more" if more > 0 else shown


def _digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()[:12]


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def _commit(folder: Path) -> str:
    if not (folder / ".git").exists():
        return ""
    command = ["git", "-C", str(folder), "rev-parse", "HEAD"]
    try:
        said = subprocess.run(command, capture_output=True, text=True, timeout=10)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return said.stdout.strip() if said.returncode == 0 else ""
