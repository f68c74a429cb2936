"""Vision, logits, loss and gradients equal to `transformers` on random weights."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

pytest.importorskip("torch", reason="parity needs torch")
pytest.importorskip("transformers", reason="parity needs transformers")

import torch

from stepjax.models.qwen_vl.model import make_qwen_vl
from stepjax.models.qwen_vl.tables import num_visual, rope_positions
from stepjax.models.qwen_vl.vision import patches_of as patches_of_images
from tests.models.qwen_vl import torch_oracle

BOTH = ("qwen2_vl", "qwen2_5_vl")
TOLERANCE = 1e-5


@pytest.fixture(autouse=True, scope="module")
def quick_compiles():
    """Programs that run once: compiling them well costs more than it saves."""
    jax.config.update("jax_disable_most_optimizations", True)
    yield
    jax.config.update("jax_disable_most_optimizations", False)


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
    assert jax.tree.structure(ours) == jax.tree.structure(theirs)
    wrong = {}
    for (path, mine), other in zip(
        jax.tree_util.tree_leaves_with_path(ours), jax.tree.leaves(theirs), strict=True
    ):
        size = np.linalg.norm(other)
        gap = np.linalg.norm(np.asarray(mine) - other) / (size + 1e-4)
        if gap > tolerance:
            wrong[jax.tree_util.keystr(path)] = f"{gap:.1e} of {size:.1e}"
    assert not wrong


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


SMALL, LARGE = (4, 6), (8, 12)
RAGGED = [([LARGE, SMALL], 1, 3), ([SMALL], 2, 5)]


@pytest.mark.parametrize("architecture", BOTH)
def test_ragged_images_in_a_left_padded_batch(architecture):
    compare(*torch_oracle.cached_torch(architecture), RAGGED, "left")


@pytest.mark.slow
@pytest.mark.parametrize("architecture", BOTH)
def test_images_and_text_in_a_right_padded_batch(architecture):
    prompts = [([SMALL, (10, 14)], 1), ([], 2, 9)]
    compare(*torch_oracle.cached_torch(architecture), prompts, "right")


@pytest.mark.slow
@pytest.mark.parametrize("architecture", BOTH)
def test_text_only(architecture):
    prompts = [([], 1, 8), ([], 2, 5)]
    compare(*torch_oracle.cached_torch(architecture), prompts, "left")


@pytest.mark.slow
def test_larger_windows_that_the_image_fills_in_part():
    config = torch_oracle.tiny_config(
        "qwen2_5_vl", window_size=112, depth=3, full_attention_layers=(1,)
    )
    theirs = torch_oracle.make_torch(config, seed=1)
    params = torch_oracle.params_of(theirs, config)
    compare(config, theirs, params, [([(18, 26)], 4)], "left")


@pytest.mark.slow
def test_an_untied_head_and_grouped_heads_of_one_key():
    config = torch_oracle.tiny_config("qwen2_vl")
    text = dataclasses.replace(
        config.text, tie_word_embeddings=False, num_kv_heads=1, rope_theta=1e4
    )
    config = dataclasses.replace(config, text=text)
    theirs = torch_oracle.make_torch(config, seed=2)
    params = torch_oracle.params_of(theirs, config)
    compare(config, theirs, params, [([SMALL], 4)], "left")


def both_logits(architecture, change):
    """Logits of real entries from both sides, after a change to ours."""
    config, theirs, params = torch_oracle.cached_torch(architecture)
    grids = (LARGE,)
    arrays = batch_of(config, [(grids, 1)], "left")
    patches = patches_of(config, grids)
    config, arrays = change(config, arrays)
    model = make_qwen_vl(config, dtype=jnp.float32, attention="plain")
    with torch.no_grad():
        logits = run_torch(theirs, config, arrays[0], arrays[2], patches, grids)
    run = jax.jit(logits_of, static_argnums=(0, 4))
    return run(model, params, arrays, patches, grids), logits.numpy()


def windows_off(config, arrays):
    every = tuple(range(config.vision.depth))
    vision = dataclasses.replace(config.vision, full_attention_layers=every)
    return dataclasses.replace(config, vision=vision), arrays


def one_axis(config, arrays):
    tokens, positions, segments, index = arrays
    slots = np.arange(tokens.shape[1], dtype=np.int32)
    positions = np.broadcast_to(slots[None, None], positions.shape)
    return config, (tokens, positions, segments, index)


@pytest.mark.parametrize(
    ("architecture", "change"),
    [
        ("qwen2_5_vl", windows_off),
        ("qwen2_5_vl", one_axis),
        pytest.param("qwen2_vl", one_axis, marks=pytest.mark.slow),
    ],
)
def test_a_wrong_model_is_seen_to_be_wrong(architecture, change):
    ours, theirs = both_logits(architecture, change)
    assert np.abs(ours - theirs).max() > 100 * TOLERANCE * np.abs(theirs).max()


@pytest.mark.slow
@pytest.mark.parametrize("architecture", BOTH)
def test_bfloat16_is_near(architecture):
    config, _, params = torch_oracle.cached_torch(architecture)
    arrays = batch_of(config, [([SMALL], 1)], "left")
    patches = patches_of(config, [SMALL])
    run = jax.jit(logits_of, static_argnums=(0, 4))
    exact, near = (
        run(make_qwen_vl(config, dtype=dtype), params, arrays, patches, (SMALL,))
        for dtype in (jnp.float32, jnp.bfloat16)
    )
    assert near.dtype == jnp.float32  # Of the parameters: hidden states are 16 bits.
    gap = np.linalg.norm(exact - near) / np.linalg.norm(exact)
    assert 1e-4 < gap < 0.05


@pytest.mark.slow
@pytest.mark.parametrize("architecture", BOTH)
def test_screenshots_give_the_patches_of_the_image_processor(architecture):
    config, theirs, params = torch_oracle.cached_torch(architecture)
    processing = pytest.importorskip(
        "transformers.models.qwen2_vl.image_processing_pil_qwen2_vl",
        reason="needs transformers >= 5 and pillow",
    )
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (2, 56, 84, 3)).astype(np.uint8)
    processor = processing.Qwen2VLImageProcessorPil(do_resize=False)
    given = processor(list(images), return_tensors="np")
    assert given["image_grid_thw"].tolist() == [[1, 4, 6]] * 2
    patches = patches_of_images(jnp.asarray(images), config.vision)
    patches = patches.reshape(-1, config.vision.patch_dim)
    np.testing.assert_allclose(patches, given["pixel_values"], rtol=0, atol=1e-5)
    model = make_qwen_vl(config, dtype=jnp.float32)
    seen = jax.jit(model.see)(params, images[None])
    with torch.no_grad():
        out = theirs.model.visual(
            torch.tensor(given["pixel_values"]),
            grid_thw=torch.tensor(given["image_grid_thw"]),
        )
    close(seen[0], out.pooler_output.numpy())


def test_images_that_do_not_fit_are_named():
    config, _, params = torch_oracle.cached_torch("qwen2_vl")
    model = make_qwen_vl(config)
    for shape, message in [
        ((1, 1, 50, 56, 3), "multiples of 28, got 50 x 56"),
        ((1, 1, 0, 56, 3), "multiples of 28, got 0 x 56"),
        ((1, 56, 56, 3), "must have shape"),
    ]:
        with pytest.raises(ValueError, match=message):
            model.see(params, jnp.zeros(shape, jnp.uint8))
    with pytest.raises(ValueError, match="must be uint8, got float32"):
        model.see(params, jnp.zeros((1, 1, 56, 56, 3)))
    with pytest.raises(ValueError, match="patches must have shape \\[24, 1176\\]"):
        model.see_patches(params, jnp.zeros((23, 1176)), [SMALL])
    with pytest.raises(ValueError, match="give both visual and image_index"):
        model.embed(params, jnp.zeros((1, 3), jnp.int32), jnp.zeros((1, 2, 64)))
