"""Tasks in the media player."""

import io
import wave

import numpy as np

from stepjax.envs.desktop.tasks.bundled.parts import (
    DONE,
    HOME,
    Draft,
    check,
    draw_words,
    keys,
    launch,
    put,
    window,
)

__all__ = ["TASKS"]

_MUSIC = f"{HOME}/Music"
_RATE, _SECONDS = 4000, 60
_BUS = (
    "dbus-send", "--print-reply=literal", "--dest=org.mpris.MediaPlayer2.vlc",
    "/org/mpris/MediaPlayer2", "org.freedesktop.DBus.Properties.Get",
    "string:org.mpris.MediaPlayer2.Player",
)  # fmt: skip


def _tone(pitch: int) -> bytes:
    """A quiet tone as a WAV file."""
    file = io.BytesIO()
    with wave.open(file, "wb") as sound:
        sound.setparams((1, 1, _RATE, 0, "NONE", ""))
        time = np.arange(_RATE) / _RATE
        second = 128 + 20 * np.sin(2 * np.pi * pitch * time)
        sound.writeframes(second.astype(np.uint8).tobytes() * _SECONDS)
    return file.getvalue()


def _opened(rng: np.random.Generator, count: int, *more: str) -> tuple[list, list]:
    """Names of some tones, and the setup steps that have them in the player."""
    names = draw_words(rng, count)
    paths = [f"{_MUSIC}/{name}.wav" for name in names]
    steps = [put(path, _tone(220 + 20 * i)) for i, path in enumerate(paths)]
    start = launch("vlc", "--control", "dbus", "--start-paused", *more, *paths)
    return names, [*steps, start, window("VLC media player")]


def _tells(name: str, part: str) -> dict:
    """Evaluator: what the player says about itself holds a text."""
    result = {"type": "vm_command_line", "command": [*_BUS, f"string:{name}"]}
    return check("check_include_exclude", result, include=[part])


def _play(rng: np.random.Generator) -> Draft:
    (name,), steps = _opened(rng, 1)
    return Draft(
        instruction=f'Play "{name}" (space).',
        config=steps,
        evaluator=_tells("PlaybackStatus", "Playing"),
        oracle=(keys("space"), DONE),
        wrong=(keys("s"), DONE),
    )


def _next(rng: np.random.Generator) -> Draft:
    names, steps = _opened(rng, 4)
    rank = 1 + int(rng.integers(3))
    ordinal = ("first", "second", "third", "fourth")[rank]
    # Each press starts the next one.
    step = keys("n")
    return Draft(
        instruction=f"Go on to the {ordinal} title of the list (n).",
        config=steps,
        evaluator=_tells("Metadata", f"{names[rank]}.wav"),
        oracle=(*[step] * rank, DONE),
        wrong=(*[step] * ((rank + 1) % 4), DONE),
    )


TASKS = {"player-play": _play, "player-next": _next}
"""Makers of variations by task name."""
