"""The loss, token by token."""

import math


def token_loss(log_prob, old, advantage, low, high, dual):
    ratio = math.exp(max(-20.0, min(20.0, log_prob - old)))
    loss = max(-advantage * ratio, -advantage * max(1 - low, min(1 + high, ratio)))
    return min(loss, -advantage * dual) if advantage < 0 else loss


def step_loss(
    log_prob, batch, *, low, high, dual, kl=0.0, ref=None, bonus=0.0, entropy=None
):
    """Sum of weighted token losses and sum of weights (token mean)."""
    total = weight = 0.0
    for s in range(len(batch.weight)):
        for a in range(batch.token_mask.shape[1]):
            w = float(batch.weight[s])
            if not batch.token_mask[s, a] or not w > 0:
                continue
            value = token_loss(
                float(log_prob[s, a]),
                float(batch.old_log_prob[s, a]),
                float(batch.advantage[s]),
                low,
                high,
                dual,
            )
            if ref is not None:
                d = float(ref[s, a]) - float(log_prob[s, a])
                value += kl * (math.exp(d) - d - 1)
            if entropy is not None:
                value -= bonus * float(entropy[s, a])
            total += w * value
            weight += w
    return total, weight


def trajectory_mean(values, token_mask, weight, trajectory_id):
    """Mean over steps inside a trajectory, then a sum over trajectories."""
    groups = {}
    for row, mask, w, trajectory in zip(
        values, token_mask, weight, trajectory_id, strict=True
    ):
        real = [float(v) for v, m in zip(row, mask, strict=True) if m]
        if real and w > 0:
            step = (float(w), sum(real) / len(real))
            groups.setdefault(int(trajectory), []).append(step)
    means = [
        sum(w * v for w, v in steps) / sum(w for w, _ in steps)
        for steps in groups.values()
    ]
    return sum(means), len(means)
