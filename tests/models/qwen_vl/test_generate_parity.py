"""Responses from a cache equal to those of `transformers` from its own."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

pytest.importorskip("torch", reason="parity needs torch")
pytest.importorskip("transformers", reason="parity needs transformers")

import torch

from stepjax.models.qwen_vl.generate import generate
from stepjax.models.qwen_vl.model import make_qwen_vl
from stepjax.models.qwen_vl.prompt import VLPrompt
from stepjax.models.qwen_vl.tables import rope_positions
from stepjax.models.qwen_vl.vision import patches_of
from tests.models.qwen_vl import torch_oracle
from tests.models.qwen_vl.test_parity import batch_of

pytestmark = pytest.mark.slow  # compilers take longer than the tests

TOKENS, SIDES = 8, (56, 84)
GRID = (SIDES[0] // 14, SIDES[1] // 14)
TEXTS = [([GRID], 1, 3, 9), ([GRID], 2, 6, 2)]  # of different length


@pytest.fixture(autouse=True, scope="module")
def quick_compiles():
    """Programs that run once: compiling them well costs more than it saves."""
    jax.config.update("jax_disable_most_optimizations", True)
    yield
    jax.config.update("jax_disable_most_optimizations", False)


def prompt_of(config):
    """Two prompts, each with a screenshot of its own and text around it."""
    tokens, positions, segments, index = batch_of(config, TEXTS, "left")
    after = [
        rope_positions(row[real == 0], [GRID], config)[0].max() + 1
        for row, real in zip(tokens, segments, strict=True)
    ]
    images = np.random.default_rng(0).integers(0, 256, (2, 1, *SIDES, 3), np.uint8)
    visual = np.sum(index[0] >= 0)  # of each row; there, they are counted on
    own = np.where(index >= 0, index % visual, -1)
    return VLPrompt(
        tokens=tokens,
        positions=positions,
        segments=segments,
        next_position=np.array(after, np.int32),
        images=images,
        image_index=own.astype(np.int32),
    )


def theirs(model, config, prompt):
    """Tokens [S, A] and the log-probability of each."""
    given = torch.tensor(prompt.tokens, dtype=torch.long)
    patches = patches_of(jnp.asarray(prompt.images[:, 0]), config.vision)
    with torch.no_grad():
        out = model.generate(
            input_ids=given,
            attention_mask=torch.tensor(prompt.segments == 0).long(),
            pixel_values=torch.tensor(
                np.array(patches).reshape(-1, config.vision.patch_dim)
            ),
            image_grid_thw=torch.tensor([(1, *GRID)] * len(given)),
            mm_token_type_ids=(given == config.image_token_id).int(),
            max_new_tokens=TOKENS,
            min_new_tokens=TOKENS,
            do_sample=False,
            return_dict_in_generate=True,
            output_logits=True,
        )
    tokens = out.sequences[:, given.shape[1] :]
    log_probs = torch.log_softmax(torch.stack(out.logits, dim=1), dim=-1)
    chosen = log_probs.gather(-1, tokens[..., None])[..., 0]
    return tokens.numpy(), chosen.numpy()


@pytest.mark.parametrize("architecture", ["qwen2_vl", "qwen2_5_vl"])
def test_greedy_responses_to_screenshots(architecture):
    config, model, params = torch_oracle.cached_torch(architecture)
    prompt = prompt_of(config)
    tokens, log_prob = theirs(model, config, prompt)
    assert len(np.unique(tokens)) > 4, "an answer of one token would hide differences"
    run = functools.partial(
        generate,
        make_qwen_vl(config, dtype=jnp.float32, attention="plain"),
        temperature=0.0,
        max_new_tokens=TOKENS,
        stop_tokens=(),
    )
    keys = jax.random.split(jax.random.key(0), (2, 1))
    compiled = jax.jit(run)
    out = compiled(params, prompt, keys)
    np.testing.assert_array_equal(out.tokens[:, 0], tokens)
    np.testing.assert_allclose(out.log_prob[:, 0], log_prob, rtol=0, atol=1e-4)
    # Responses that begin one place too late are seen to be others.
    late = dataclasses.replace(prompt, next_position=prompt.next_position + 1)
    gap = np.abs(compiled(params, late, keys).log_prob[:, 0] - log_prob)
    assert gap[:, 1:].max() > 1e-3
