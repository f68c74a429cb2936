"""What benchmarks of Qwen-VL models run on, and the same for transformers."""

import dataclasses
import tempfile
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.measure import best_time
from stepjax.launch.work import Workload
from stepjax.models.qwen_vl.config import PRESETS, config_to_hf
from stepjax.models.qwen_vl.dimensions import QwenVLConfig
from stepjax.models.qwen_vl.export import save_params
from stepjax.models.qwen_vl.model import make_qwen_vl
from stepjax.models.qwen_vl.packed import make_packed_evaluate
from stepjax.models.qwen_vl.prompt import VLPrompt
from stepjax.models.qwen_vl.tables import rope_positions
from stepjax.models.qwen_vl.vision import patches_of
from stepjax.types import StepBatch

__all__ = ["RATE", "Case", "cases", "make_rows", "same_as_torch", "time_torch"]

RATE = 1e-5
"""Learning rate of all updates."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Case:
    """What is measured on a kind of device.

    Attributes:
      name: Of the model.
      config: Its dimensions.
      work: Shapes of a step.
      rows: Step samples of an update.
      group: Responses that share a prompt.
      dtype: Of the activations.
      moments: Of the optimizer.
    """

    name: str
    config: QwenVLConfig
    work: Workload
    rows: int
    group: int
    dtype: Any
    moments: str = "float32"


def cases() -> list[Case]:
    """Small on a CPU, published shapes on an accelerator."""
    if jax.default_backend() == "cpu":
        tiny = PRESETS["tiny-qwen2.5-vl"]
        vision = dataclasses.replace(
            tiny.vision, hidden_size=256, intermediate_size=684, num_heads=4
        )
        text = dataclasses.replace(
            tiny.text,
            hidden_size=512,
            intermediate_size=1408,
            num_layers=6,
            num_heads=8,
            num_kv_heads=2,
            vocab_size=32_000,
            mrope_section=(8, 12, 12),
        )
        config = dataclasses.replace(tiny, vision=vision, text=text)
        work = Workload(height=336, width=448, images=1, prompt=320, response=24)
        return [
            Case(
                name="30 M, as Qwen2.5-VL",
                config=config,
                work=work,
                rows=8,
                group=8,
                dtype=jnp.float32,
            )
        ]
    work = Workload(height=1092, width=1932, images=1, prompt=3200, response=128)
    found = []
    for name, moments in (("qwen2-vl-2b", "float32"), ("qwen2.5-vl-7b", "bfloat16")):
        found.append(
            Case(
                name=name,
                config=PRESETS[name],
                work=work,
                rows=8,
                group=8,
                dtype=jnp.bfloat16,
                moments=moments,
            )
        )
    return found


def make_rows(case: Case, *, shared: bool) -> StepBatch:
    """Random step samples; with `shared`, groups [Q, G] of the same number of rows."""
    config, work = case.config, case.work
    side = config.vision.token_size
    seen = work.images * (work.height // side) * (work.width // side)
    grid = (
        work.height // config.vision.patch_size,
        work.width // config.vision.patch_size,
    )
    rng = np.random.default_rng(0)
    tokens = rng.integers(0, 400, work.prompt, dtype=np.int32)
    tokens[1], tokens[2 + seen] = (
        config.vision_start_token_id,
        config.vision_end_token_id,
    )
    tokens[2 : 2 + seen] = config.image_token_id
    index = np.full(work.prompt, -1, np.int32)
    index[2 : 2 + seen] = np.arange(seen)
    positions, following = rope_positions(tokens, [grid] * work.images, config)
    prompts = case.rows // case.group if shared else case.rows
    rows = (prompts, case.group) if shared else (prompts,)
    shape = (work.images, work.height, work.width, 3)
    prompt: dict[str, Any] = {
        "tokens": tokens,
        "positions": positions,
        "segments": np.zeros(work.prompt, np.int32),
        "next_position": np.int32(following),
        "images": rng.integers(0, 256, shape, dtype=np.uint8),
        "image_index": index,
    }
    said = (*rows, work.response)
    stacked: dict[str, Any] = {k: np.stack([v] * prompts) for k, v in prompt.items()}
    leaves: dict[str, Any] = {
        "prompt": VLPrompt(**stacked),
        "action_tokens": rng.integers(0, 400, said, dtype=np.int32),
        "token_mask": np.ones(said, bool),
        "old_log_prob": np.full(said, -9.0, np.float32),
        "advantage": rng.normal(size=rows).astype(np.float32),
        "weight": np.ones(rows, np.float32),
        "task_id": np.zeros(rows, np.int32),
        "trajectory_id": np.zeros(rows, np.int32),
    }
    return StepBatch(**leaves)


def same_as_torch(case: Case) -> float:
    """Largest difference of log-probabilities from those of transformers.

    Both are given the same weights and the same two rows.

    Raises:
      ImportError: If torch, transformers or safetensors is not installed.
    """
    import torch  # pyright: ignore[reportMissingImports]

    few = dataclasses.replace(case, rows=2, group=1)
    rows: Any = jax.tree.map(jnp.asarray, make_rows(few, shared=False))
    model = make_qwen_vl(case.config, dtype=case.dtype)
    params = model.init(jax.random.key(1))
    evaluate = jax.jit(make_packed_evaluate(model, entropy=False))
    ours = evaluate(params, rows.prompt, rows.action_tokens, rows.token_mask).log_prob
    with tempfile.TemporaryDirectory() as folder:
        save_params(folder, params, case.config, dtype="float32", overwrite=True)
        theirs = _torch_class(case).from_pretrained(
            folder, attn_implementation="sdpa", dtype=torch.float32
        )
    inputs, _ = _torch_inputs(few, "cpu", torch.float32)
    with torch.no_grad():
        found = _torch_log_probs(theirs, inputs, case.work.prompt)
    return float(np.max(np.abs(np.asarray(ours) - found.numpy())))


def _torch_class(case: Case) -> Any:
    import transformers  # pyright: ignore[reportMissingImports]

    name = {"qwen2_vl": "Qwen2VL", "qwen2_5_vl": "Qwen2_5_VL"}[case.config.architecture]
    return getattr(transformers, f"{name}ForConditionalGeneration")


def _torch_log_probs(model: Any, inputs: dict[str, Any], prompt: int) -> Any:
    """Log-probabilities of the tokens after the prompt; only these reach the head."""
    import torch  # pyright: ignore[reportMissingImports]

    said = inputs["input_ids"][:, prompt:]
    logits = model(**inputs, logits_to_keep=said.shape[1] + 1).logits[:, :-1].float()
    chosen = torch.gather(logits, 2, said[..., None])[..., 0]
    return chosen - torch.logsumexp(logits, dim=-1)


def time_torch(case: Case) -> float:
    """Seconds of the same update by transformers and torch, rows one by one.

    Only response positions reach the head, the loss has the same shape, AdamW is
    torch's own.
    """
    import torch  # pyright: ignore[reportMissingImports]

    kind = _torch_class(case)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    dtype = torch.bfloat16 if case.dtype == jnp.bfloat16 else torch.float32
    hf = kind.config_class.from_dict(config_to_hf(case.config))
    with torch.device(device):
        model = kind._from_config(hf, attn_implementation="sdpa", dtype=dtype)
    if device == "cuda":
        model.gradient_checkpointing_enable()
    optimizer = torch.optim.AdamW(model.parameters(), lr=RATE)
    inputs, advantage = _torch_inputs(case, device, dtype)

    def once() -> float:
        log_prob = _torch_log_probs(model, inputs, case.work.prompt)
        ratio = torch.exp(torch.clamp(log_prob - log_prob.detach(), -20, 20))
        loss = -(ratio * advantage[:, None]).mean()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        return float(loss)

    return best_time(once, repeats=5, at_most_s=60)


def _torch_inputs(case: Case, device: str, dtype: Any) -> tuple[dict[str, Any], Any]:
    """The rows of `make_rows` as a transformers model takes them, and advantages."""
    import torch  # pyright: ignore[reportMissingImports]

    batch, config = make_rows(case, shared=False), case.config
    tokens = np.concatenate([batch.prompt.tokens, batch.action_tokens], axis=1)
    size = config.vision.patch_size
    grid = (1, case.work.height // size, case.work.width // size)
    images = batch.prompt.images.reshape(-1, *batch.prompt.images.shape[2:])
    patches = np.asarray(patches_of(jnp.asarray(images), config.vision))
    pixels = torch.tensor(patches.reshape(-1, config.vision.patch_dim))
    given = torch.tensor(tokens, dtype=torch.long, device=device)
    inputs = {
        "input_ids": given,
        "attention_mask": torch.ones_like(given),
        "pixel_values": pixels.to(device=device, dtype=dtype),
        "image_grid_thw": torch.tensor(
            [grid] * (case.rows * case.work.images), device=device
        ),
        "mm_token_type_ids": (given == config.image_token_id).int(),
    }
    return inputs, torch.tensor(np.asarray(batch.advantage), device=device)
