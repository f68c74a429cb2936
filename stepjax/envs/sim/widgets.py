"""The simulated screen as host objects: widgets with names instead of ids."""

import functools

import jax
import numpy as np

from stepjax.envs.base import Widget
from stepjax.envs.sim import vocabulary
from stepjax.envs.sim.items import ItemKind, NodeKind
from stepjax.envs.sim.screens import Screen, observe, read_screen
from stepjax.envs.sim.state import WIDGET_WORDS, SimPool, SimState
from stepjax.envs.sim.tasks import task_table
from stepjax.envs.sim.world import build_world
from stepjax.envs.words import ROLES, split_words, word_id
from stepjax.types import ScreenPrompt

__all__ = [
    "list_widgets",
    "spell",
]


@functools.lru_cache(maxsize=1)
def _spelling() -> dict[int, str]:
    """Every word that can be typed or shown as a value, by its id."""
    world = build_world()
    words = [word for text in task_table().instructions for word in split_words(text)]
    words += [word for alias in world.aliases for word in split_words(alias.phrase)]
    # Where two words share an id, the later one, seen more often as a value, is shown.
    words += [word for names in vocabulary.OPTION_SETS.values() for word in names]
    words += [*vocabulary.TEXT_WORDS, *(str(n) for n in range(16))]
    return {word_id(word): word for word in words}


def spell(number: int) -> str:
    """A word by its id, "" for 0; an id of no known word shows as its number."""
    return _spelling().get(number, f"#{number}") if number else ""


@functools.lru_cache(maxsize=1)
def _viewer():
    """Compiled once for a process."""

    def view(pool: SimPool, state: SimState) -> tuple[Screen, ScreenPrompt]:
        return read_screen(pool, state), observe(pool, state)

    return jax.jit(view)


def list_widgets(pool: SimPool, state: SimState) -> tuple[Widget, ...]:
    """Widgets of one desktop, in the order of the prompt's.

    Args:
      pool: The applications of `stepjax.envs.sim.load_world`.
      state: One desktop.

    Returns:
      The widgets; `ref` is the name of the sort of node, in lower case.
    """
    screen, prompt = jax.device_get(_viewer()(pool, state))
    world = build_world()
    tables = world.tables
    widgets = []
    for i in range(int(screen.count)):
        node = int(screen.node[i])
        kind = NodeKind(tables["node_kind"][node])
        bits = int(prompt.widget_state[i])
        left, top, right, bottom = (float(side) for side in prompt.widget_box[i])
        widgets.append(
            Widget(
                role=ROLES[int(prompt.widget_role[i])],
                label=world.node_labels[node],
                value=_value(kind, tables, node, prompt.widget_words[i]),
                box=(left, top, right, bottom),
                on=bool(bits & 1),
                focused=bool(bits & 2),
                disabled=bool(bits & 4),
                ref=kind.name.lower(),
            )
        )
    return tuple(widgets)


def _value(
    kind: NodeKind, tables: dict[str, np.ndarray], node: int, words: np.ndarray
) -> str:
    """What stands beside a label."""
    has_value = kind in (NodeKind.STATUS, NodeKind.FIELD)
    if kind == NodeKind.ITEM:
        item_kind = tables["item_kind"][tables["node_arg"][node]]
        has_value = item_kind in (ItemKind.CHOICE, ItemKind.TEXT)
    return spell(int(words[WIDGET_WORDS // 2])) if has_value else ""
