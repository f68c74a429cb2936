"""Write `tests/data/verl_golden.npz`: inputs and what verl's own functions return.

Needs torch and verl, not stepjax; made with torch 2.13.0 and verl 0.9.1 in an
environment of their own:

    python -m venv verl-env
    verl-env/bin/pip install torch==2.13.0
    verl-env/bin/pip install --no-deps verl==0.9.1
    verl-env/bin/pip install ray omegaconf 'tensordict>=0.8,<=0.10' codetiming orjson \\
        hydra-core 'transformers>=5.5.3,<5.11' pandas pyarrow torchdata
    verl-env/bin/python tests/oracles/make_verl_golden.py tests/data/verl_golden.npz
"""

import importlib.metadata
import os
import sys

import numpy as np

SEED = 0
ROWS, TOKENS = 24, 5
CLIP_LOW, CLIP_HIGH, DUAL_CLIP = 0.2, 0.3, 3.0


def make_inputs() -> dict[str, np.ndarray]:
    """Ragged groups of at least two, token masks, both signs of the advantage."""
    rng = np.random.default_rng(SEED)
    shape = (ROWS, TOKENS)
    old = -3 * rng.random(shape)
    group = np.concatenate([np.repeat([0, 1, 2, 3], 2), rng.integers(0, 4, ROWS - 8)])
    return {
        "reward": rng.choice([0.0, 1.0, 0.5], ROWS).astype(np.float32),
        "group": rng.permutation(group).astype(np.int32),
        "mask": np.arange(TOKENS) < rng.integers(1, TOKENS + 1, (ROWS, 1)),
        "old_log_prob": old.astype(np.float32),
        "log_prob": (old + 0.7 * rng.normal(size=shape)).astype(np.float32),
        "advantage": rng.normal(size=ROWS).astype(np.float32),
        "token_weight": (2 * rng.random(shape)).astype(np.float32),
        "logits": (3 * rng.normal(size=(ROWS, TOKENS, 11))).astype(np.float32),
    }


def make_outputs(inputs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Advantages, losses with gradients, and KL estimates, by verl."""
    # verl asks for a GPU otherwise; it reads the variable when it is imported.
    os.environ["VERL_FORCE_DEVICE"] = "cpu"
    import torch
    from verl.trainer.ppo import core_algos
    from verl.workers.config import ActorConfig

    given = {name: torch.tensor(value) for name, value in inputs.items()}
    mask = given["mask"].float()
    first = torch.zeros_like(mask)
    first[:, 0] = given["reward"]
    out = {}
    for name, function in {
        "grpo": core_algos.compute_grpo_outcome_advantage,
        "grpo_vectorized": core_algos.compute_grpo_vectorized_outcome_advantage,
        "rloo": core_algos.compute_rloo_outcome_advantage,
        "rloo_vectorized": core_algos.compute_rloo_vectorized_outcome_advantage,
    }.items():
        out[name] = function(first, mask, inputs["group"])[0][:, 0]
    centered = core_algos.compute_grpo_outcome_advantage(
        first, mask, inputs["group"], norm_adv_by_std_in_grpo=False
    )
    out["centered"] = centered[0][:, 0]
    # Seven equal rewards that float32 cannot hold exactly.
    equal, ones = torch.full((7, 1), 0.9), torch.ones(7, 1)
    out["grpo_equal"] = core_algos.compute_grpo_outcome_advantage(
        equal, ones, np.zeros(7, np.int64)
    )[0][:, 0]

    config = ActorConfig(
        strategy="fsdp",
        rollout_n=1,
        ppo_micro_batch_size_per_gpu=1,
        ppo_mini_batch_size=1,
        clip_ratio_low=CLIP_LOW,
        clip_ratio_high=CLIP_HIGH,
        clip_ratio_c=DUAL_CLIP,
    )
    advantage = given["advantage"][:, None].expand(mask.shape)
    vanilla = core_algos.compute_policy_loss_vanilla
    for name, function, mode, weights in (
        ("token_mean", vanilla, "token-mean", None),
        ("step_mean", vanilla, "seq-mean-token-mean", None),
        ("sampler_weight", vanilla, "token-mean", given["token_weight"]),
        ("gspo", core_algos.compute_policy_loss_gspo, "seq-mean-token-mean", None),
    ):
        log_prob = given["log_prob"].clone().requires_grad_()
        loss, metrics = function(
            given["old_log_prob"], log_prob, advantage, mask, mode, config, weights
        )
        loss.backward()
        out[f"{name}_loss"], out[f"{name}_grad"] = loss, log_prob.grad
        out[f"{name}_clip_fraction"] = torch.tensor(
            metrics["actor/pg_clipfrac"] + metrics["actor/pg_clipfrac_lower"]
        )
    for name in ("k1", "k2", "k3"):
        out[name] = core_algos.kl_penalty_forward(
            given["log_prob"], given["old_log_prob"], name
        )
    out["entropy"] = core_algos.compute_entropy_loss(given["logits"], mask)
    return {name: value.detach().numpy() for name, value in out.items()}


def main(path: str) -> None:
    """Write the file."""
    inputs = make_inputs()
    outputs = make_outputs(inputs)
    arrays = {f"in_{k}": v for k, v in inputs.items()}
    arrays |= {f"out_{k}": v for k, v in outputs.items()}
    for package in ("torch", "verl"):
        arrays[f"version_{package}"] = np.array(importlib.metadata.version(package))
    np.savez_compressed(path, **arrays)


if __name__ == "__main__":
    main(sys.argv[1])
