"""Tasks in the file manager."""

from collections.abc import Sequence

import numpy as np

from stepjax.envs.desktop.tasks.bundled.parts import (
    DONE,
    ENTER,
    FAIL,
    HOME,
    INFEASIBLE,
    Draft,
    at,
    check,
    double,
    draw_words,
    keys,
    launch,
    listing,
    put,
    run,
    type_text,
    window,
)

__all__ = ["TASKS"]

_BOX = f"{HOME}/box"
_NAMES = ("apple", "banana", "cherry", "grape", "lemon", "mango", "peach", "plum")
_NUM_COLUMNS = 6


def _opened(folders: Sequence[str], files: Sequence[str] = ()) -> list[dict]:
    """Setup steps: a folder with folders and files in it, seen in the file manager."""
    steps = [run("mkdir", "-p", _BOX, *(f"{_BOX}/{name}" for name in folders))]
    steps += [put(f"{_BOX}/{name}", f"{name}\n") for name in files]
    return [*steps, launch("pcmanfm", _BOX), window("box")]


def _icon(index: int) -> tuple[int, int]:
    """Where the icon of that rank stands: folders come first, each by name."""
    row, column = divmod(index, _NUM_COLUMNS)
    return 456 + 94 * column, 225 + 73 * row


def _open(rng: np.random.Generator) -> Draft:
    target = int(rng.integers(len(_NAMES)))
    other = (target + 1 + int(rng.integers(len(_NAMES) - 1))) % len(_NAMES)
    return Draft(
        instruction=f'Open the folder "{_NAMES[target]}" with a double click.',
        config=_opened(_NAMES),
        evaluator=check(
            "match_windows", {"type": "vm_windows"}, include=_NAMES[target]
        ),
        oracle=(double(*_icon(target)), DONE),
        wrong=(double(*_icon(other)), DONE),
    )


def _delete(rng: np.random.Generator) -> Draft:
    files = [f"{name}.txt" for name in _NAMES]
    target = int(rng.integers(len(files)))
    rest = (keys("delete"), ENTER, DONE)
    return Draft(
        instruction=f'Delete the file "{files[target]}" and confirm it.',
        config=_opened((), files),
        evaluator=listing(_BOX, [name for name in files if name != files[target]]),
        oracle=(at(*_icon(target)), *rest),
        wrong=(at(*_icon((target + 1) % len(files))), *rest),
    )


def _missing(rng: np.random.Generator) -> Draft:
    (name,) = draw_words(rng, 1)
    files = [f"{name}.txt" for name in _NAMES[: 2 + int(rng.integers(6))]]
    return Draft(
        instruction=f'Delete the file "{name}.txt" and confirm it.',
        config=_opened((), files),
        evaluator=INFEASIBLE,
        oracle=(FAIL,),
        wrong=(at(*_icon(0)), keys("delete"), ENTER, DONE),
    )


def _rename(rng: np.random.Generator) -> Draft:
    (new,) = draw_words(rng, 1)
    target = int(rng.integers(len(_NAMES)))
    rest = (keys("f2"), type_text(new), ENTER, DONE)
    left = [name for name in _NAMES if name != _NAMES[target]]
    return Draft(
        instruction=f'Rename the folder "{_NAMES[target]}" to "{new}" with f2.',
        config=_opened(_NAMES),
        evaluator=listing(_BOX, dict.fromkeys([*left, new], "folder")),
        oracle=(at(*_icon(target)), *rest),
        wrong=(at(*_icon((target + 1) % len(_NAMES))), *rest),
    )


def _new_folder(rng: np.random.Generator) -> Draft:
    (new,) = draw_words(rng, 1)
    have = _NAMES[: int(rng.integers(len(_NAMES)))]
    return Draft(
        instruction=f'Make a new folder called "{new}" here (ctrl+shift+n).',
        config=_opened(have),
        evaluator=listing(_BOX, dict.fromkeys([*have, new], "folder")),
        oracle=(keys("ctrl shift n"), type_text(new), ENTER, DONE),
        wrong=(keys("ctrl shift n"), ENTER, DONE),
    )


def _into_folder(rng: np.random.Generator, *, cut: bool) -> Draft:
    """A file is copied, or moved, into a folder."""
    num_folders = 2 + int(rng.integers(4))
    folders = _NAMES[:num_folders]
    files = [f"{word}.txt" for word in sorted(draw_words(rng, 3))]
    folder, file = int(rng.integers(num_folders)), int(rng.integers(len(files)))
    entries = dict.fromkeys(folders, "folder") | dict.fromkeys(files, "file")
    entries[f"{folders[folder]}/{files[file]}"] = "file"
    if cut:
        del entries[files[file]]

    def script(into: int) -> tuple:
        take = keys("ctrl x" if cut else "ctrl c")
        pick, enter = at(*_icon(num_folders + file)), double(*_icon(into))
        return pick, take, enter, keys("ctrl v"), DONE

    verb = "Move" if cut else "Copy"
    return Draft(
        instruction=f'{verb} the file "{files[file]}" into "{folders[folder]}".',
        config=_opened(folders, files),
        evaluator=listing(_BOX, entries),
        oracle=script(folder),
        wrong=script((folder + 1) % num_folders),
    )


def _copy(rng: np.random.Generator) -> Draft:
    return _into_folder(rng, cut=False)


def _move(rng: np.random.Generator) -> Draft:
    return _into_folder(rng, cut=True)


TASKS = {
    "files-open": _open,
    "files-delete": _delete,
    "files-missing": _missing,
    "files-rename": _rename,
    "files-new-folder": _new_folder,
    "files-copy": _copy,
    "files-move": _move,
}
"""Makers of variations by task name."""
