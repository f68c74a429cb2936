"""verl's advantage functions on given inputs; runs in an environment that has verl.

    python verl_advantages.py INPUT.npz OUTPUT.npz REPEATS

It imports nothing of stepjax and is not imported: other libraries pin other versions.
"""

import sys
import time

import numpy as np
import torch  # pyright: ignore[reportMissingImports]
from verl.trainer.ppo import core_algos  # pyright: ignore[reportMissingImports]

NAMES = {
    "vectorized": "compute_grpo_vectorized_outcome_advantage",
    "default": "compute_grpo_outcome_advantage",
}


def main() -> None:
    """Write advantages and the best seconds of each function."""
    source, target, repeats = sys.argv[1], sys.argv[2], int(sys.argv[3])
    data = np.load(source)
    torch.set_num_threads(2)
    rewards = torch.from_numpy(data["rewards"])[:, None]
    mask = torch.ones_like(rewards)
    index = np.array([str(i) for i in data["groups"]], dtype=object)
    results = {}
    for name, function_name in NAMES.items():
        function = getattr(core_algos, function_name)
        seconds = []
        tries = repeats if name == "vectorized" or len(rewards) < 10_000 else 1
        for _ in range(tries + 1 if tries > 1 else 1):
            before = time.perf_counter()
            advantages, _ = function(rewards, mask, index)
            seconds.append(time.perf_counter() - before)
        results[f"{name}_seconds"] = min(seconds)
        results[name] = advantages[:, 0].numpy()
    np.savez(target, **results)


if __name__ == "__main__":
    main()
