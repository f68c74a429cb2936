"""Scripts that solve the bundled tasks, and plausible ones that do not."""

from stepjax.envs.desktop.tasks.bundled.parts import ScriptStep
from stepjax.envs.desktop.tasks.bundled.registry import bundled_draft

__all__ = ["oracle_script", "wrong_script"]


def oracle_script(name: str, seed: int) -> list[ScriptStep]:
    """Steps that solve a variation of a bundled task, the last one DONE or FAIL.

    Each is an action, or a function that looks at the screen and says which.

    Raises:
      ValueError: If there is no such task, or the seed is negative.
    """
    return list(bundled_draft(name, seed).oracle)


def wrong_script(name: str, seed: int) -> list[ScriptStep]:
    """Steps of a plausible attempt at a bundled task that is worth nothing.

    Raises:
      ValueError: If there is no such task, or the seed is negative.
    """
    return list(bundled_draft(name, seed).wrong)
