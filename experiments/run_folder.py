"""The run folder: what a run leaves on disk, safe against kills at any moment.

    config.json      settings                     checkpoints/   state, by round
    metrics.jsonl    one line a round             tasks.json     names, domains, split
    tasks.jsonl      who was tried, who succeeded warnings.jsonl what was warned about
    result.json      how the run ended            start_params.npz  before round 1
    run.lock         held while it runs

Whole files are replaced in one step. Lines are appended and flushed; a half-written
last line, or lines of rounds that will be run again, are cut when a run goes on.
"""

import dataclasses
import fcntl
import io
import json
import math
import os
import zipfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np

from experiments.config import ExperimentConfig
from experiments.errors import UsageError

__all__ = ["NOT_COMPARED", "RunFolder"]

_NARROW = ":bfloat16"  # ends the name of an array that is kept as bits

NOT_COMPARED = (
    "run_dir",
    "resume",
    "env.chromium",
    "env.num_envs",
    "env.serials",
    "env.url",
    "launch",
    "mesh",
    "policy.server_folder",
    "policy.server_kind",
    "policy.server_model",
    "policy.slots",
    "warm_start.cache_dir",
)
"""Settings that may change when a run goes on: where it runs, not what it computes."""

_COMPARED_IF_SET = ("policy.server",)
"""Addresses that may change, but not come or go: with a server the loss is another."""

_LINE_FILES = ("metrics.jsonl", "tasks.jsonl", "warnings.jsonl")
_LOCK = "run.lock"
_PARTIAL = ".partial"


class RunFolder:
    """An open run folder that no other process can open.

    Attributes:
      path: The folder.
      checkpoints: Folder for the checkpoints in it.
      resuming: True if it already held this run.
    """

    def __init__(self, config: ExperimentConfig):
        """The folder `config.run_dir`, made if missing and locked until `close`.

        Raises:
          UsageError: If it cannot be written, is in use, holds something else, or holds
            a run with other settings; the text says what to do.
        """
        self.path = Path(config.run_dir).expanduser().absolute()
        self.checkpoints = self.path / "checkpoints"
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            self._lock = os.open(self.path / _LOCK, os.O_RDWR | os.O_CREAT, 0o644)
        except OSError as error:
            raise UsageError(
                f"run folder {self.path} cannot be written ({error.strerror}); "
                "choose another --run-dir."
            ) from error
        try:
            self._take_lock()
            self.resuming = self._check(config)
            self._write_json("config.json", dataclasses.asdict(config))
        except OSError as error:
            self.close()
            raise UsageError(
                f"run folder {self.path} cannot be written ({error.strerror}); "
                "choose another --run-dir."
            ) from error
        except UsageError:
            self.close()
            raise

    def keep_rounds(self, last_round: int) -> None:
        """Cut every line of a later round than `last_round`, and any broken last line.

        Args:
          last_round: Round of the restored checkpoint; -1 cuts all.

        Raises:
          UsageError: If a line that is not the last is broken.
        """
        for name in _LINE_FILES:
            path = self.path / name
            if not path.exists():
                continue
            rows = self._read_lines(path)
            kept = [row for row in rows if row["round"] <= last_round]
            self._replace(name, "".join(_line(row) for row in kept).encode())
        (self.path / "result.json").unlink(missing_ok=True)

    def log_metrics(self, row: Mapping[str, float]) -> None:
        """Append a round's line to `metrics.jsonl`; non-finite numbers are left out."""
        finite = {name: value for name, value in row.items() if math.isfinite(value)}
        self._append("metrics.jsonl", finite)

    def log_tasks(self, row: Mapping[str, Any]) -> None:
        """Append a line to `tasks.jsonl`; it must hold `round`."""
        self._append("tasks.jsonl", row)

    def log_warning(self, round_number: int, text: str) -> None:
        """Append a warning to `warnings.jsonl`."""
        self._append("warnings.jsonl", {"round": round_number, "message": text})

    def write_task_table(self, table: Mapping[str, Any]) -> None:
        """Write `tasks.json`: what the task ids of the other files mean."""
        self._write_json("tasks.json", table)

    def write_result(self, result: Mapping[str, Any]) -> None:
        """Write `result.json`; its presence tells how the last run ended."""
        self._write_json("result.json", result)

    def write_params(self, params: Mapping[str, Any]) -> None:
        """Write `start_params.npz`: a nested dictionary of arrays, uncompressed."""
        content = io.BytesIO()
        arrays: dict[str, Any] = dict(
            _storable(*item) for item in _flatten("", params, "/")
        )
        np.savez(content, **arrays)
        self._replace("start_params.npz", content.getvalue())

    def read_params(self) -> dict[str, Any] | None:
        """What `write_params` wrote, None if it never did.

        Raises:
          UsageError: If the file is damaged.
        """
        path = self.path / "start_params.npz"
        if not path.exists():
            return None
        tree: dict[str, Any] = {}
        try:
            with np.load(path, allow_pickle=False) as arrays:
                for name in arrays.files:
                    *parents, leaf = name.split("/")
                    branch = tree
                    for parent in parents:
                        branch = branch.setdefault(parent, {})
                    stored = arrays[name]
                    if leaf.endswith(_NARROW):
                        stored = stored.view(ml_dtypes.bfloat16)
                    branch[leaf.removesuffix(_NARROW)] = stored
        except (OSError, ValueError, zipfile.BadZipFile) as error:
            raise UsageError(
                f"{path} is damaged ({error}); choose another --run-dir or delete the "
                "folder."
            ) from error
        return tree

    def last_evaluation(self) -> dict[str, float]:
        """`round` and `eval/...` of the latest evaluation, {} if there is none."""
        path = self.path / "metrics.jsonl"
        rows = self._read_lines(path) if path.exists() else []
        for row in reversed(rows):
            found = {name: row[name] for name in row if name.startswith("eval/")}
            if found:
                return {"round": row["round"], **found}
        return {}

    def close(self) -> None:
        """Let other processes have the folder; may be called twice."""
        if self._lock >= 0:
            os.close(self._lock)
            self._lock = -1

    def _take_lock(self) -> None:
        # The kernel lets go of the lock when its holder dies, however it dies.
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = os.pread(self._lock, 20, 0).decode(errors="replace").strip()
            raise UsageError(
                f"run folder {self.path} is in use by process {holder}; wait for it, "
                "stop it, or choose another --run-dir."
            ) from None
        os.ftruncate(self._lock, 0)
        os.pwrite(self._lock, f"{os.getpid()}\n".encode(), 0)

    def _check(self, config: ExperimentConfig) -> bool:
        path = self.path / "config.json"
        if not path.exists():
            others = sorted(
                item.name
                for item in self.path.iterdir()
                if item.name != _LOCK and not item.name.endswith(_PARTIAL)
            )
            if others:
                raise UsageError(
                    f"run folder {self.path} holds {others[0]} but no config.json, so "
                    "it is no run to go on with; choose another --run-dir or empty it."
                )
            return False
        if not config.resume:
            raise UsageError(
                f"run folder {self.path} already holds a run; drop --no-resume to go "
                "on with it, or choose another --run-dir."
            )
        differing = _differences(self._read_config(path), config)
        if differing:
            raise UsageError(
                f"run folder {self.path} holds a run with other settings "
                f"({'; '.join(differing)}); choose another --run-dir, or repeat the "
                "old settings to go on with it."
            )
        return True

    def _read_config(self, path: Path) -> dict[str, Any]:
        try:
            stored = json.loads(path.read_text(encoding="utf-8"))
            if not isinstance(stored, dict):
                raise ValueError("not a JSON object")
        except ValueError as error:
            raise UsageError(
                f"{path} is damaged ({error}); choose another --run-dir or delete the "
                "folder."
            ) from error
        return stored

    def _read_lines(self, path: Path) -> list[dict[str, Any]]:
        lines = path.read_bytes().split(b"\n")
        whole, rows = lines[:-1], []  # what follows the last line break is unfinished
        for number, line in enumerate(whole, start=1):
            try:
                row = json.loads(line)
                row["round"] = int(row["round"])
            except (ValueError, KeyError, TypeError) as error:
                if number == len(whole):
                    break
                raise UsageError(
                    f"{path}, line {number} is damaged ({error}); choose another "
                    "--run-dir or delete the folder."
                ) from error
            rows.append(row)
        return rows

    def _append(self, name: str, row: Mapping[str, Any]) -> None:
        with open(self.path / name, "a", encoding="utf-8") as file:
            file.write(_line(row))

    def _write_json(self, name: str, content: Mapping[str, Any]) -> None:
        text = json.dumps(content, indent=2, default=str) + "\n"
        self._replace(name, text.encode())

    def _replace(self, name: str, content: bytes) -> None:
        partial = self.path / (name + _PARTIAL)
        partial.write_bytes(content)
        os.replace(partial, self.path / name)


