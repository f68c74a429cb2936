"""A run's progress: a live display on a terminal, one plain line a round elsewhere."""

from __future__ import annotations

import atexit
import collections
import os
import sys
import time
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, TextIO

from experiments.observer import RunObserver, RunResult, SilentObserver

if TYPE_CHECKING:
    from experiments.config import ExperimentConfig

__all__ = ["LineProgress", "LiveProgress", "make_progress", "wants_live"]

_WINDOW = 8  # rounds that speed and remaining time are estimated from


def make_progress(
    stream: TextIO | None = None, environ: Mapping[str, str] | None = None
) -> RunObserver:
    """The display that suits where the output goes.

    Args:
      stream: Where to write; standard output by default.
      environ: Environment variables; the process's own by default.

    Returns:
      A `LiveProgress` on a terminal, else a `LineProgress`.
    """
    target: TextIO = sys.stdout if stream is None else stream
    environ = os.environ if environ is None else environ
    return LiveProgress(target) if wants_live(target, environ) else LineProgress(target)


def wants_live(stream: TextIO, environ: Mapping[str, str]) -> bool:
    """True if `stream` is a terminal that can be drawn on, and nobody objects.

    NO_COLOR and CI, set to anything, and TERM=dumb ask for plain lines.
    """
    if environ.get("NO_COLOR") or environ.get("CI") or environ.get("TERM") == "dumb":
        return False
    return stream.isatty()


class _Status:
    """Latest numbers of a run and how fast it goes."""

    def __init__(self, clock: Callable[[], float]):
        self._clock = clock
        self._recent: collections.deque[tuple[float, float, float]] = collections.deque(
            maxlen=_WINDOW + 1
        )
        self.rounds = 0
        self.round = 0
        self.numbers: dict[str, float] = {}
        self.first: dict[str, float] = {}

    def start(self, config: ExperimentConfig) -> None:
        self.rounds = config.rounds
        self._recent.clear()

    def update(self, metrics: Mapping[str, float]) -> None:
        self.round = int(metrics["round"])
        for name, value in metrics.items():
            self.numbers[name] = float(value)
            self.first.setdefault(name, float(value))
        self._recent.append(
            (self._clock(), float(self.round), metrics.get("trajectories", 0.0))
        )

    @property
    def trajectories_per_second(self) -> float | None:
        return self._speed(2)

    @property
    def seconds_left(self) -> float | None:
        speed = self._speed(1)
        return (self.rounds - self.round) / speed if speed else None

    def _speed(self, column: int) -> float | None:
        if len(self._recent) < 2:
            return None
        old, new = self._recent[0], self._recent[-1]
        seconds = new[0] - old[0]
        return (new[column] - old[column]) / seconds if seconds > 0 else None


class LineProgress(SilentObserver):
    """One line a round, for logs, pipes and CI."""

    def __init__(self, stream: TextIO, *, clock: Callable[[], float] = time.monotonic):
        """An observer writing to `stream`; `clock` gives seconds."""
        self._stream = stream
        self._status = _Status(clock)

    def started(
        self, config: ExperimentConfig, backend_name: str, message: str
    ) -> None:
        """See `RunObserver`."""
        self._status.start(config)
        self._say(message)

    def round_finished(self, metrics: Mapping[str, float]) -> None:
        """See `RunObserver`."""
        status = self._status
        status.update(metrics)
        parts = [f"round {status.round}/{status.rounds}"]
        for name, text in _SHOWN:
            if name in metrics:
                parts.append(f"{text} {_percent(metrics[name])}")
        if "eval/train_above_60" in metrics:
            parts.append(f"above 60%: {metrics['eval/train_above_60']:.0f} tasks")
        if status.trajectories_per_second:
            parts.append(f"{status.trajectories_per_second:.0f} trajectories/s")
        if status.seconds_left:
            parts.append(f"{_clock_text(status.seconds_left)} left")
        self._say(" | ".join(parts))

    def warned(self, text: str) -> None:
        """See `RunObserver`."""
        self._say(f"warning: {text}")

    def waiting(self, text: str) -> None:
        """See `RunObserver`."""
        self._say(f"... {text}")

    def finished(self, result: RunResult) -> None:
        """See `RunObserver`."""
        self._say(_closing(result))

    def _say(self, text: str) -> None:
        print(text, file=self._stream, flush=True)


