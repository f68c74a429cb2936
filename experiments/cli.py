"""Command line to configuration: a preset's name, then flags that override it.

Uses tyro, imported here and nowhere else. Whatever a user mistypes ends as one line on
standard error.
"""

import contextlib
import dataclasses
import io
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import NoReturn

from experiments.config import ExperimentConfig, MeshConfig, flat_config
from experiments.errors import RunError, UsageError
from experiments.presets import Preset
from experiments.setting_checks import suggestion

__all__ = ["main", "parse"]

_FRAME = re.compile(r"[─│┌┐└┘├┤╭╮╰╯━┃]+|-{4,}")


def parse(
    program: str, presets: Mapping[str, Preset], args: Sequence[str]
) -> tuple[str, ExperimentConfig]:
    """Name of the chosen preset and the configuration with its overrides.

    Args:
      program: What the user typed, for help: "python -m experiments.osworld".
      presets: Presets by name. Without a name it is the first whose backend is that
        of `--env.backend`, else the first.
      args: Arguments after the program's name.

    Returns:
      The preset's name and the configuration.

    Raises:
      UsageError: If a preset, flag or value is wrong.
      SystemExit: After `--help`, with code 0.
    """
    args = _spelled_out(args)
    if args and not args[0].startswith("-"):
        name = args.pop(0)
    else:
        name = _preset_for(presets, args)
    if name not in presets:
        raise UsageError(f"unknown preset {name!r}; {suggestion(name, tuple(presets))}")
    _check_flags(presets[name].config, args)
    if _asked_for(args, "--policy.name") == "qwen-vl":
        presets = {key: _for_model(one, args) for key, one in presets.items()}
    return name, _parse_flags(program, presets, name, args)


def main(
    program: str,
    presets: Mapping[str, Preset],
    run: Callable[[str, ExperimentConfig], None],
    args: Sequence[str] | None = None,
) -> NoReturn:
    """The whole life of a command: parse, run, exit with the right code.

    Args:
      program: See `parse`.
      presets: See `parse`.
      run: Called with a line about the preset and the configuration.
      args: Arguments; the process's own by default.

    Raises:
      SystemExit: Always. 0 after a run or a saved stop, 2 for wrong usage, 1 for a run
        that failed.
    """
    try:
        name, config = parse(program, presets, sys.argv[1:] if args is None else args)
        run(_about(name, presets[name], config), config)
    except UsageError as error:
        print(f"{program}: {error}", file=sys.stderr)
        sys.exit(2)
    except RunError as error:
        print(f"{program}: {error}", file=sys.stderr)
        sys.exit(1)
    except ImportError as error:
        said = " ".join(str(error).split())
        print(f"{program}: {said}; pip install -e '.[experiments]'", file=sys.stderr)
        sys.exit(2)
    except OSError as error:  # a full disk, a folder that went away
        said = " ".join(str(error).split())
        print(
            f"{program}: {said}. The last checkpoint is whole: mend it and run the "
            "same command again.",
            file=sys.stderr,
        )
        sys.exit(1)
    sys.exit(0)


def _preset_for(presets: Mapping[str, Preset], args: Sequence[str]) -> str:
    """The preset of a command line that names none.

    Sizes that suit one backend are hours or nothing on another.
    """
    asked = _asked_for(args, "--env.backend")
    fitting = [
        name for name, preset in presets.items() if preset.config.env.backend == asked
    ]
    return (fitting or list(presets))[0]


def _asked_for(args: Sequence[str], wanted: str) -> str | None:
    """The value of a flag, its last; None if it is not given."""
    found = None
    for at, arg in enumerate(args):
        flag, _, value = arg.partition("=")
        if flag.replace("_", "-") == wanted:
            found = value or next(iter(args[at + 1 : at + 2]), None)
    return found


def _spelled_out(args: Sequence[str]) -> list[str]:
    """Arguments with `--policy X` as `--policy.name X`."""
    return [
        "--policy.name" + arg[len("--policy") :]
        if arg.partition("=")[0] == "--policy"
        else arg
        for arg in args
    ]


def _for_model(preset: Preset, args: Sequence[str]) -> Preset:
    """A preset for a model that was trained already: no cloning, small updates.

    It may be too large for a device, so all devices share it unless its place is given.
    Adapters bear ten times the learning rate.
    """
    config = preset.config
    placed = any(arg.startswith("--mesh.") for arg in args)
    adapted = _asked_for(args, "--policy.lora-rank") not in (None, "None")
    config = dataclasses.replace(
        config,
        mesh=config.mesh if placed else MeshConfig(data=1, fsdp=-1),
        warm_start=dataclasses.replace(config.warm_start, steps=0),
        optim=dataclasses.replace(
            config.optim, learning_rate=1e-5 if adapted else 1e-6
        ),
    )
    return dataclasses.replace(preset, config=config)


def _about(name: str, preset: Preset, config: ExperimentConfig) -> str:
    about = f"preset {name} ({preset.note})"
    if config.algo.method != preset.config.algo.method:
        about = f"preset {name}, but with the method {config.algo.method}, as asked for"
    return about


def _check_flags(config: ExperimentConfig, args: Sequence[str]) -> None:
    """Names the first flag that does not exist, with the nearest one that does."""
    known = {"--help", "-h"}
    for field in flat_config(config):
        *parents, leaf = field.replace("_", "-").split(".")
        known.add("--" + ".".join([*parents, leaf]))
        known.add("--" + ".".join([*parents, "no-" + leaf]))
    shown = tuple(sorted(flag for flag in known if ".no-" not in flag))
    for arg in args:
        flag = arg.split("=", 1)[0]
        if flag.startswith("--") and flag.replace("_", "-") not in known:
            close = suggestion(flag, shown).split("Known:")[0].strip()
            raise UsageError(f"unknown flag {flag}; {close or 'see --help.'}")


def _parse_flags(
    program: str, presets: Mapping[str, Preset], name: str, args: Sequence[str]
) -> ExperimentConfig:
    import tyro

    notes = "\n\n".join(
        f"Preset {key}: {preset.note}." for key, preset in presets.items()
    )
    said = io.StringIO()
    try:
        with contextlib.redirect_stderr(said):
            return tyro.cli(
                ExperimentConfig,
                prog=f"{program} [{'|'.join(presets)}]",
                description=f"{notes}\n\nDefaults below are those of preset {name}.",
                default=presets[name].config,
                args=list(args),
            )
    except SystemExit as stop:
        if stop.code in (0, None):
            raise
        raise UsageError(_one_line(said.getvalue())) from None


def _one_line(text: str) -> str:
    """A framed message of the parser, as one line without frame, title and help."""
    lines = [_FRAME.sub(" ", line).strip() for line in text.splitlines()]
    whole = " ".join(" ".join(lines).split())
    for rest in (" For full helptext", " Argument helptext:"):
        whole = whole.split(rest)[0]
    found = re.search(r"Error parsing (\S+): (.*)", whole)
    if found is None:
        return whole
    where, what = found.groups()
    return f"{where}: {what}" if where.startswith("--") else what