def _line(row: Mapping[str, Any]) -> str:
    return json.dumps(row, allow_nan=False) + "\n"


def _differences(stored: Mapping[str, Any], config: ExperimentConfig) -> list[str]:
    # A setting that did not exist yet had its present default's meaning.
    plain = dataclasses.asdict(ExperimentConfig())
    old = dict(_flatten("", json.loads(json.dumps(plain, default=str))))
    old |= dict(_flatten("", stored))
    fresh = json.loads(json.dumps(dataclasses.asdict(config), default=str))
    new = dict(_flatten("", fresh))

    def alike(name: str) -> bool:
        one, two = old.get(name, _ABSENT), new.get(name, _ABSENT)
        if name in _COMPARED_IF_SET:
            return (one is None) == (two is None)
        return one == two

    return [
        f"{name}: {_shown(old, name)} -> {_shown(new, name)}"
        for name in sorted(old.keys() | new.keys())
        if not alike(name)
        and not any(
            name == skip or name.startswith(skip + ".") for skip in NOT_COMPARED
        )
    ]


_ABSENT = object()


def _shown(flat: Mapping[str, Any], name: str) -> str:
    return str(flat[name]) if name in flat else "(no such setting)"


def _storable(name: str, array: Any) -> tuple[str, np.ndarray]:
    """What numpy's files have no type for goes as bits, and its name says so."""
    found = np.asarray(array)
    if found.dtype != ml_dtypes.bfloat16:
        return name, found
    return name + _NARROW, found.view(np.uint16)


def _flatten(
    prefix: str, tree: Mapping[str, Any], separator: str = "."
) -> Iterable[tuple[str, Any]]:
    for name, value in tree.items():
        if isinstance(value, Mapping):
            yield from _flatten(f"{prefix}{name}{separator}", value, separator)
        else:
            yield prefix + name, value
