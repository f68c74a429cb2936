"""Tasks in terminals."""

import numpy as np

from stepjax.envs.desktop.tasks.bundled.parts import (
    DONE,
    ENTER,
    FAIL,
    HOME,
    INFEASIBLE,
    Draft,
    at,
    draw_words,
    launch,
    listing,
    put,
    run,
    type_text,
    window,
)

__all__ = ["TASKS"]

_WORK = f"{HOME}/work"
_COLORS = {
    "blue": "#a8ccff", "green": "#b4ecb4", "pink": "#ffc4d8", "yellow": "#fff0a0",
}  # fmt: skip
_ASK = """\
printf 'First word: '
read -r first
printf 'Second word: '
read -r second
printf '%s\\n%s\\n' "$first" "$second" > answers
echo 'Thank you.'
exec bash
"""
_IMPOSSIBLE = (
    "print this window on paper with the terminal",
    "send a fax from the terminal",
    "make the terminal smell of roses",
    "turn the screen around with the terminal",
)


def _terminal(title: str, place: tuple[int, int], folder: str, *more: str) -> dict:
    """Setup step: a terminal at a place, in a folder."""
    geometry = f"60x15+{place[0]}+{place[1]}"
    return launch(
        "env", "-C", folder, "xterm", "-T", title, "-geometry", geometry, *more
    )  # fmt: skip


def _place(rng: np.random.Generator) -> tuple[int, int]:
    return int(rng.integers(40, 640)), int(rng.integers(40, 440))


def _run(rng: np.random.Generator) -> Draft:
    name, other = draw_words(rng, 2)
    command = ("touch", "mkdir")[int(rng.integers(2))]
    kind = {"touch": "file", "mkdir": "folder"}[command]
    return Draft(
        instruction=f'In the terminal, run "{command} {name}".',
        config=[
            run("mkdir", _WORK),
            _terminal("Terminal", _place(rng), _WORK),
            window("Terminal"),
        ],
        evaluator=listing(_WORK, {name: kind}),
        oracle=(type_text(f"{command} {name}"), ENTER, DONE),
        wrong=(type_text(f"{command} {other}"), ENTER, DONE),
    )


def _pick(rng: np.random.Generator) -> Draft:
    color, other = draw_words(rng, 2, tuple(_COLORS))
    (name,) = draw_words(rng, 1)
    low, high = int(rng.integers(60, 160)), int(rng.integers(380, 460))
    places = {color: (40, low), other: (660, high)}
    if rng.integers(2):
        places = {color: (660, high), other: (40, low)}
    config = [run("mkdir", "-p", f"{_WORK}/{color}", f"{_WORK}/{other}")]
    for one in sorted((color, other)):
        config += [
            _terminal(one, places[one], f"{_WORK}/{one}", "-bg", _COLORS[one]),
            window(one),
        ]
    click = {one: at(x + 270, y + 150) for one, (x, y) in places.items()}
    rest = (type_text(f"touch {name}"), ENTER, DONE)
    entries = {color: "folder", other: "folder", f"{color}/{name}": "file"}
    return Draft(
        instruction=f'In the {color} terminal, run "touch {name}".',
        config=config,
        evaluator=listing(_WORK, entries),
        oracle=(click[color], *rest),
        wrong=(click[other], *rest),
    )


def _answer(rng: np.random.Generator) -> Draft:
    first, second = draw_words(rng, 2)
    folder = f"{_WORK}/talk"
    result = {"type": "vm_file", "path": f"{folder}/answers"}
    rules = {"lines": [first, second]}
    return Draft(
        instruction=(
            f'The terminal asks for two words: answer "{first}", then "{second}".'
        ),
        config=[
            put(f"{folder}/ask.sh", _ASK),
            _terminal("Questions", _place(rng), folder, "-e", "bash", "ask.sh"),
            window("Questions"),
        ],
        evaluator={
            "func": "match_lines",
            "result": result,
            "expected": {"type": "rule", "rules": rules},
        },
        oracle=(type_text(first), ENTER, type_text(second), ENTER, DONE),
        wrong=(type_text(second), ENTER, type_text(first), ENTER, DONE),
    )


def _impossible(rng: np.random.Generator) -> Draft:
    wish = _IMPOSSIBLE[int(rng.integers(len(_IMPOSSIBLE)))]
    return Draft(
        instruction=f"Please {wish}.",
        config=[_terminal("Terminal", _place(rng), HOME), window("Terminal")],
        evaluator=INFEASIBLE,
        oracle=(FAIL,),
        wrong=(type_text("print"), ENTER, DONE),
    )


TASKS = {
    "terminal-run": _run,
    "terminal-pick": _pick,
    "terminal-answer": _answer,
    "terminal-impossible": _impossible,
}
"""Makers of variations by task name."""
