"""What a run learned, as a Hugging Face folder: `python -m experiments.export`.

The run folder is only read: it is not locked, so a run that goes on in it may be
exported too, and nothing in it is made, renamed or removed.
"""

import argparse
import contextlib
import dataclasses
import json
import logging
import os
import sys
import tempfile
import time
import typing
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from experiments.config import AlgoConfig, ExperimentConfig, MeshConfig
from experiments.errors import RunError, UsageError, as_usage_error

__all__ = ["Exported", "export_run", "main", "read_settings"]

_PROGRAM = "python -m experiments.export"
_DTYPES = ("bfloat16", "float32", "float16")
_EXHAUSTED = "RESOURCE_EXHAUSTED"  # what jax says of a full device


@dataclasses.dataclass(frozen=True, kw_only=True)
class Exported:
    """What `export_run` wrote.

    Attributes:
      folder: Where to.
      round: Of the checkpoint.
      num_bytes: Of all weights.
      skipped: Newer checkpoints that cannot be read, newest first, each with a reason.
    """

    folder: Path
    round: int
    num_bytes: int
    skipped: list[tuple[int, str]]


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit code: 2 for wrong usage, 1 if the weights could not be read or written."""
    began = time.perf_counter()
    try:
        asked = _parser().parse_args(arguments)
        made = export_run(
            asked.run_dir, asked.folder, number=asked.round, dtype=asked.dtype
        )
    except (UsageError, RunError) as error:
        print(f"{_PROGRAM}: {error}", file=sys.stderr)
        return error.exit_code
    for number, reason in made.skipped:
        print(
            f"{_PROGRAM}: checkpoint {number} is damaged ({reason}); took the one "
            f"of round {made.round}",
            file=sys.stderr,
        )
    print(
        f"{made.folder}: round {made.round}, {made.num_bytes / 1e9:.3g} GB in "
        f"{asked.dtype}, {time.perf_counter() - began:.1f} s"
    )
    return 0


def export_run(
    run_dir: Path | str,
    folder: Path | str,
    *,
    number: int | None = None,
    dtype: str = "bfloat16",
) -> Exported:
    """What was written: the weights of a run and the other files of its model.

    The whole state is restored, on all devices that there are.

    Args:
      run_dir: A run folder of the policy qwen-vl; the run may still be going on.
      folder: Where to; not there yet, or empty.
      number: Round of the checkpoint; the newest whole one by default.
      dtype: "bfloat16", "float32" or "float16".

    Raises:
      UsageError: If there is nothing to export, or no place for it.
      RunError: If the weights cannot be read or written.
    """
    run_dir = Path(run_dir).expanduser().absolute()
    target = Path(folder).expanduser().resolve()
    with _failures():
        config = read_settings(run_dir)
        source = _source(config, run_dir)
        rounds = _chosen(run_dir, number)
        _check_target(target, run_dir)
        policy = _policy(config)
        like = _like(config, policy, run_dir)
        params, last, skipped = _restore(run_dir, rounds, like)
        with as_usage_error(FileExistsError, ImportError):
            from stepjax.models.qwen_vl.export import save_params

            save_params(
                target,
                params,
                policy.model.config,
                source=source,
                dtype=dtype,
                lora=policy.model.setup.lora,
            )
        weights = target.glob("*.safetensors")
        return Exported(
            folder=target,
            round=last,
            num_bytes=sum(path.stat().st_size for path in weights),
            skipped=skipped,
        )


def read_settings(run_dir: Path) -> ExperimentConfig:
    """The settings of a run, from its folder.

    Args:
      run_dir: The run folder.

    Raises:
      UsageError: If it is none, or its settings are damaged or of another version.
    """
    path = run_dir / "config.json"
    if not path.is_file():
        what = "holds no run (no config.json)" if run_dir.is_dir() else "is not there"
        raise UsageError(f"{run_dir} {what}; give the folder that --run-dir named.")
    with as_usage_error(OSError):
        text = path.read_bytes()
    try:
        return _settings(ExperimentConfig, json.loads(text))
    except (ValueError, TypeError) as error:
        said = " ".join(str(error).split())
        raise UsageError(f"{path} cannot be used: {said}") from error


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog=_PROGRAM,
        allow_abbrev=False,
        description="Write the weights of a run with --policy qwen-vl as a Hugging "
        "Face folder, which transformers, vLLM and SGLang load. The run may be "
        "finished, interrupted or still going on; its folder is only read.",
        epilog="The whole state is read, parameters and optimizer, onto all devices "
        "that there are. Where it does not fit, JAX_PLATFORMS=cpu before the command "
        "takes the host's memory.",
    )
    parser.add_argument("run_dir", type=Path, help="the folder that --run-dir named")
    parser.add_argument("folder", type=Path, help="where to; not there yet, or empty")
    parser.add_argument(
        "--round",
        type=int,
        metavar="N",
        help="round of the checkpoint; default: the newest whole one",
    )
    parser.add_argument(
        "--dtype", choices=_DTYPES, default="bfloat16", help="default: %(default)s"
    )
    # argparse would print its usage over several lines.
    parser.error = _fail
    return parser


def _fail(message: str) -> Any:
    raise UsageError(message)


# --- The run folder -------------------------------------------------------------------


def _settings(kind: Any, stored: Any, prefix: str = "") -> Any:
    """Settings as `json.dumps` of `dataclasses.asdict` left them, in their own types.

    A setting that did not exist yet had its present default's meaning.
    """
    if not isinstance(stored, Mapping):
        raise ValueError(f"{prefix.rstrip('.') or 'it'} must be a JSON object.")
    types = typing.get_type_hints(kind)
    unknown = sorted(set(stored) - {field.name for field in dataclasses.fields(kind)})
    if unknown:
        raise ValueError(f"this version has no setting {prefix}{unknown[0]}.")
    return kind(
        **{
            name: _settings(types[name], value, f"{prefix}{name}.")
            if dataclasses.is_dataclass(types[name])
            else _setting(types[name], value)
            for name, value in stored.items()
        }
    )


def _setting(kind: Any, value: Any) -> Any:
    if isinstance(value, list):
        return tuple(value)
    is_path = Path in (kind, *typing.get_args(kind))
    return Path(value) if is_path and isinstance(value, str) else value


def _source(config: ExperimentConfig, run_dir: Path) -> Path:
    """The folder of the model that the run started from."""
    checkpoint = config.policy.checkpoint
    if config.policy.name != "qwen-vl" or checkpoint is None:
        raise UsageError(
            f"{run_dir} is a run of the policy {config.policy.name}, which is no "
            "Hugging Face model; only those of --policy qwen-vl can be exported."
        )
    source = checkpoint.expanduser()
    if not source.is_dir():
        fix = "put it back"
        if not source.is_absolute():
            fix = "run this where the run was started"
        raise UsageError(
            f"policy.checkpoint {checkpoint} of the run is not there, and the "
            f"tokenizer and other files come from it; {fix}."
        )
    return source


def _chosen(run_dir: Path, number: int | None) -> list[int]:
    """Rounds whose checkpoint may be taken."""
    root = run_dir / "checkpoints"
    paths = root.iterdir() if root.is_dir() else ()
    rounds = sorted(int(path.name) for path in paths if path.name.isdecimal())
    if not rounds:
        raise UsageError(f"{run_dir} holds no checkpoint yet.")
    if number is None:
        return rounds
    if number not in rounds:
        raise UsageError(
            f"{run_dir} has no checkpoint of round {number}; there are those of "
            f"{', '.join(map(str, rounds))}."
        )
    return [number]


def _check_target(target: Path, run_dir: Path) -> None:
    """`save_params` looks again, but only after the minutes that reading may take."""
    if target.is_relative_to((run_dir / "checkpoints").resolve()):
        raise UsageError(f"{target} is among the run's checkpoints; choose another.")
    with as_usage_error(OSError):
        if target.exists() and not (target.is_dir() and not any(target.iterdir())):
            raise UsageError(
                f"{target} is there already; remove it or choose another place."
            )
    above = next(path for path in target.parents if path.exists())
    if not (above.is_dir() and os.access(above, os.W_OK | os.X_OK)):
        raise UsageError(f"{above} cannot be written; choose another place.")


@contextlib.contextmanager
def _links(checkpoints: Path, rounds: Sequence[int]) -> Iterator[Path]:
    """A folder that looks like `checkpoints` but is ours.

    Opening checkpoints removes half-written ones, and restoring sets damaged ones
    aside. Here that costs links only.
    """
    with tempfile.TemporaryDirectory(prefix="stepjax-export-") as name:
        folder = Path(name).resolve()
        for number in rounds:
            (folder / str(number)).symlink_to(checkpoints / str(number))
        yield folder


# --- Weights --------------------------------------------------------------------------


def _policy(config: ExperimentConfig) -> Any:
    """The policy, without what only acting needs: a server, an opening of prompts."""
    from experiments.backends import make_policy

    policy = dataclasses.replace(
        config.policy, server=None, wording=None, prompt_tokens=None
    )
    return make_policy(policy, config.env.backend, config.env)


def _like(config: ExperimentConfig, policy: Any, run_dir: Path) -> Any:
    """Shapes of the run's state, and places of it on the devices that there are."""
    import jax
    import numpy as np

    from experiments.learner import make_learner

    path = run_dir / "tasks.json"
    try:
        split = json.loads(path.read_bytes())["split"]
        train_ids = np.flatnonzero(np.array(split) == "train")
    except (OSError, ValueError, LookupError, TypeError) as error:
        raise UsageError(f"{path} cannot be used: {error}") from error

    def learner(mesh: MeshConfig) -> Any:
        # How much a round draws is no matter here, and has to fit this many devices.
        algo = AlgoConfig(tasks_per_round=1, rows_per_update=jax.device_count())
        return make_learner(
            dataclasses.replace(config, algo=algo, mesh=mesh),
            policy,
            None,
            num_tasks=len(split),
            train_ids=train_ids,
        )

    try:
        return learner(MeshConfig(data=1, fsdp=-1)).like
    except UsageError:  # so many devices do not divide the model; each holds all of it
        return learner(MeshConfig(data=-1)).like


