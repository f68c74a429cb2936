"""Run the main job for a few rounds, kill it, run it again; both must end alike.

python .ci/main_job.py FOLDER
"""

import json
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

ROUNDS = 5
KILL_AFTER = 2
LIMIT_S = 900
ROOT = Path(__file__).resolve().parent.parent


def command(run_dir: Path, cache: Path) -> list[str]:
    """The main job, small enough for CI, otherwise as a user starts it."""
    return [
        *(sys.executable, "-m", "experiments.osworld"),
        *("--run-dir", str(run_dir), "--rounds", str(ROUNDS)),
        *("--algo.tasks-per-round", "8", "--algo.group-size", "8"),
        *("--checkpoint.save-every", "1", "--eval.every", "2"),
        *("--warm-start.steps", "200", "--warm-start.cache-dir", str(cache)),
    ]


def lines(run_dir: Path) -> list[dict]:
    """Whole lines of the metrics file so far."""
    path = run_dir / "metrics.jsonl"
    text = path.read_text() if path.exists() else ""
    return [json.loads(line) for line in text.splitlines(True) if line[-1] == "\n"]


def run_to_the_end(run_dir: Path, cache: Path) -> str:
    """What the job printed."""
    done = subprocess.run(
        command(run_dir, cache),
        cwd=ROOT,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=LIMIT_S,
    )
    if done.returncode:
        sys.exit(f"the main job ended with {done.returncode}:\n{done.stdout[-4000:]}")
    return done.stdout


def run_and_kill(run_dir: Path, cache: Path) -> None:
    """Start the job and end it the hard way once it has done some rounds."""
    with open(run_dir.with_suffix(".log"), "w") as log:
        process = subprocess.Popen(
            command(run_dir, cache), cwd=ROOT, stdin=subprocess.DEVNULL, stdout=log
        )
        deadline = time.monotonic() + LIMIT_S
        while len(lines(run_dir)) <= KILL_AFTER:
            if process.poll() is not None:
                sys.exit(f"the main job ended by itself: {process.returncode}")
            if time.monotonic() > deadline:
                process.kill()
                sys.exit("the main job made no progress")
            time.sleep(0.05)
        process.send_signal(signal.SIGKILL)
        process.wait()


def comparable(row: dict) -> dict:
    """A metrics line without what may differ between runs: times, compilations."""
    skipped = ("time/", "compile/")
    return {name: value for name, value in row.items() if not name.startswith(skipped)}


def main() -> None:
    """Exit with a message at the first thing that is wrong."""
    folder = Path(sys.argv[1])
    folder.mkdir(parents=True)
    whole, broken, cache = folder / "whole", folder / "broken", folder / "cache"
    began = time.monotonic()
    out = run_to_the_end(whole, cache)
    print("\n".join(out.splitlines()[:3]))
    print(f"unbroken run: {time.monotonic() - began:.0f} s")
    if "sim" not in out.splitlines()[0]:
        sys.exit(f"the first line does not name the backend: {out.splitlines()[0]!r}")
    began = time.monotonic()
    run_and_kill(broken, cache)
    run_to_the_end(broken, cache)
    print(f"killed and resumed run: {time.monotonic() - began:.0f} s")
    rows = lines(whole)
    if [comparable(row) for row in rows] != [comparable(row) for row in lines(broken)]:
        sys.exit("the resumed run's metrics differ from the unbroken run's")
    for name in ("round", "trajectories"):
        if any(name not in row for row in rows):
            sys.exit(f"a line of metrics.jsonl lacks {name}")
    for row in (rows[0], rows[-1]):
        for kind in ("train", "unseen", "infeasible"):
            if f"eval/{kind}_success" not in row:
                sys.exit(f"round {row['round']} lacks eval/{kind}_success")
    report = (whole / "report.html").read_text(encoding="utf-8")
    if re.search(r'(src|href)="https?:', report):
        sys.exit("report.html loads something from outside")
    print(f"{len(rows)} lines alike, report of {len(report) // 1024} KiB")


if __name__ == "__main__":
    main()
