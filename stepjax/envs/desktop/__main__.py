"""Commands about desktops: what is missing, which tasks there are, how one looks.

Whatever a user mistypes, and whatever does not work, ends as one line on standard
error: exit code 2 for wrong usage, 1 for something that failed.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

__all__ = ["main"]

_PROGRAM = "python -m stepjax.envs.desktop"


class _Parser(argparse.ArgumentParser):
    """A parser whose complaints are one line."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{_PROGRAM}: {message}; see --help.\n")


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit code of a command line; the process's own by default."""
    options = _parser().parse_args(arguments)
    from stepjax.envs.desktop.sandbox.spec import SandboxError

    try:
        return options.run(options)
    except ValueError as error:
        return _complain(error, 2)
    except ImportError as error:
        return _complain(f"{error}; pip install 'stepjax[desktop]'", 2)
    except (SandboxError, RuntimeError, OSError) as error:
        return _complain(error, 1)
    except KeyboardInterrupt:
        return _complain("interrupted", 130)


def _complain(error: object, code: int) -> int:
    print(f"{_PROGRAM}: {' '.join(str(error).split())}", file=sys.stderr)
    return code


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(prog=_PROGRAM, description="Sandboxed desktops.")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    doctor = commands.add_parser("doctor", help="say why a desktop cannot start here")
    doctor.set_defaults(run=_doctor)
    listing = commands.add_parser("list", help="list the bundled tasks")
    listing.add_argument("--seed", type=int, default=0, help="seed of the instructions")
    listing.set_defaults(run=_list)
    show = commands.add_parser("show", help="set a task up and save a screenshot")
    show.add_argument("task", help="name of a bundled task, or path of a .json file")
    show.add_argument("--seed", type=int, default=0, help="seed of the task")
    show.add_argument("--out", type=Path, help="picture to write (default: TASK.png)")
    show.add_argument(
        "--size", type=_size, default=(1280, 800), help="of the screen, as 1280x800"
    )
    show.add_argument(
        "--cache", type=Path, help="folder with the files that task files download"
    )
    show.add_argument(
        "--vnc", action="store_true", help="serve it on loopback, with a password"
    )
    show.add_argument("--port", type=int, default=0, help="for --vnc; 0 for any")
    show.set_defaults(run=_show)
    from stepjax.envs.desktop.upstream.validate import (
        add_validate_arguments,
        validate_command,
    )

    check = commands.add_parser("validate", help="say which OSWorld tasks can run here")
    add_validate_arguments(check)
    check.set_defaults(run=validate_command)
    return parser


def _size(text: str) -> tuple[int, int]:
    width, _, height = text.partition("x")
    if not (width.isdigit() and height.isdigit()):
        raise argparse.ArgumentTypeError(f"{text!r} is not like 1280x800")
    return int(width), int(height)


def _doctor(options: argparse.Namespace) -> int:
    from stepjax.envs.desktop.doctor import main as examine

    del options
    return examine()


def _list(options: argparse.Namespace) -> int:
    from stepjax.envs.desktop.table import bundled_tasks

    tasks = bundled_tasks()
    unseen = set(tasks.unseen_ids.tolist())
    width = max(len(name) for name in tasks.names)
    for index, name in enumerate(tasks.names):
        split = "unseen" if index in unseen else "train"
        said = " ".join(tasks.instruction(index, options.seed).split())
        print(f"{name:{width}}  {split:6}  {tasks.domains[index]:20}  {said}")
    return 0


def _show(options: argparse.Namespace) -> int:
    from stepjax.envs.desktop.booted import boot_desktop
    from stepjax.envs.desktop.sandbox.spec import SandboxSpec
    from stepjax.envs.desktop.show import find_task, show_task
    from stepjax.envs.desktop.tasks.setup import run_setup

    if options.seed < 0:
        raise ValueError(f"--seed must be >= 0, got {options.seed}.")
    spec = find_task(options.task, options.seed)
    width, height = options.size
    shown = show_task(
        spec,
        lambda needs_root: boot_desktop(
            SandboxSpec(width=width, height=height, needs_root=needs_root)
        ),
        out=options.out or Path(f"{Path(options.task).stem}.png"),
        seed=options.seed,
        vnc_port=options.port if options.vnc else None,
        setup=lambda spec, client: run_setup(spec, client, cache=options.cache),
    )
    print(
        f"{shown.out}: {shown.width} x {shown.height}, ready after "
        f"{shown.seconds:.1f} s. {spec.instruction}"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
