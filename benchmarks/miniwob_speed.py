"""MiniWoB++ pages: ours against the package's own gymnasium environment, same run.

The stock environment needs its own dependencies (selenium, gymnasium) and a
chromedriver; `MINIWOB_PYTHON` names an interpreter that has them, since nothing else
here needs them: `python -m venv .venv-miniwob && .venv-miniwob/bin/pip install
miniwob==1.1.0 numpy pillow`.
"""

import argparse
import json
import os
import random
import shutil
import subprocess
import sys
import time
from typing import Any

from benchmarks.measure import print_table
from stepjax.envs.actions import Action, ActionKind
from stepjax.envs.miniwob import find_chromium, make_task, make_vector_environment

__all__ = ["run"]

PAGE = "click-checkboxes"
MAX_STEPS = 5
SECONDS = 15.0
SLOTS = (1, 16)

STOCK = """
import json, os, random, sys, time
import gymnasium, miniwob
from miniwob.action import ActionTypes
gymnasium.register_envs(miniwob)
page, max_steps, seconds = sys.argv[1], int(sys.argv[2]), float(sys.argv[3])
env = gymnasium.make(f"miniwob/{page}-v1")
rng, episodes, steps, seed = random.Random(0), 0, 0, 0
seen, _ = env.reset(seed=0)
began = time.perf_counter()
while time.perf_counter() - began < seconds:
    seed += 1
    seen, _ = env.reset(seed=seed)
    for _ in range(max_steps):
        refs = [e["ref"] for e in seen["dom_elements"]
                if e["tag"] in ("input_checkbox", "button")]
        action = env.unwrapped.create_action(
            ActionTypes.CLICK_ELEMENT, ref=rng.choice(refs))
        seen, _, ended, cut, _ = env.step(action)
        steps += 1
        if ended or cut:
            break
    episodes += 1
taken = time.perf_counter() - began
env.close()
print(json.dumps({"episodes": episodes / taken, "steps": steps / taken}))
"""


def ours(chromium: str, num_slots: int) -> dict[str, float]:
    """Episodes and steps a second of our vector, random clicks."""
    vector = make_vector_environment(chromium, num_slots, max_steps=MAX_STEPS)
    try:
        return _drive(vector, num_slots)
    finally:
        vector.close()


def _drive(vector: Any, num_slots: int) -> dict[str, float]:
    rng, task, seed = random.Random(0), make_task(PAGE), num_slots
    slots = list(range(num_slots))
    seen = vector.reset_many(slots, [task] * num_slots, slots)
    episodes = steps = 0
    began = time.perf_counter()
    while time.perf_counter() - began < SECONDS:
        actions = [
            Action(kind=ActionKind.CLICK, widget=rng.randrange(len(one.widgets)))
            for one in seen
        ]
        results = vector.step_many(slots, actions)
        seen = [result.observation for result in results]
        ended = [i for i in slots if results[i].terminated or results[i].truncated]
        vector.evaluate_many(ended)
        fresh = vector.reset_many(
            ended, [task] * len(ended), range(seed, seed + len(ended))
        )
        for slot, one in zip(ended, fresh, strict=True):
            seen[slot] = one
        steps, episodes, seed = (
            steps + num_slots,
            episodes + len(ended),
            seed + len(ended),
        )
    taken = time.perf_counter() - began
    return {"episodes": episodes / taken, "steps": steps / taken}


def stock(chromium: str) -> dict[str, float] | str:
    """The same of the package's own environment, or why it cannot run."""
    driver = shutil.which("chromedriver")
    if driver is None:
        return "not measured: no chromedriver on PATH"
    browser = shutil.which("chromium") or chromium  # chromedriver wants the full one
    python = os.environ.get("MINIWOB_PYTHON", sys.executable)
    done = subprocess.run(
        [python, "-c", STOCK, PAGE, str(MAX_STEPS), str(SECONDS)],
        env={
            **os.environ,
            "MINIWOB_CHROME_BINARY": browser,
            "MINIWOB_CHROMEDRIVER": driver,
        },
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    if done.returncode != 0:
        reason = (done.stderr.strip().splitlines() or ["no output"])[-1]
        return f"not measured: {reason[:100]}"
    return json.loads(done.stdout.strip().splitlines()[-1])


def run(args: argparse.Namespace) -> None:
    """Print the table."""
    chromium = find_chromium(args.chromium)
    base = stock(chromium)
    rows = []
    if isinstance(base, str):
        rows.append(["stock gymnasium environment", base, "", ""])
        share = None
    else:
        share = base["episodes"]
        rows.append(
            _row("stock gymnasium environment, 1 page, with pictures", base, share)
        )
    for slots in SLOTS:
        name = f"ours, {slots} page{'s' if slots > 1 else ''} in one browser"
        rows.append(_row(name, ours(chromium, slots), share))
    title = f"MiniWoB++ {PAGE}, random clicks, at most {MAX_STEPS} steps"
    print_table(title, ["driver", "episodes/s", "steps/s", "times stock"], rows)


def _row(name: str, rate: dict[str, float], share: float | None) -> list[str]:
    times = "" if share is None else f"{rate['episodes'] / share:.1f}"
    return [name, f"{rate['episodes']:.1f}", f"{rate['steps']:.1f}", times]
