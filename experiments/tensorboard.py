"""TensorBoard events of a run, written beside its other files."""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from experiments.config import ExperimentConfig
from experiments.observer import RunResult, SilentObserver

__all__ = ["TensorBoardObserver"]


class TensorBoardObserver(SilentObserver):
    """An observer that writes every metric of every round as a scalar.

    The step of an event is the round. A run that goes on adds a file of its own, and
    rounds run again replace the older events: TensorBoard drops what a later file
    overtakes.
    """

    def __init__(self, folder: Path):
        """An observer writing to `folder`, made at the first event.

        Raises:
          ImportError: If tensorboardX is missing; the text says how to install it.
        """
        try:
            import tensorboardX  # noqa: F401
        except ImportError as error:
            raise ImportError(
                "TensorBoard events need tensorboardX; install it with: "
                'pip install "stepjax[experiments]"'
            ) from error
        self._folder = folder
        self._writer: Any = None

    def started(
        self, config: ExperimentConfig, backend_name: str, message: str
    ) -> None:
        """See `RunObserver`."""
        self._open().add_text("run", f"{message}\n\nbackend: {backend_name}", 0)

    def round_finished(self, metrics: Mapping[str, float]) -> None:
        """See `RunObserver`."""
        writer = self._open()
        step = int(metrics["round"])
        for name, value in metrics.items():
            if name != "round" and math.isfinite(value):
                writer.add_scalar(name, float(value), step)
        writer.flush()

    def warned(self, text: str) -> None:
        """See `RunObserver`."""
        self._open().add_text("warning", text)

    def finished(self, result: RunResult) -> None:
        """See `RunObserver`."""
        self.close()

    def close(self) -> None:
        """Flush and close the file; may be called twice."""
        if self._writer is not None:
            self._writer.close()
            self._writer = None

    def _open(self) -> Any:
        if self._writer is None:
            import tensorboardX

            self._writer = tensorboardX.SummaryWriter(
                logdir=str(self._folder), write_to_disk=True
            )
        return self._writer
