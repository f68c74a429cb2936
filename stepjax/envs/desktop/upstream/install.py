"""Where upstream's evaluators are installed."""

import os
from pathlib import Path

from stepjax.envs.desktop.upstream.errors import UpstreamError

__all__ = ["DEFAULT_FOLDER", "FOLDER_VARIABLE", "find_interpreter"]

FOLDER_VARIABLE = "STEPJAX_EVALUATORS"
"""Environment variable that names the evaluators' virtual environment."""

DEFAULT_FOLDER = Path("~/.cache/stepjax/evaluators")
"""Where `scripts/install-desktop --evaluators` puts it."""


def find_interpreter(folder: str | Path | None = None) -> Path:
    """Python of the virtual environment that holds upstream's evaluators.

    Args:
      folder: The virtual environment; None for `STEPJAX_EVALUATORS`, and where that is
        not set for `~/.cache/stepjax/evaluators`.

    Raises:
      UpstreamError: If there is none.
    """
    chosen = folder or os.environ.get(FOLDER_VARIABLE) or DEFAULT_FOLDER
    root = Path(chosen).expanduser().absolute()
    python = root / "bin" / "python"
    if python.is_file() and os.access(python, os.X_OK):
        return python
    raise UpstreamError(
        f"no evaluators in {root}: {python} is missing. Run scripts/install-desktop "
        f"--evaluators, or name their folder by --env.evaluators or {FOLDER_VARIABLE}."
    )
