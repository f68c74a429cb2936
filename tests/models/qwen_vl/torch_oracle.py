"""Tiny random models of `transformers`, and their weights as our tree."""

import dataclasses
import functools

import numpy as np

from stepjax.models.qwen_vl.config import PRESETS, config_to_hf

TINY = {"qwen2_vl": "tiny-qwen2-vl", "qwen2_5_vl": "tiny-qwen2.5-vl"}


def tiny_config(architecture, **vision):
    config = PRESETS[TINY[architecture]]
    return dataclasses.replace(
        config, vision=dataclasses.replace(config.vision, **vision)
    )


def make_torch(config, seed=0):
    """A model whose norms and biases are random too, and whose weights keep sizes."""
    import torch
    import transformers

    name = {"qwen2_vl": "Qwen2VL", "qwen2_5_vl": "Qwen2_5_VL"}[config.architecture]
    values = config_to_hf(config) | {"torch_dtype": "float32"}
    hf = getattr(transformers, f"{name}Config").from_dict(values)
    model = getattr(transformers, f"{name}ForConditionalGeneration")._from_config(
        hf, attn_implementation="eager", dtype=torch.float32
    )
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for key, value in model.named_parameters():
            noise = torch.randn(value.shape, generator=generator)
            scale = 0.2 if value.ndim == 1 else 1.0 / value[0].numel() ** 0.5
            start = 1.0 if value.ndim == 1 and key.endswith("weight") else 0.0
            value.copy_(start + scale * noise)
    return model.eval()


def _linear(state, name, inputs=None, outputs=None):
    kernel = state[f"{name}.weight"]
    kernel = kernel.reshape(kernel.shape[0], -1).T
    kernel = kernel.reshape(
        *(inputs or kernel.shape[:1]), *(outputs or kernel.shape[1:])
    )
    tree = {"kernel": kernel}
    if f"{name}.bias" in state:
        bias = state[f"{name}.bias"]
        tree["bias"] = bias.reshape(outputs or bias.shape)
    return tree


def _norm(state, name):
    tree = {"scale": state[f"{name}.weight"]}
    if f"{name}.bias" in state:
        tree["bias"] = state[f"{name}.bias"]
    return tree


def _block(state, name, vision):
    heads = (vision.num_heads, vision.head_dim)
    parts = {
        "norm1": _norm(state, f"{name}.norm1"),
        "norm2": _norm(state, f"{name}.norm2"),
    }
    weight = np.split(state[f"{name}.attn.qkv.weight"], 3)
    bias = np.split(state[f"{name}.attn.qkv.bias"], 3)
    for i, part in enumerate(("query", "key", "value")):
        parts[part] = {
            "kernel": weight[i].T.reshape(-1, *heads),
            "bias": bias[i].reshape(heads),
        }
    parts["out"] = _linear(state, f"{name}.attn.proj", inputs=heads)
    names = {"gate": "gate_proj", "up": "up_proj", "down": "down_proj"}
    if f"{name}.mlp.fc1.weight" in state:
        names = {"up": "fc1", "down": "fc2"}
    for ours, theirs in names.items():
        parts[ours] = _linear(state, f"{name}.mlp.{theirs}")
    return parts


def _layer(state, name, text):
    query, key = (text.num_heads, text.head_dim), (text.num_kv_heads, text.head_dim)
    attn = f"{name}.self_attn"
    parts = {
        "attn_norm": _norm(state, f"{name}.input_layernorm"),
        "mlp_norm": _norm(state, f"{name}.post_attention_layernorm"),
        "query": _linear(state, f"{attn}.q_proj", outputs=query),
        "key": _linear(state, f"{attn}.k_proj", outputs=key),
        "value": _linear(state, f"{attn}.v_proj", outputs=key),
        "out": _linear(state, f"{attn}.o_proj", inputs=query),
    }
    for part in ("gate", "up", "down"):
        parts[part] = _linear(state, f"{name}.mlp.{part}_proj")
    return parts


def _stack(trees):
    import jax

    return jax.tree.map(lambda *leaves: np.stack(leaves), *trees)


def to_tree(state, config):
    """Our tree from arrays by the names of `model.state_dict()`; also for gradients."""
    blocks = [
        _block(state, f"model.visual.blocks.{i}", config.vision)
        for i in range(config.vision.depth)
    ]
    layers = [
        _layer(state, f"model.language_model.layers.{i}", config.text)
        for i in range(config.text.num_layers)
    ]
    tree = {
        "vision": {
            "patch_embed": _linear(state, "model.visual.patch_embed.proj"),
            "blocks": _stack(blocks),
            "merger": {
                "norm": _norm(state, "model.visual.merger.ln_q"),
                "up": _linear(state, "model.visual.merger.mlp.0"),
                "down": _linear(state, "model.visual.merger.mlp.2"),
            },
        },
        "embed": {"embedding": state["model.language_model.embed_tokens.weight"]},
        "decoder": {
            "layers": _stack(layers),
            "norm": _norm(state, "model.language_model.norm"),
        },
    }
    if not config.text.tie_word_embeddings:
        tree["head"] = _linear(state, "lm_head")
    return tree


def params_of(model, config):
    state = {key: value.detach().numpy() for key, value in model.named_parameters()}
    return to_tree(state, config)


def grads_of(model, config):
    state = {
        key: np.zeros(value.shape, np.float32)
        if value.grad is None
        else value.grad.numpy()
        for key, value in model.named_parameters()
    }
    return to_tree(state, config)


@functools.cache
def cached_torch(architecture):
    config = tiny_config(architecture)
    model = make_torch(config)
    return config, model, params_of(model, config)
