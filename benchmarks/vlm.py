"""Qwen-VL: train step against transformers and torch, sampling, loading.

On a CPU a small model is measured; on a GPU models of the published shapes with random
weights, of which no optimizer state is kept larger than memory allows.
"""

import argparse
import dataclasses
import functools
import tempfile
import time
from typing import Any

import jax
import jax.numpy as jnp

import stepjax
from benchmarks.measure import best_time, print_table, show_bytes, show_time
from benchmarks.vlm_cases import (
    RATE,
    Case,
    cases,
    make_rows,
    same_as_torch,
    time_torch,
)
from stepjax.launch.work import train_flops
from stepjax.models.qwen_vl.generate import generate
from stepjax.models.qwen_vl.model import make_qwen_vl
from stepjax.models.qwen_vl.packed import make_packed_evaluate
from stepjax.training.optimizer import make_adamw
from stepjax.training.state import init_train_state
from stepjax.training.step import make_train_step
from stepjax.types import StepBatch

__all__ = ["run"]

PEAK = {"NVIDIA H200": 989e12, "NVIDIA H100": 989e12, "NVIDIA A100": 312e12}
"""Operations a second in bfloat16, dense, by the makers' data sheets."""


def our_step(case: Case) -> tuple[Any, Any]:
    """A train step `(state, batch) -> (state, metrics)` and its first state."""
    large = jax.default_backend() != "cpu"
    model = make_qwen_vl(
        case.config,
        dtype=case.dtype,
        # In bfloat16 what does not fit in float32 next to moments and gradients.
        param_dtype=jnp.bfloat16 if case.moments == "bfloat16" else jnp.float32,
        remat="full" if large else "none",
    )
    tx = make_adamw(RATE, max_grad_norm=1.0, moments_dtype=case.moments)

    def loss_fn(output: Any, batch: StepBatch) -> Any:
        return stepjax.step_grpo_loss(output.log_prob, batch)

    step = make_train_step(
        make_packed_evaluate(model, entropy=False),
        tx,
        loss_fn,
        compute_dtype=case.dtype,
    )
    state = init_train_state(
        jax.random.key(0),
        model.init(jax.random.key(1)),
        tx,
        success_rate=stepjax.init_success_rate(1),
        task_ids=jnp.arange(1),
    )
    return jax.jit(step, donate_argnums=0), state


def time_ours(case: Case, *, shared: bool) -> tuple[float, float]:
    """Seconds of an update, and bytes of the program."""
    step, state = our_step(case)
    batch = jax.device_put(make_rows(case, shared=shared))
    compiled = step.lower(state, batch).compile()
    memory = compiled.memory_analysis()
    size = 0 if memory is None else memory.temp_size_in_bytes
    size += sum(
        leaf.nbytes for leaf in jax.tree.leaves((state.params, state.opt_state))
    )
    held = [state]

    def once() -> Any:
        held[0], metrics = compiled(held[0], batch)
        return metrics

    seconds = best_time(once, repeats=5, at_most_s=60)
    return seconds, float(size)


def time_sampling(case: Case, *, shared: bool) -> float:
    """Seconds of sampling `group` responses, from one prefill or from one for each."""
    model = make_qwen_vl(case.config, dtype=case.dtype, param_dtype=case.dtype)
    rows = make_rows(dataclasses.replace(case, rows=1, group=1), shared=False)
    times = 1 if shared else case.group
    prompt = jax.tree.map(lambda x: jnp.repeat(x, times, axis=0), rows.prompt)
    keys = jax.random.split(jax.random.key(0), case.group)
    keys = keys[None] if shared else keys[:, None]
    params = jax.jit(model.init)(jax.random.key(0))
    sample = jax.jit(
        functools.partial(
            generate,
            model,
            temperature=1.0,
            max_new_tokens=case.work.response,
            stop_tokens=(case.config.text.vocab_size - 1,),
        )
    )
    return best_time(lambda: sample(params, prompt, keys), repeats=3, at_most_s=60)


def time_loading(case: Case) -> tuple[float, float]:
    """Seconds to read a folder into arrays, and its size in bytes."""
    from stepjax.models.qwen_vl.tiny import write_tiny_checkpoint
    from stepjax.models.qwen_vl.weights import load_params

    with tempfile.TemporaryDirectory() as folder:
        write_tiny_checkpoint(folder, case.config)
        began = time.perf_counter()
        params = jax.block_until_ready(load_params(folder))
        seconds = time.perf_counter() - began
    return seconds, float(sum(leaf.nbytes for leaf in jax.tree.leaves(params)))


def run(args: argparse.Namespace) -> None:
    """Print the tables."""
    del args
    for case in cases():
        _print_train(case)
        _print_sampling(case)
    if jax.default_backend() == "cpu":
        seconds, size = time_loading(cases()[0])
        print(f"\nA folder of {show_bytes(size)} is loaded in {show_time(seconds)}.")


def _print_train(case: Case) -> None:
    work, rows = case.work, []
    tokens = case.rows * (work.prompt + work.response)
    for name, shared in (("stepjax, rows", False), ("stepjax, one prompt", True)):
        seconds, size = time_ours(case, shared=shared)
        rows.append((name, shared, seconds, show_bytes(size)))
    try:
        if jax.default_backend() == "cpu" and (apart := same_as_torch(case)) > 1e-5:
            raise RuntimeError(f"log-probabilities differ from torch's by {apart:.1e}")
        rows.insert(0, ("transformers + torch, rows", False, time_torch(case), "-"))
    except ImportError as error:
        print(f"\ntorch is left out: {error}")
    base = rows[0][2]
    kind = getattr(jax.devices()[0], "device_kind", "")
    peak = next((rate for name, rate in PEAK.items() if kind.startswith(name)), None)
    table = []
    for name, shared, seconds, size in rows:
        group = case.group if shared else 1
        model, _ = train_flops(case.config, work, group=group, remat=False, vision=True)
        rate = model * case.rows / group / seconds
        used = f"{rate / peak:.0%}" if peak else f"{rate / 1e9:,.0f} GFLOP/s"
        speed = f"{tokens / seconds:,.0f}"
        table.append([name, show_time(seconds), speed, f"{base / seconds:.2f}x", used])
        table[-1].append(size)
    print_table(
        f"Train step, {case.name}: {case.rows} rows of {work.prompt} + {work.response} "
        "tokens",
        ("how", "update", "tokens of rows / s", "speed", "MFU", "memory"),
        table,
    )


def _print_sampling(case: Case) -> None:
    said, table = case.group * case.work.response, []
    alone = time_sampling(case, shared=False)
    for name, seconds in (
        ("a prefill for each", alone),
        ("one prefill", time_sampling(case, shared=True)),
    ):
        speed = f"{said / seconds:,.0f}"
        table.append([name, show_time(seconds), speed, f"{alone / seconds:.2f}x"])
    print_table(
        f"Sampling {case.group} responses of {case.work.response} tokens to one prompt "
        f"of {case.work.prompt}, {case.name}",
        ("how", "time", "tokens / s", "speed"),
        table,
    )
