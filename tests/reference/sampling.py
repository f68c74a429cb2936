"""The record and the expected draw, task by task."""

import numpy as np


def update_rate(old, successes, collected, group_size):
    """The paper's two-case formula, unsimplified."""
    if collected == 0:
        return old
    alpha = 1 - collected / group_size if collected < group_size else 0.0
    return (successes + alpha * old * group_size) / (collected + alpha * group_size)


def update_record(rate, task_ids, success, valid, group_size):
    out = []
    for task, old in enumerate(rate):
        mine = [
            s
            for i, s, v in zip(task_ids, success, valid, strict=True)
            if v and i == task
        ]
        out.append(update_rate(old, sum(mine), len(mine), group_size))
    return np.array(out)


def replacement_prob(rate, threshold=0.6, sharpness=10.0):
    return 1 / (1 + np.exp(-sharpness * (np.asarray(rate, np.float64) - threshold)))


def expected_shares(
    task_ids,
    rate,
    group_size,
    *,
    threshold=0.6,
    sharpness=10.0,
    kept_copies=1,
    unsolved_share=0.0,
):
    """Copy by copy: where each goes, with which probability."""
    cache = [i for i, r in enumerate(rate) if 0 < r < threshold]
    unsolved = [i for i, r in enumerate(rate) if r == 0]
    to_unsolved = unsolved_share if unsolved else 0.0
    out = np.zeros(len(rate))
    for task in task_ids:
        for copy in range(group_size):
            p = float(replacement_prob(rate[task], threshold, sharpness))
            p = 0.0 if copy < kept_copies else p
            moved = 0.0
            for pool, share in ((unsolved, to_unsolved), (cache, 1 - to_unsolved)):
                for k in pool:
                    out[k] += p * share / len(pool)
                moved += p * share if pool else 0.0
            out[task] += 1 - moved
    return out / out.sum()