def _restore(
    run_dir: Path, rounds: Sequence[int], like: Any
) -> tuple[Any, int, list[tuple[int, str]]]:
    """Parameters of the newest whole checkpoint, its round, and newer damaged ones."""
    from stepjax.training.checkpoint import (
        CheckpointError,
        open_checkpoints,
        restore_checkpoint,
    )

    checkpoints = run_dir / "checkpoints"
    with _links(checkpoints, rounds) as links:

        def named(text: str) -> str:
            return text.replace(str(links), str(checkpoints))

        found: Any = None
        reason = ""
        try:
            with open_checkpoints(links, max_to_keep=1) as manager:
                found = restore_checkpoint(manager, like)
        except CheckpointError as error:
            reason = named(str(error))
        except ValueError as error:
            if _EXHAUSTED in str(error):
                raise
            said = str(error).partition(";")[0]
            raise UsageError(
                f"{said}, by its settings and policy.checkpoint; is another model in "
                "that folder by now?"
            ) from error
        if found is None and not all(link.exists() for link in links.iterdir()):
            reason = (
                f"{run_dir} goes on, and its checkpoints were replaced while they were "
                "read; run this again."
            )
        if found is None:
            raise RunError(reason)
        skipped = [(number, named(reason)) for number, reason in found.skipped]
        return found.state.params, found.step, skipped


@contextlib.contextmanager
def _failures() -> Iterator[None]:
    """A block in which a full disk or memory ends the command in one line."""
    try:
        yield
    except OSError as error:
        raise RunError(" ".join(str(error).split())) from error
    except Exception as error:  # orbax and jax raise several kinds
        if not (isinstance(error, MemoryError) or _EXHAUSTED in str(error)):
            raise
        raise RunError(
            "the state does not fit into the memory of the devices; put "
            "JAX_PLATFORMS=cpu before the command to use the host's."
        ) from error


def _hush() -> None:
    """Keep a damaged checkpoint to one line; every array of it would tell, too.

    For a process that only exports: reads in flight may fail at any later time.
    """
    sys.unraisablehook = lambda unraisable: None
    logging.getLogger("asyncio").setLevel(logging.CRITICAL + 1)


if __name__ == "__main__":
    _hush()
    sys.exit(main())
