"""Tasks in the picture editor."""

import io

import numpy as np

from stepjax.envs.actions import Action, ActionKind
from stepjax.envs.desktop.tasks.bundled.parts import (
    DONE,
    ENTER,
    HOME,
    Draft,
    check,
    draw_words,
    keys,
    launch,
    maximized,
    put,
    type_text,
)

__all__ = ["TASKS"]

_COLORS = ((200, 40, 40), (40, 160, 60), (40, 80, 200), (220, 180, 40))
_WIDTH, _HEIGHT = 320, 200
_PAUSE = Action(kind=ActionKind.WAIT, amount=1.5)
_EXPORT = (keys("ctrl shift e"), _PAUSE)


def _opened(rng: np.random.Generator) -> tuple[str, list[dict], list]:
    """Name of a picture of two halves, steps that open it, and its two colors."""
    from PIL import Image

    (name,) = draw_words(rng, 1)
    colors = [_COLORS[int(index)] for index in rng.permutation(len(_COLORS))[:2]]
    picture = Image.new("RGB", (_WIDTH, _HEIGHT), colors[0])
    picture.paste(colors[1], (_WIDTH // 2, 0, _WIDTH, _HEIGHT))
    file = io.BytesIO()
    picture.save(file, "PNG")
    path = f"{HOME}/Desktop/{name}.png"
    steps = [
        put(path, file.getvalue()),
        launch("gimp", "--no-splash", path),
        *maximized(f"[{name}]"),
    ]
    return name, steps, colors


def _other(rng: np.random.Generator, name: str) -> str:
    """A word other than the picture's name."""
    first, second = draw_words(rng, 2)
    return second if first == name else first


def _export(rng: np.random.Generator) -> Draft:
    name, steps, (left, right) = _opened(rng)
    kind = ("jpg", "bmp")[int(rng.integers(2))]
    new = f"{_other(rng, name)}.{kind}"
    half = _WIDTH // 2
    areas = [
        [4, 4, half - 4, _HEIGHT - 4, list(left)],
        [half + 4, 4, _WIDTH - 4, _HEIGHT - 4, list(right)],
    ]
    result = {"type": "vm_file", "path": f"{HOME}/Desktop/{new}"}
    save = (keys("ctrl a"), type_text(new), ENTER, _PAUSE)
    return Draft(
        instruction=f'Export the picture as "{new}" (ctrl+shift+e).',
        config=steps,
        evaluator=check(
            "match_picture",
            result,
            size=[_WIDTH, _HEIGHT],
            areas=areas,
            format={"jpg": "JPEG", "bmp": "BMP"}[kind],
        ),
        oracle=(*_EXPORT, *save, ENTER, DONE),
        wrong=(*_EXPORT, *save, keys("escape"), DONE),
    )


def _fill(rng: np.random.Generator) -> Draft:
    name, steps, _ = _opened(rng)
    new = f"{_other(rng, name)}.bmp"
    black = bool(rng.integers(2))
    key = {True: "ctrl ,", False: "ctrl ."}
    result = {"type": "vm_file", "path": f"{HOME}/Desktop/{new}"}

    def script(dark: bool) -> tuple:
        name = (keys("ctrl a"), type_text(new), ENTER, _PAUSE)
        return (keys(key[dark]), *_EXPORT, *name, ENTER, DONE)

    return Draft(
        instruction=(
            f"Fill the whole picture with {'black' if black else 'white'} "
            f'({key[black].replace(" ", "+")}), then export it as "{new}".'
        ),
        config=steps,
        evaluator=check(
            "match_picture",
            result,
            size=[_WIDTH, _HEIGHT],
            color=[0, 0, 0] if black else [255, 255, 255],
            format="BMP",
        ),
        oracle=script(black),
        wrong=script(not black),
    )


TASKS = {"gimp-export": _export, "gimp-fill": _fill}
"""Makers of variations by task name."""
