"""The warm start: a policy that imitates a fallible demonstrator, cached on disk.

Online training needs a policy that sometimes succeeds. The paper starts from a model
that solves 41% of its training tasks; ours starts near that, by behavior cloning. On
the simulator episodes are of practice tasks, none of which asks for what a task of the
pool does by the same names; on web pages and desktops they are of the training tasks.
"""

import contextlib
import dataclasses
import hashlib
import json
import os
import tempfile
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
import numpy as np

from experiments.backends import PIXEL_BACKENDS, empty_prompt
from experiments.config import ExperimentConfig
from experiments.errors import UsageError, as_usage_error
from stepjax.models.policy import Policy
from stepjax.rollout.backend import Backend
from stepjax.training.cloning import clone_policy

__all__ = ["Demonstrator", "warm_started_params"]

_SEED = 2511  # of demonstrations and cloning; not the run's, so runs share the cache
_FORMAT = 1


@runtime_checkable
class Demonstrator(Protocol):
    """A backend that can show how its tasks are done, more or less."""

    def demonstrations(self, num_episodes: int, seed: int) -> tuple[Any, np.ndarray]:
        """Prompts [S, ...] and action tokens [S, A] int32 of practice episodes."""
        ...

    def fingerprint(self) -> str:
        """Digest of everything demonstrations depend on."""
        ...


def warm_started_params(
    config: ExperimentConfig,
    backend: Backend,
    policy: Policy,
    *,
    report: Callable[[str], None] = lambda text: None,
) -> Any:
    """Parameters cloned from demonstrations, from the cache if they are there.

    Args:
      config: `config.policy` and `config.warm_start` matter.
      backend: Who demonstrates.
      policy: Which policy.
      report: Told what is going on, in a few words.

    Returns:
      A parameter tree of host arrays.

    Raises:
      UsageError: If `backend` has no demonstrations, the cache's folder cannot be
        written, which is tried first, or the policy's checkpoint cannot be read.
    """
    if not isinstance(backend, Demonstrator):
        raise UsageError(
            f"backend {backend.name} has no demonstrations to start from; pass "
            "start_params to train()."
        )
    settings = config.warm_start
    init_key, clone_key = jax.random.split(jax.random.key(_SEED))

    def begin() -> Any:
        if policy.load is not None:
            with as_usage_error(ValueError, OSError):
                return policy.load()
        return jax.jit(policy.init)(init_key, _rows_of(empty_prompt(config)))

    if not settings.steps:
        return jax.device_get(begin())
    path = _cache_path(config, backend, policy)
    kept = _read(path)
    if kept is not None:
        report(f"warm start from {path}")
        return kept
    with _writing(path):  # found out now, not after minutes of cloning
        pass
    report("practice episodes for the warm start")
    try:
        prompt, tokens = backend.demonstrations(settings.episodes, _SEED)
    except ValueError as error:
        raise UsageError(
            f"{error} --warm-start.steps 0 starts from random parameters."
        ) from error
    if not len(tokens):
        raise UsageError(
            f"backend {backend.name}: none of {settings.episodes} demonstrations "
            "succeeded; there is nothing to imitate."
        )
    params = clone_policy(
        policy.evaluate,
        begin(),
        prompt,
        jnp.asarray(tokens),
        policy.mask_of(jnp.asarray(tokens)),
        key=clone_key,
        num_steps=settings.steps,
        batch_size=settings.batch_size,
        learning_rate=settings.learning_rate,
        report=lambda done, loss: report(
            f"warm start: update {done} of {settings.steps}, "
            f"loss {loss:.2f} nats per token"
        ),
    )
    params = jax.device_get(params)
    _write(path, params)
    return params


def _rows_of(prompt: Any) -> Any:
    """A prompt as a batch of one."""
    return jax.tree.map(lambda leaf: leaf[None], prompt)


def _layout(policy: Policy, prompt: Any) -> list[str]:
    """Names, shapes and dtypes of the policy's parameters."""
    shapes = jax.eval_shape(policy.init, jax.random.key(0), _rows_of(prompt))
    return [
        f"{jax.tree_util.keystr(path)} {leaf.shape} {leaf.dtype}"
        for path, leaf in jax.tree_util.tree_leaves_with_path(shapes)
    ]


def _policy_settings(config: ExperimentConfig) -> dict[str, Any]:
    """What demonstrations and cloning depend on of the policy's settings."""
    whole = dataclasses.asdict(config.policy)
    if config.policy.name == "small":
        names = ["width", "layers", "heads"]
        if config.env.backend in PIXEL_BACKENDS:
            names += ["view_width", "view_height"]
        return {name: whole[name] for name in names}
    folder = Path(config.policy.checkpoint or "").expanduser()
    files = [(path.name, path.stat()) for path in sorted(folder.glob("*.safetensors"))]
    whole["files"] = [(name, seen.st_size, seen.st_mtime_ns) for name, seen in files]
    elsewhere = (
        "server",
        "slots",
        "top_p",
        "stop",
        "match_",
        "max_importance",
        "freeze",
    )
    if config.policy.lora_rank is None:
        elsewhere += ("lora_",)
    return {
        name: value for name, value in whole.items() if not name.startswith(elsewhere)
    }


def _cache_path(
    config: ExperimentConfig, backend: Demonstrator, policy: Policy
) -> Path:
    matters = {
        "parameters": _layout(policy, empty_prompt(config)),
        "format": _FORMAT,
        "backend": backend.fingerprint(),
        "policy": _policy_settings(config),
        "warm_start": {
            name: value
            for name, value in dataclasses.asdict(config.warm_start).items()
            if name != "cache_dir"
        },
        "seed": _SEED,
    }
    told = json.dumps(matters, sort_keys=True, default=str)
    digest = hashlib.sha256(told.encode()).hexdigest()
    folder = config.warm_start.cache_dir.expanduser()
    return folder / f"warm_start_{digest[:16]}.npz"


def _read(path: Path) -> Any:
    """The parameters kept in `path`; None if it is missing or was damaged."""
    if not path.is_file():
        return None
    tree: dict[str, Any] = {}
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as arrays:
            for name in arrays.files:
                *outer, last = name.split("/")
                inner = tree
                for part in outer:
                    inner = inner.setdefault(part, {})
                inner[last] = arrays[name]
    except (OSError, ValueError, zipfile.BadZipFile):
        path.unlink(missing_ok=True)  # made again
        return None
    return tree


def _write(path: Path, params: Any) -> None:
    """Keep `params` in `path`; a file appears whole or not at all."""
    arrays: dict[str, Any] = {
        "/".join(entry.key for entry in key_path): np.asarray(leaf)
        for key_path, leaf in jax.tree_util.tree_leaves_with_path(params)
    }
    with _writing(path) as part:
        np.savez(part, **arrays)
        part.flush()
        os.replace(part.name, path)


@contextlib.contextmanager
def _writing(path: Path) -> Iterator[Any]:
    """A file beside `path` that is gone afterwards, unless it was moved.

    Raises:
      UsageError: If there can be none, or it takes no data.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(
            dir=path.parent, suffix=".part", delete=False
        ) as part:
            try:
                yield part
            finally:
                Path(part.name).unlink(missing_ok=True)
    except OSError as error:
        raise UsageError(
            f"--warm-start.cache-dir {path.parent} cannot be written ({error}); "
            "choose another folder."
        ) from error
