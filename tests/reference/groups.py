"""Group statistics and advantages, one group at a time."""

import numpy as np


def _real(x, mask):
    return np.asarray(x, np.float64)[np.asarray(mask)]


def _scatter(values, mask):
    out = np.zeros(len(mask))
    out[np.asarray(mask)] = values
    return out


def centered(rewards, mask):
    real = _real(rewards, mask)
    if not len(real) or np.all(real == real[0]):
        return np.zeros(len(mask))
    return _scatter(real - real.mean(), mask)


def std(x, mask, ddof=1):
    real = _real(x, mask)
    if len(real) <= ddof or np.all(real == real[0]):
        return 0.0
    return float(np.std(real, ddof=ddof))


def z_score(rewards, mask, std_floor, ddof=1):
    spread = std(rewards, mask, ddof)
    if spread <= std_floor:
        return np.zeros(len(mask))
    return centered(rewards, mask) / spread


def leave_one_out(rewards, mask):
    real = _real(rewards, mask)
    others = [np.delete(real, i) for i in range(len(real))]
    return _scatter(
        [r - o.mean() if len(o) else 0.0 for r, o in zip(real, others, strict=True)],
        mask,
    )


def ragged(fn, rewards, group_ids, mask):
    """`fn(rewards, mask)` applied to each group in turn."""
    out = np.zeros(len(rewards))
    for group in set(np.asarray(group_ids)[np.asarray(mask)].tolist()):
        rows = [i for i, g in enumerate(group_ids) if g == group and mask[i]]
        out[rows] = fn([rewards[i] for i in rows], [True] * len(rows))
    return out


def step_returns(reward, step_mask, discount):
    out, value = np.zeros(len(step_mask)), float(reward)
    for t in reversed(range(len(step_mask))):
        if step_mask[t]:
            out[t] = value
            value *= discount
    return out


def state_groups(rewards, task_ids, state_hash, step_mask, discount):
    """GiGPO's step term with F = 1, through a dictionary of lists."""
    groups = {}
    out = np.zeros(np.shape(step_mask))
    for m, task in enumerate(task_ids):
        returns = step_returns(rewards[m], step_mask[m], discount)
        for t in range(len(returns)):
            if step_mask[m][t]:
                key = (int(task), int(state_hash[m][t]))
                groups.setdefault(key, []).append((m, t, returns[t]))
    for members in groups.values():
        values = np.array([v for _, _, v in members])
        for m, t, value in members:
            same = np.all(values == values[0])
            out[m, t] = 0.0 if same else value - values.mean()
    return out


def step_group(match, mask, advantage, *, std_floor=1e-6, ddof=1, weight=1.0):
    scores = z_score(np.asarray(match, float), mask, std_floor, ddof)
    return weight * float(advantage) * scores
