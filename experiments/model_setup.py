"""From a checkpoint's folder to the policy of a run, with what it samples with."""

import dataclasses
import functools
from pathlib import Path
from typing import Any

import jax
import numpy as np

from experiments.config import EnvConfig, PolicyConfig
from experiments.env_config import PHONES
from experiments.errors import as_usage_error
from experiments.model_policy import ModelPolicy
from stepjax.models.qwen_vl.policy import make_qwen_vl_policy
from stepjax.models.qwen_vl.ui_tars_prompt import PromptLengthError
from stepjax.rollout.sampler import Sampler
from stepjax.rollout.vl_codec import VLCodec

__all__ = ["SIM_SCREEN", "make_model_policy"]

SIM_SCREEN = (640, 400)
"""Width and height of the simulator's screen as it is drawn for people."""

_SHORT_PROMPT = 1024


@functools.cache
def make_model_policy(policy: PolicyConfig, env: EnvConfig) -> ModelPolicy:
    """The model of a checkpoint as a policy for the screens of a backend.

    Args:
      policy: Its settings.
      env: Says how large screens are.

    Returns:
      The policy; the same object for the same settings.

    Raises:
      UsageError: If the folder holds no such model, or the server cannot be used.
    """
    with as_usage_error(ValueError, OSError, ImportError, RuntimeError):
        from stepjax.models.qwen_vl.lora import LoRA
        from stepjax.models.qwen_vl.model import make_qwen_vl
        from stepjax.models.qwen_vl.packed import make_packed_evaluate
        from stepjax.models.qwen_vl.tensor_files import Checkpoint
        from stepjax.models.qwen_vl.weights import read_config

        folder = Path(policy.checkpoint or "").expanduser()
        config = read_config(folder)
        Checkpoint(folder, config)  # tensors that do not fit are named now, not later
        screen = SIM_SCREEN
        if env.backend != "sim":
            screen = (env.screen_width, env.screen_height)
        mobile = env.backend in PHONES
        codec = _RunCodec(**vars(_codec(policy, folder, screen, mobile)))
        lora = None
        if policy.lora_rank is not None:
            lora = LoRA(
                rank=policy.lora_rank,
                alpha=policy.lora_alpha,
                targets=policy.lora_targets,
                vision=policy.lora_vision,
            )
        model = make_qwen_vl(
            config,
            dtype=policy.dtype,
            # What rests needs no more digits than it is used with.
            param_dtype="float32" if lora is None else policy.dtype,
            remat=policy.remat,
            lora=lora,
        )
        stops = codec.prompts.tokenizer.end_ids
        base = make_qwen_vl_policy(
            model,
            max_new_tokens=policy.max_new_tokens,
            stop_tokens=stops,
            top_p=policy.top_p,
        )
        fields = {f.name: getattr(base, f.name) for f in dataclasses.fields(base)}
        # Also for groups that share a prompt, which is then read once.
        fields["evaluate"] = make_packed_evaluate(model)
        fields["load"] = functools.partial(_load, folder, model)
        make = _engine if policy.server is None else _server
        # Distances are meant on the screen that tasks are about, 1280 x 800 by default.
        return ModelPolicy(
            **fields,
            codec=codec,
            sampler=make(policy, model, codec),
            screen=(env.screen_width, env.screen_height),
            match_pixels=policy.match_pixels,
            remote=policy.server is not None,
            max_importance=policy.max_importance,
            rows_per_pass=policy.rows_per_pass,
            stop_strings=policy.stop,
        )


class _RunCodec(VLCodec):
    """A codec whose errors end a run in one line."""

    def encode(self, observation: Any, history: Any) -> tuple[Any, np.ndarray]:
        try:
            return super().encode(observation, history)
        except PromptLengthError as error:
            raise RuntimeError(
                f"{error} (--policy.prompt-tokens, --policy.max-pixels)"
            ) from error
        except ValueError as error:
            raise RuntimeError(str(error)) from error


def _codec(
    policy: PolicyConfig, folder: Path, screen: tuple[int, int], mobile: bool
) -> VLCodec:
    from stepjax.rollout.vl_codec import vl_codec_for

    options: dict[str, Any] = {"mobile": mobile}
    if policy.wording is not None:
        options["wording"] = policy.wording.expanduser().read_text(encoding="utf-8")
        options["system"] = ""
    if policy.coordinates != "auto":
        options["grid"] = policy.coordinates == "grid"
    return vl_codec_for(
        folder,
        height=screen[1],
        width=screen[0],
        num_tokens=policy.max_new_tokens,
        length=policy.prompt_tokens,
        max_pixels=policy.max_pixels,
        stop=policy.stop,
        num_responses=policy.past_responses,
        num_screenshots=policy.past_screenshots,
        **options,
    )


def _load(folder: Path, model: Any, *, shardings: Any = None) -> Any:
    """The parameters of a folder, with fresh adapters if the model has any."""
    from stepjax.models.qwen_vl.lora import with_adapters
    from stepjax.models.qwen_vl.weights import load_params

    setup = model.setup
    params = load_params(folder, shardings=shardings, dtype=setup.param_dtype)
    if setup.lora is None:
        return params
    return with_adapters(model, params, jax.random.key(0), shardings=shardings)


def _engine(policy: PolicyConfig, model: Any, codec: VLCodec) -> Sampler:
    from stepjax.models.qwen_vl.engine import Engine
    from stepjax.models.qwen_vl.engine_sizes import EngineSizes

    longest = codec.prompts.length
    buckets = {longest} if longest <= _SHORT_PROMPT else {longest * 3 // 4, longest}
    return Engine(
        model,
        sizes=EngineSizes(
            slots=policy.slots,
            prompt_buckets=tuple(sorted(buckets)),
            prefill_rows=min(4, policy.slots),
        ),
        max_new_tokens=policy.max_new_tokens,
        stop_tokens=codec.prompts.tokenizer.end_ids,
        top_p=policy.top_p,
        stop_strings=policy.stop,
        decode=codec.prompts.tokenizer.decode,
    )


def _server(policy: PolicyConfig, model: Any, codec: VLCodec) -> Sampler:
    from stepjax.models.qwen_vl.export import save_params
    from stepjax.models.qwen_vl.server import ServerSampler, ServerSettings

    if jax.process_count() > 1:
        raise ValueError(
            f"policy.server {policy.server} works with one process, which hands over "
            f"the weights; there are {jax.process_count()}."
        )
    source = Path(policy.checkpoint or "").expanduser()

    def export(params: Any, folder: Path) -> None:
        save_params(
            folder,
            params,
            model.config,
            source=source,
            overwrite=True,
            lora=model.setup.lora,
        )

    return ServerSampler(
        ServerSettings(
            url=policy.server or "", kind=policy.server_kind, model=policy.server_model
        ),
        tokenizer=codec.prompts.tokenizer,
        max_new_tokens=policy.max_new_tokens,
        stop_tokens=codec.prompts.tokenizer.end_ids,
        top_p=policy.top_p,
        stop_strings=policy.stop,
        export=export,
        folder=(policy.server_folder or source.with_name(f"{source.name}-handed-over"))
        .expanduser()
        .absolute(),
    )
