"""Vision, logits, loss and gradients equal to `transformers` on random weights."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

pytest.importorskip("torch", reason="parity needs the extra oracle: torch")
pytest.importorskip(
    "transformers", reason="parity needs the extra oracle: transformers"
)

import torch

from stepjax.models.qwen_vl.model import make_qwen_vl
from stepjax.models.qwen_vl.tables import num_visual, rope_positions
from tests.models.qwen_vl import torch_oracle

BOTH = ("qwen2_vl", "qwen2_5_vl")
TOLERANCE = 1e-5


def prompt_of(config, grids, key, before=4, after=7):
    """Tokens of a prompt with text around each image, and where visual tokens stand."""
    rng = np.random.default_rng(key)

    def words(count):
        return rng.integers(0, 400, count).tolist()

    tokens = words(before)
    for grid in grids:
        tokens.append(config.vision_start_token_id)
        tokens += [config.image_token_id] * num_visual(grid, config.vision)
        tokens += [config.vision_end_token_id, *words(2)]
    return np.array(tokens + words(after), np.int32)


def batch_of(config, prompts, pad):
    """Prompts (grids, key, more text) padded on a side, as arrays of both worlds."""
    rows = [prompt_of(config, *prompt) for prompt in prompts]
    length = max(len(row) for row in rows)
    tokens = np.full((len(rows), length), 7, np.int32)
    positions = np.zeros((len(rows), 3, length), np.int32)
    segments = np.full((len(rows), length), -1, np.int32)
    index = np.full((len(rows), length), -1, np.int32)
    start = 0
    for i, (row, prompt) in enumerate(zip(rows, prompts, strict=True)):
        at = slice(length - len(row), length) if pad == "left" else slice(0, len(row))
        tokens[i, at], segments[i, at] = row, 0
        positions[i, :, at] = rope_positions(row, prompt[0], config)[0]
        visual = tokens[i] == config.image_token_id
        index[i, visual] = start + np.arange(visual.sum())
        start += visual.sum()
    return tokens, positions, segments, index


def patches_of(config, grids, key=3):
    rng = np.random.default_rng(key)
    count = sum(rows * columns for rows, columns in grids)
    return rng.normal(size=(count, config.vision.patch_dim)).astype(np.float32)


def run_torch(model, config, tokens, segments, patches, grids):
    model.zero_grad()
    grid = torch.tensor([(1, *grid) for grid in grids]) if grids else None
    given = torch.tensor(tokens, dtype=torch.long)
    kwargs = {}
    if grids:
        kwargs = {
            "pixel_values": torch.tensor(patches),
            "image_grid_thw": grid,
            "mm_token_type_ids": (given == config.image_token_id).int(),
        }
    out = model(
        input_ids=given, attention_mask=torch.tensor(segments == 0).long(), **kwargs
    )
    return out.logits


def next_tokens(tokens, segments):
    return tokens[:, 1:], (segments[:, 1:] == 0) & (segments[:, :-1] == 0)


def torch_loss(logits, tokens, segments):
    labels, weight = next_tokens(tokens, segments)
    nll = torch.nn.functional.cross_entropy(
        logits[:, :-1].flatten(0, 1),
        torch.tensor(labels, dtype=torch.long).flatten(),
        reduction="none",
    )
    weight = torch.tensor(weight).flatten()
    return (nll * weight).sum() / weight.sum()


def logits_of(model, params, arrays, patches, grids):
    tokens, positions, segments, index = arrays
    visual = None
    if grids:
        visual = model.see_patches(params, patches, grids)
        visual = jnp.broadcast_to(visual, (len(tokens), *visual.shape))
    x = model.embed(params, tokens, visual, index if grids else None)
    hidden, _ = model.decode(params, x, positions, segments)
    return hidden @ model.unembed(params)


def loss_of(params, model, arrays, patches, grids):
    logits = logits_of(model, params, arrays, patches, grids)
    labels, weight = next_tokens(arrays[0], arrays[2])
    log_probs = jax.nn.log_softmax(logits[:, :-1])
    nll = -jnp.take_along_axis(log_probs, labels[..., None], axis=-1)[..., 0]
    return jnp.sum(nll * weight) / weight.sum(), logits


def close(ours, theirs, tolerance=TOLERANCE):
    """Equal to `tolerance`, relative to the largest number."""
    ours, theirs = np.asarray(ours), np.asarray(theirs)
    scale = max(1.0, float(np.abs(theirs).max()))
    np.testing.assert_allclose(ours, theirs, rtol=0, atol=tolerance * scale)


def grads_close(ours, theirs, tolerance=TOLERANCE):
    """Each leaf equal relative to its own norm; a leaf without gradient stays so."""
    paths, _ = jax.tree_util.tree_flatten_with_path(ours)
    assert jax.tree.structure(ours) == jax.tree.structure(theirs)
    for (path, mine), other in zip(paths, jax.tree.leaves(theirs), strict=True):
        gap = np.linalg.norm(np.asarray(mine) - other)
        name = jax.tree_util.keystr(path)
        assert gap <= tolerance * (np.linalg.norm(other) + 1e-4), (name, gap)


def compare(config, theirs, params, prompts, pad, grads=True, **options):
    grids = [grid for prompt in prompts for grid in prompt[0]]
    arrays = batch_of(config, prompts, pad)
    patches = patches_of(config, grids)
    model = make_qwen_vl(config, dtype=jnp.float32, attention="plain", **options)
    logits = run_torch(theirs, config, arrays[0], arrays[2], patches, grids)
    loss = torch_loss(logits, arrays[0], arrays[2])
    loss.backward()
    step = jax.jit(jax.value_and_grad(loss_of, has_aux=True), static_argnums=(1, 4))
    (our_loss, our_logits), our_grads = step(
        params, model, arrays, patches, tuple(grids)
    )
    real = arrays[2] == 0
    scale = logits.detach()[torch.tensor(real)].std()
    assert scale > 0.3, f"logits of std {scale} would hide differences"
    close(our_logits[real], logits.detach().numpy()[real])
    close(our_loss, loss.detach().numpy())
    if grads:
        grads_close(our_grads, torch_oracle.grads_of(theirs, config))


RAGGED = [([(8, 12), (10, 14)], 1, 3), ([(4, 6)], 2, 5)]


@pytest.mark.parametrize("architecture", BOTH)
def test_ragged_images_in_a_left_padded_batch(architecture):
    compare(*torch_oracle.cached_torch(architecture), RAGGED, "left")
