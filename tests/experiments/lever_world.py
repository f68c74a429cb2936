"""A world of levers: small enough that whole runs take seconds.

Task t is solved by pulling the right lever at each of three steps. The policy is a
table of logits. Run as a script it trains in the folder named by its first argument,
so that tests can kill it.
"""

import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from experiments.config import (
    AlgoConfig,
    CheckpointConfig,
    EvalConfig,
    ExperimentConfig,
    OptimizerConfig,
)
from stepjax.models.pointer import PointerPolicy
from stepjax.rollout.backend import TaskTable
from stepjax.types import PolicyOutput, Trajectories

NUM_TASKS, NUM_STEPS, NUM_LEVERS = 20, 3, 4


def _logits(params, prompt):
    return params["table"][prompt["task"], prompt["step"]]  # [S, V]


def _sample(params, prompt, keys, *, temperature):
    logits = _logits(params, prompt)
    temperature = jnp.asarray(temperature, jnp.float32)
    noise = jax.vmap(lambda key: jax.random.gumbel(key, (NUM_LEVERS,)))(keys)
    token = jnp.argmax(logits + temperature * noise, axis=-1)[:, None]
    divisor = jnp.where(temperature > 0, temperature, 1.0)
    log_probs = jax.nn.log_softmax(logits / divisor)
    log_prob = jnp.take_along_axis(log_probs, token, axis=-1)
    return token.astype(jnp.int32), jnp.ones_like(token, bool), log_prob


def _evaluate(params, prompt, action_tokens, token_mask, *, temperature=1.0):
    log_probs = jax.nn.log_softmax(_logits(params, prompt) / temperature)
    log_prob = jnp.take_along_axis(log_probs, action_tokens, axis=-1)
    entropy = -jnp.sum(jnp.exp(log_probs) * log_probs, axis=-1, keepdims=True)
    return PolicyOutput(
        log_prob=jnp.where(token_mask, log_prob, 0.0),
        entropy=jnp.where(token_mask, entropy, 0.0),
    )


POLICY = PointerPolicy(init=lambda *_: None, sample=_sample, evaluate=_evaluate)


def start_params(scale: float = 1.0):
    """Tasks differ in how well the start solves them: 0 hardly, the last almost."""
    right = (np.arange(NUM_TASKS)[:, None] + np.arange(NUM_STEPS)) % NUM_LEVERS
    known = np.linspace(-1.0, 4.0, NUM_TASKS, dtype=np.float32)[:, None, None]
    return {"table": scale * known * np.eye(NUM_LEVERS, dtype=np.float32)[right]}


@jax.jit
def _collect(params, task_ids, key, temperature, first_slot):
    count = task_ids.shape[0]
    steps = jnp.broadcast_to(jnp.arange(NUM_STEPS), (count, NUM_STEPS))
    tasks = jnp.broadcast_to(task_ids[:, None], (count, NUM_STEPS))
    prompt = {"task": tasks.reshape(-1), "step": steps.reshape(-1)}
    slots = jnp.arange(count, dtype=jnp.uint32)[:, None] + first_slot
    numbers = slots * NUM_STEPS + jnp.arange(NUM_STEPS, dtype=jnp.uint32)[None]
    keys = jax.vmap(jax.random.fold_in, (None, 0))(key, numbers.reshape(-1))
    parts = _sample(params, prompt, keys, temperature=temperature)
    tokens, mask, log_prob = (part.reshape(count, NUM_STEPS, 1) for part in parts)
    right = jnp.all(tokens[:, :, 0] == (tasks + steps) % NUM_LEVERS, axis=1)
    return Trajectories(
        task_id=task_ids,
        prompt={"task": tasks, "step": steps},
        action_tokens=tokens,
        token_mask=mask,
        log_prob=log_prob,
        step_mask=jnp.ones((count, NUM_STEPS), bool),
        state_hash=(tasks * NUM_STEPS + steps).astype(jnp.uint32),
        reward=right.astype(jnp.float32),
        valid=jnp.ones(count, bool),
    )


class LeverBackend:
    """Levers; counts its calls and keeps the task ids and seeds it was given."""

    name = "levers"
    max_steps = NUM_STEPS
    tasks = TaskTable(
        names=tuple(f"levers {index}" for index in range(NUM_TASKS)),
        domains=("levers",) * NUM_TASKS,
        train_ids=np.arange(0, 12, dtype=np.int32),
        unseen_ids=np.arange(12, NUM_TASKS, dtype=np.int32),
        infeasible=np.arange(NUM_TASKS) == NUM_TASKS - 1,
        instruction=lambda task_id, seed: f"pull the levers of task {task_id}",
    )

    def __init__(self):
        self.calls = []
        self.on_collect = lambda calls: None

    def collect(self, params, task_ids, seeds, key, *, temperature, first_slot=0):
        self.calls.append((temperature, task_ids.copy(), seeds.copy()))
        self.on_collect(self.calls)
        return jax.device_get(
            _collect(
                params,
                jnp.asarray(task_ids),
                key,
                np.float32(temperature),
                np.uint32(first_slot),
            )
        )

    def replay(self, task_id, seed, action_tokens):
        return []

    def close(self):
        pass


def lever_config(run_dir: Path, method: str = "step", **changes) -> ExperimentConfig:
    settings = {
        "rounds": 6,
        "algo": AlgoConfig(
            method=method,
            tasks_per_round=4,
            group_size=8,
            temperature=1.0,
            rows_per_update=32,
        ),
        "optim": OptimizerConfig(learning_rate=0.05),
        "checkpoint": CheckpointConfig(save_every=2),
        "eval": EvalConfig(every=3),
    }
    return ExperimentConfig(run_dir=run_dir, **settings | changes)


if __name__ == "__main__":
    from experiments.loop import train

    train(
        lever_config(Path(sys.argv[1]), rounds=int(sys.argv[2])),
        backend=LeverBackend(),
        policy=POLICY,
        start_params=start_params(),
    )
