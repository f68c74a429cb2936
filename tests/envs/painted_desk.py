"""A desk that is only painted: a screen with buttons and a field, in a few rectangles.

Tasks are what a real desktop asks for in little: click what the instruction names, type
a word of it, press keys. The window lies somewhere else for every seed.
"""

import zlib
from collections.abc import Sequence

import numpy as np

from stepjax.envs.actions import Action, ActionKind
from stepjax.envs.base import Observation, StepResult, Task
from stepjax.rollout.backend import TaskTable

HEIGHT, WIDTH = 200, 320
BUTTONS = {"red": (220, 40, 40), "green": (40, 180, 60), "blue": (50, 70, 220)}
WORDS = ("apple", "bread", "cheese")
NAMES = (*(f"press-{color}" for color in BUTTONS), "type-and-save", "impossible")
SIZE = 24  # of a button, in pixels
FIELD = (100, 16)


def desk_table() -> TaskTable:
    """All tasks but the last blue button are for training."""
    return TaskTable(
        names=NAMES,
        domains=("buttons",) * 3 + ("text", "text"),
        train_ids=np.array([0, 1, 3, 4], np.int32),
        unseen_ids=np.array([2], np.int32),
        infeasible=np.array([False] * 4 + [True]),
        instruction=lambda task_id, seed: instruction(NAMES[task_id], seed),
    )


def instruction(name: str, seed: int) -> str:
    """What the agent is told."""
    if name == "type-and-save":
        return f'Write "{WORDS[seed % len(WORDS)]}" into the field and save it'
    if name == "impossible":
        return "Order a pizza"
    return f"Click the {name.removeprefix('press-')} button"


def corner(seed: int) -> tuple[int, int]:
    """Left and top of the window, in pixels."""
    rng = np.random.default_rng(seed)
    return int(rng.integers(10, 160)), int(rng.integers(10, 100))


def places(seed: int) -> dict[str, tuple[float, float]]:
    """Middles of the buttons and the field, as shares of the screen."""
    left, top = corner(seed)
    found = {
        color: ((left + 40 * at + SIZE / 2) / WIDTH, (top + SIZE / 2) / HEIGHT)
        for at, color in enumerate(BUTTONS)
    }
    found["field"] = ((left + 50) / WIDTH, (top + 48) / HEIGHT)
    return found


def desk_script(name: str, seed: int) -> Sequence:
    """How a task is done; one step looks at the screen first."""
    where = places(seed)
    if name == "impossible":
        return [Action(kind=ActionKind.FAIL)]
    if name != "type-and-save":
        x, y = where[name.removeprefix("press-")]
        return [lambda seen: Action(kind=ActionKind.CLICK, x=x, y=y)]
    x, y = where["field"]
    word = WORDS[seed % len(WORDS)]
    return [
        Action(kind=ActionKind.TYPE, x=x, y=y, text=word),
        Action(kind=ActionKind.PRESS, keys=("ctrl", "s")),
    ]


class PaintedDesk:
    """One desk (an `Environment`)."""

    def reset(self, task: Task, seed: int) -> Observation:
        """A clean desk."""
        self._task, self._seed = task, seed
        self._pressed: list[str] = []
        self._focused, self._typed, self._saved, self._ended = False, "", False, None
        return self._look()

    def step(self, action: Action) -> StepResult:
        """Carry out one action."""
        kind = action.kind
        if kind == ActionKind.CLICK and action.x is not None and action.y is not None:
            self._click(action.x * WIDTH, action.y * HEIGHT)
        elif kind == ActionKind.TYPE and self._focused:
            self._typed += action.text
        elif kind == ActionKind.PRESS and action.keys == ("ctrl", "s"):
            self._saved = True
        elif kind in (ActionKind.DONE, ActionKind.FAIL):
            self._ended = kind
        return StepResult(observation=self._look(), terminated=self._ended is not None)

    def evaluate(self) -> float:
        """1.0 if exactly what was asked for has been done."""
        name = self._task.name
        if name == "impossible" or self._ended == ActionKind.FAIL:
            return float(name == "impossible" and self._ended == ActionKind.FAIL)
        if name == "type-and-save":
            wanted = WORDS[self._seed % len(WORDS)]
            return float(self._saved and self._typed == wanted)
        return float(self._pressed == [name.removeprefix("press-")])

    def close(self) -> None:
        """Nothing to release."""

    def _click(self, x: float, y: float) -> None:
        self._focused = False
        for name, (left, top) in places(self._seed).items():
            wide, tall = FIELD if name == "field" else (SIZE, SIZE)
            dx, dy = abs(x - left * WIDTH), abs(y - top * HEIGHT)
            if dx <= wide / 2 and dy <= tall / 2:
                if name == "field":
                    self._focused = True
                else:
                    self._pressed.append(name)

    def _look(self) -> Observation:
        image = np.full((HEIGHT, WIDTH, 3), (70, 110, 140), np.uint8)
        left, top = corner(self._seed)
        image[top - 8 : top + 70, left - 8 : left + 128] = 225
        for name, (x, y) in places(self._seed).items():
            wide, tall = FIELD if name == "field" else (SIZE, SIZE)
            x0, y0 = round(x * WIDTH - wide / 2), round(y * HEIGHT - tall / 2)
            color = BUTTONS.get(name, (255, 255, 200) if self._focused else (255,) * 3)
            image[y0 : y0 + tall, x0 : x0 + wide] = color
            if name in self._pressed:
                image[y0 + 8 : y0 + 16, x0 + 8 : x0 + 16] = 0
            if name == "field" and self._typed:
                image[y0 + 5 : y0 + 11, x0 + 4 : x0 + 40] = 30
        if self._saved:
            image[top - 8 : top - 2, left - 8 : left + 128] = (30, 140, 30)
        return Observation(
            instruction=instruction(self._task.name, self._seed),
            screenshot=image,
            state_hash=zlib.crc32(image.tobytes()),
        )