class LiveProgress(SilentObserver):
    """A bar and a small table that are drawn over themselves, and a final line."""

    def __init__(self, stream: TextIO, *, clock: Callable[[], float] = time.monotonic):
        """An observer drawing on the terminal `stream`; `clock` gives seconds."""
        from rich.console import Console

        self._console = Console(file=stream)
        self._status = _Status(clock)
        self._live: Any = None
        self._warning = ""
        self._doing = ""

    def started(
        self, config: ExperimentConfig, backend_name: str, message: str
    ) -> None:
        """See `RunObserver`."""
        from rich.live import Live

        self.close()
        atexit.register(self.close)  # a run that fails must not keep the cursor
        self._status.start(config)
        self._console.print(message, markup=False, highlight=False)
        # Redrawn on events only: a refresh thread would steal time from two cores.
        self._live = Live(console=self._console, auto_refresh=False, transient=True)
        self._live.start()

    def round_finished(self, metrics: Mapping[str, float]) -> None:
        """See `RunObserver`."""
        self._status.update(metrics)
        self._doing = ""
        self._draw()

    def evaluated(self, metrics: Mapping[str, float]) -> None:
        """See `RunObserver`."""
        for name, value in metrics.items():
            self._status.numbers[name] = float(value)
            self._status.first.setdefault(name, float(value))
        self._draw()

    def warned(self, text: str) -> None:
        """See `RunObserver`."""
        self._warning = text
        self._draw()

    def waiting(self, text: str) -> None:
        """See `RunObserver`."""
        self._doing = text
        self._draw()

    def finished(self, result: RunResult) -> None:
        """See `RunObserver`."""
        self._draw()
        shown = self._live.get_renderable() if self._live is not None else None
        self.close()
        if shown is not None:
            self._console.print(shown)
        self._console.print(_closing(result), markup=False, highlight=False)

    def close(self) -> None:
        """Give the terminal back, also after an error; may be called twice."""
        if self._live is not None:
            self._live.stop()
            self._live = None
            atexit.unregister(self.close)

    def _draw(self) -> None:
        if self._live is not None:
            self._live.update(self._picture(), refresh=True)

    def _picture(self) -> Any:
        from rich.console import Group
        from rich.progress_bar import ProgressBar
        from rich.table import Table
        from rich.text import Text

        status = self._status
        head = Table.grid(padding=(0, 1))
        speed, left = status.trajectories_per_second, status.seconds_left
        head.add_row(
            Text(f"round {status.round}/{status.rounds}", style="bold"),
            ProgressBar(total=max(1, status.rounds), completed=status.round, width=32),
            Text(f"{speed:.0f} trajectories/s" if speed else ""),
            Text(f"{_clock_text(left)} left" if left else ""),
        )
        table = Table(box=None, padding=(0, 2, 0, 0), header_style="dim")
        for column in ("", "now", "start"):
            table.add_column(column, justify="left" if not column else "right")
        for name, text in _SHOWN:
            if name in status.numbers:
                now, start = status.numbers[name], status.first[name]
                table.add_row(text, Text(_percent(now), "bold cyan"), _percent(start))
        name = "eval/train_above_60"
        if name in status.numbers:
            now, start = status.numbers[name], status.first[name]
            table.add_row(
                "tasks above 60%", Text(f"{now:.0f}", "bold cyan"), f"{start:.0f}"
            )
        lines: list[Any] = [head, table]
        if self._warning:
            lines.append(Text(f"warning: {self._warning}", style="yellow"))
        if self._doing:
            lines.append(Text(f"... {self._doing}", style="dim"))
        return Group(*lines)


_SHOWN = (
    ("train/success", "collected"),
    ("eval/train_success", "training tasks"),
    ("eval/unseen_success", "unseen tasks"),
    ("eval/infeasible_success", "infeasible tasks"),
)


def _percent(share: float) -> str:
    return f"{100 * share:.1f}%"


def _clock_text(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"


def _closing(result: RunResult) -> str:
    parts = [f"{result.status} after round {result.round} ({result.backend})"]
    for name, text in _SHOWN:
        if name in result.evaluation:
            parts.append(f"{text} {_percent(result.evaluation[name])}")
    return " | ".join([*parts, f"see {result.run_dir}"])
