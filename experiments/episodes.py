"""Example episodes for the report: drawn on, and kept in the run folder."""

from __future__ import annotations

import dataclasses
import io
import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from stepjax.rollout.backend import Frame

__all__ = [
    "Episode",
    "EpisodeStep",
    "draw_step",
    "episode_from_frames",
    "is_tall",
    "load_episodes",
    "save_episodes",
]

_MAX_WIDTH, _MAX_HEIGHT = 640, 720  # pixels; larger ones would make the report large
_MARK = (213, 94, 0)


@dataclasses.dataclass(frozen=True, kw_only=True)
class EpisodeStep:
    """A step as a picture.

    Attributes:
      image: A whole PNG or JPEG file.
      action: The action taken, in words.
    """

    image: bytes
    action: str


@dataclasses.dataclass(frozen=True, kw_only=True)
class Episode:
    """One trajectory, to be looked at.

    Attributes:
      task: Name of the task.
      instruction: What the agent was told.
      moment: When it was recorded, such as "before training".
      split: "training task" or "unseen task".
      success: How it ended.
      steps: In order.
    """

    task: str
    instruction: str
    moment: str
    split: str
    success: bool
    steps: tuple[EpisodeStep, ...]


def episode_from_frames(
    frames: Sequence[Frame], *, task: str, moment: str, split: str, success: bool
) -> Episode:
    """The frames of one replayed trajectory with every action drawn on its picture."""
    steps = tuple(
        EpisodeStep(
            image=draw_step(frame.image, frame.box, frame.touch), action=frame.action
        )
        for frame in frames
    )
    return Episode(
        task=task,
        instruction=frames[0].instruction if frames else "",
        moment=moment,
        split=split,
        success=success,
        steps=steps,
    )


def draw_step(
    image: np.ndarray,
    box: tuple[float, float, float, float] | None,
    touch: Sequence[tuple[float, float]] = (),
) -> bytes:
    """A picture file of `image` with a frame and a pointer where the action went.

    Args:
      image: [height, width, 3] uint8.
      box: Left, top, right, bottom as shares of the picture, or None for an action
        without a target.
      touch: Places of a finger as shares of the picture, instead of the pointer.

    Returns:
      PNG, or JPEG where that is smaller (photographs, web pages).
    """
    from PIL import Image, ImageDraw

    picture = Image.fromarray(np.ascontiguousarray(image[..., :3]), mode=None)
    shrink = min(1.0, _MAX_WIDTH / picture.width, _MAX_HEIGHT / picture.height)
    if shrink < 1.0:
        size = (round(shrink * picture.width), round(shrink * picture.height))
        picture = picture.resize(size, Image.Resampling.LANCZOS)
    if touch:
        _draw_touch(ImageDraw.Draw(picture), picture.size, touch)
    elif box is not None:
        _draw_target(ImageDraw.Draw(picture), picture.size, box)
    png, jpeg = io.BytesIO(), io.BytesIO()
    picture.quantize(128, dither=Image.Dither.NONE).save(png, "PNG", optimize=True)
    picture.save(jpeg, "JPEG", quality=80, optimize=True)
    return min(png.getvalue(), jpeg.getvalue(), key=len)


def _draw_target(
    draw: Any, size: tuple[int, int], box: tuple[float, float, float, float]
) -> None:
    width, height = size
    left, right = sorted((box[0] * width, box[2] * width))
    top, bottom = sorted((box[1] * height, box[3] * height))
    edge = (left - 2, top - 2, right + 2, bottom + 2)
    draw.rounded_rectangle(edge, radius=4, outline=(255, 255, 255), width=4)
    draw.rounded_rectangle(edge, radius=4, outline=_MARK, width=2)
    # A pointer hides less of a label than a dot would.
    x, y = (left + right) / 2, (top + bottom) / 2
    arrow = [(0, 0), (0, 17), (4, 13), (7, 20), (10, 19), (7, 12), (12, 12)]
    points = [(x + dx, y + dy) for dx, dy in arrow]
    draw.polygon(points, fill=_MARK, outline=(255, 255, 255), width=1)


def _draw_touch(
    draw: Any, size: tuple[int, int], touch: Sequence[tuple[float, float]]
) -> None:
    """A ring where the finger went down, and a line with a head to where it went up."""
    places = [(x * size[0], y * size[1]) for x, y in touch]
    for color, more in (((255, 255, 255), 2), (_MARK, 0)):
        (x, y), (to_x, to_y) = places[0], places[-1]
        radius = 13
        ring = (x - radius, y - radius, x + radius, y + radius)
        draw.ellipse(ring, outline=color, width=3 + more)
        draw.ellipse((x - 3, y - 3, x + 3, y + 3), fill=color)
        way = math.hypot(to_x - x, to_y - y)
        if way > 2 * radius:
            across, down = (to_x - x) / way, (to_y - y) / way
            draw.line((x, y, to_x, to_y), fill=color, width=3 + more)
            head = [
                (to_x - 12 * across + side * down, to_y - 12 * down - side * across)
                for side in (-8, 8)
            ]
            draw.polygon([(to_x, to_y), *head], fill=color)


def is_tall(image: bytes) -> bool:
    """True for the picture file of a phone held upright."""
    from PIL import Image

    with Image.open(io.BytesIO(image)) as picture:
        return picture.height > 1.4 * picture.width


def save_episodes(folder: Path, episodes: Sequence[Episode]) -> Path:
    """The list file of the episodes written to `folder`, beside their pictures."""
    folder.mkdir(parents=True, exist_ok=True)
    entries = []
    for number, episode in enumerate(episodes):
        steps = []
        for index, step in enumerate(episode.steps):
            kind = "png" if step.image.startswith(b"\x89PNG") else "jpg"
            name = f"{number:02d}-{index:02d}.{kind}"
            (folder / name).write_bytes(step.image)
            steps.append({"image": name, "action": step.action})
        entry = {
            field.name: getattr(episode, field.name)
            for field in dataclasses.fields(episode)
            if field.name != "steps"
        }
        entries.append({**entry, "steps": steps})
    path = folder / "episodes.json"
    path.write_text(json.dumps(entries, indent=1), encoding="utf-8")
    return path


def load_episodes(folder: Path) -> list[Episode]:
    """Episodes that `save_episodes` wrote to `folder`; [] if there are none."""
    path = folder / "episodes.json"
    if not path.is_file():
        return []
    return [_read_episode(folder, entry) for entry in json.loads(path.read_text())]


def _read_episode(folder: Path, entry: dict[str, Any]) -> Episode:
    steps = tuple(
        # The name only: a list file cannot make the report read other folders.
        EpisodeStep(
            image=(folder / Path(step["image"]).name).read_bytes(),
            action=step["action"],
        )
        for step in entry["steps"]
    )
    return Episode(**{**entry, "steps": steps})
