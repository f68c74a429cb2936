"""Log-probabilities over a large vocabulary: in chunks against all logits at once."""

import argparse

import jax
import jax.numpy as jnp
import numpy as np

import stepjax
from benchmarks.measure import best_time, print_table, show_bytes, show_time

__all__ = ["run"]

VOCABULARY = 151_936  # of the Qwen2.5 family
SMALL = (1024, 256, jnp.float32)  # tokens, hidden size, dtype: run and timed
LARGE = (16_384, 3584, jnp.bfloat16)  # compiled only; a 7B model's head


def naive(hidden, head, tokens):
    """Minus the summed log-probability, from all logits."""
    return -jnp.sum(stepjax.token_log_probs(hidden @ head, tokens))


def chunked(hidden, head, tokens):
    """Minus the summed log-probability, chunk by chunk."""
    return -jnp.sum(stepjax.chunked_token_log_probs(hidden, head, tokens))


def compiled(function, tokens: int, width: int, dtype):
    """Value and gradient for hidden states and head, compiled; and its extra bytes."""
    shapes = (
        jax.ShapeDtypeStruct((tokens, width), dtype),
        jax.ShapeDtypeStruct((width, VOCABULARY), dtype),
        jax.ShapeDtypeStruct((tokens,), jnp.int32),
    )
    program = jax.jit(jax.value_and_grad(function, argnums=(0, 1)))
    program = program.lower(*shapes).compile()
    analysis = program.memory_analysis()
    if analysis is None:
        raise RuntimeError("this backend does not say how much memory a program takes")
    return program, analysis.temp_size_in_bytes


def run(args: argparse.Namespace) -> None:
    """Print the table."""
    del args
    functions = {"all logits at once": naive, "chunks of the vocabulary": chunked}
    tokens, width, dtype = SMALL
    keys = jax.random.split(jax.random.key(0), 3)
    data = (
        jax.random.normal(keys[0], (tokens, width), dtype),
        jax.random.normal(keys[1], (width, VOCABULARY), dtype) * 0.02,
        jax.random.randint(keys[2], (tokens,), 0, VOCABULARY),
    )
    rows, values = [], []
    for name, function in functions.items():
        program, extra = compiled(function, *SMALL)
        value, grads = program(*data)
        values.append((value, *grads))
        seconds = best_time(lambda run=program: run(*data), repeats=5, at_most_s=40)
        forward = jax.jit(function)
        value_only = best_time(lambda run=forward: run(*data), repeats=5, at_most_s=20)
        _, large_extra = compiled(function, *LARGE)
        rows.append((name, value_only, seconds, extra, large_extra))
    for first, second in zip(*values, strict=True):
        scale = float(jnp.max(jnp.abs(first)))
        worst = float(np.max(np.abs(np.asarray(first) - np.asarray(second))))
        if not worst <= 1e-5 * scale:
            raise RuntimeError(f"the two differ by {worst} of {scale}; nothing printed")
    base = rows[0]
    print_table(
        f"Log-probabilities and gradients, vocabulary {VOCABULARY:,}",
        (
            "how",
            f"values, {tokens} x {width} float32",
            "and gradients",
            "extra memory",
            f"extra memory, {LARGE[0]} x {LARGE[1]} bfloat16",
            "share of naive",
        ),
        [
            [
                name,
                show_time(value_only),
                show_time(seconds),
                show_bytes(extra),
                show_bytes(large),
                f"1/{base[3] / extra:.0f}, 1/{base[4] / large:.0f}",
            ]
            for name, value_only, seconds, extra, large in rows
        ],
    )
    print(
        "\nExtra memory is what the compiled program needs beside inputs and outputs."
    )
