"""A Qwen-VL model as the policy of a run: what it samples with, what its groups are."""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import stepjax
from experiments.config import AlgoConfig
from experiments.methods import method_numbers
from experiments.run_notes import environment_failures
from stepjax.batching import pack_groups, take_rows
from stepjax.envs.actions import ActionKind
from stepjax.envs.base import Observation
from stepjax.envs.matching import actions_match
from stepjax.models.qwen_vl.acting import (
    ACTING_RULES,
    acting_copy,
    acting_mesh,
    cast_copy,
    mesh_of,
    model_on_mesh,
)
from stepjax.models.qwen_vl.generate import cut_at_stop
from stepjax.models.qwen_vl.packed import make_packed_evaluate
from stepjax.models.qwen_vl.policy import QwenVLPolicy, make_qwen_vl_policy
from stepjax.models.qwen_vl.sharding import param_sharding
from stepjax.rollout.sampler import Sampler
from stepjax.rollout.vl_codec import VLCodec
from stepjax.types import StepBatch

__all__ = ["ModelPolicy"]

_BLANK = Observation(instruction="")  # responses are read without looking
_ROWS = 8  # prompts of one call when groups are sampled or rows are scored again


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class ModelPolicy(QwenVLPolicy):
    """A vision-language policy with all that a run needs of it.

    Attributes:
      codec: Between observations and prompts, responses and actions.
      sampler: Acts in environments.
      screen: Width and height of the screen, in pixels.
      match_pixels: Distance up to which two clicks are the same.
      remote: Whether the sampler is a server.
      max_importance: Largest factor of the correction for a server.
      rows_per_pass: Rows of one forward and backward pass, at most.
      stop_strings: Texts that end a response.
    """

    codec: VLCodec
    sampler: Sampler
    screen: tuple[int, int]
    match_pixels: float
    remote: bool
    max_importance: float
    rows_per_pass: int
    stop_strings: tuple[str, ...] = ()

    __hash__ = object.__hash__  # the same object is made for the same settings

    def on_mesh(self, mesh: jax.sharding.Mesh) -> "ModelPolicy":
        """The policy for training on several devices: activations are pinned to them.

        Args:
          mesh: Of the run.

        Returns:
          The policy; itself for one device.
        """
        return self if mesh.size == 1 else _on_mesh(self, mesh)

    def acting_copy(self, params: Any) -> Any:
        """The parameters as this process acts with them, on its own devices.

        Args:
          params: As they are trained; all processes call this together.

        Returns:
          What `sampler` and `regroup` take.
        """
        mesh = jax.tree.leaves(params)[0].sharding.mesh
        copy = acting_copy(self.model, params, mesh)
        made_of = getattr(self.sampler, "made_of", None)
        if made_of is not None:  # it hands parameters over, once each
            made_of(copy, params)
        return copy

    def load_to_act(self, mesh: jax.sharding.Mesh) -> Any:
        """The checkpoint's parameters as this process acts with them.

        Args:
          mesh: Of the run.

        Returns:
          As `acting_copy`.
        """
        if self.load is None:
            raise ValueError("the policy has no checkpoint.")
        own = acting_mesh(self.model, mesh)
        where = param_sharding(self.model, own, ACTING_RULES)
        return cast_copy(self.model, self.load(shardings=where))

    def rest(self) -> None:
        """Free what acting holds on the devices: training needs the room."""
        rest = getattr(self.sampler, "rest", None)
        if rest is not None:
            rest()

    def regroup(
        self,
        params: Any,
        taken: StepBatch,
        places: np.ndarray,
        key: jax.Array,
        algo: AlgoConfig,
    ) -> tuple[StepBatch, int]:
        """Rows of the step-level groups of steps, and how many groups agree.

        Args:
          params: The parameters that acted.
          taken: [J] The steps, each the first member of its group.
          places: [J] int. Where each stands in the round; with `key` it decides what
            is drawn.
          key: Of the round.
          algo: The method and its numbers.

        Returns:
          Rows of members whose advantage is not 0. A step whose own response is no
          action keeps its plain advantage and gets no group.
        """
        if not len(places):
            return taken, 0
        size = algo.resolved_step_group_size
        draw = self._ask_server if self.remote else self._draw_groups
        others = draw(params, taken.prompt, places, key, size, algo.temperature)
        first = (taken.action_tokens, taken.token_mask, taken.old_log_prob)
        tokens, mask, log_prob = (
            np.concatenate([np.asarray(one)[:, None], rest], axis=1)
            for one, rest in zip(first, others, strict=True)
        )  # [J, G, A]
        match, readable = self._matches(tokens)
        plain = np.asarray(taken.advantage, np.float32)
        advantage = np.array(
            _group_advantages(match, plain, method_numbers(algo).augment_weight)
        )
        advantage[~readable] = 0.0
        advantage[~readable, 0] = plain[~readable]
        step, member = np.nonzero(advantage)
        groups = dataclasses.replace(
            take_rows(taken, step),
            action_tokens=tokens[step, member],
            token_mask=mask[step, member],
            old_log_prob=log_prob[step, member],
            advantage=advantage[step, member],
        )
        return groups, int(np.sum(~advantage.any(axis=1)))

    def pack(
        self,
        rows: StepBatch,
        algo: AlgoConfig,
        *,
        prompt_id: np.ndarray,
        seed: tuple[int, ...],
        micro_batch_size: int,
    ) -> list[tuple[StepBatch, StepBatch]]:
        """Batches in which rows of one prompt are side by side, and it is read once.

        Args:
          rows: Step samples.
          algo: The method and its numbers.
          prompt_id: [n] int. Equal for rows of one prompt.
          seed: Decides the shuffle.
          micro_batch_size: The train step's.

        Returns:
          Pairs of single rows and groups, as `stepjax.batching.pack_groups` makes them.
        """

        def whole(count: int) -> int:
            return -(-count // micro_batch_size) * micro_batch_size

        most = algo.rows_per_update
        return pack_groups(
            rows,
            seed=seed,
            rows_per_update=most,
            group_size=algo.resolved_step_group_size,
            pad_to=(whole(most), whole(-(-most // 2))),
            prompt_id=prompt_id,
            micro_batch_size=micro_batch_size,
        )

    def rescore(self, params: Any, rows: StepBatch, temperature: float) -> StepBatch:
        """Rows with the trainer's own log-probabilities beside those of a server.

        Args:
          params: The parameters that acted.
          rows: Step samples.
          temperature: That they were sampled at.

        Returns:
          The rows; unchanged if the trainer sampled them itself.
        """
        if not self.remote:
            return rows
        said = np.asarray(rows.old_log_prob, np.float32)
        own = np.zeros_like(said)
        for at in range(0, len(said), _ROWS):
            index = np.minimum(np.arange(at, at + _ROWS), len(said) - 1)
            part = take_rows(rows, index)
            found = _score(_on_mesh(self, mesh_of(params)).evaluate)(
                params, part.prompt, part.action_tokens, part.token_mask, temperature
            )
            own[at : at + _ROWS] = np.asarray(found)[: len(said) - at]
        return dataclasses.replace(
            rows, old_log_prob=own, sampler_log_prob=np.where(rows.token_mask, said, 0)
        )

    def _draw_groups(
        self, params: Any, prompt: Any, places: Any, key: Any, size: int, heat: float
    ) -> tuple[np.ndarray, ...]:
        """Three arrays [J, G - 1, A], a prefill for each step."""
        parts = []
        for at in range(0, len(places), _ROWS):
            index = np.minimum(np.arange(at, at + _ROWS), len(places) - 1)
            some = jax.tree.map(
                lambda leaf, index=index: np.take(leaf, index, 0), prompt
            )
            near = _on_mesh(self, mesh_of(params))
            program = _group_program(near.sample_group, size)
            found = jax.device_get(
                program(params, some, places[index], key, np.float32(heat))
            )
            parts.append([part[: len(places) - at] for part in found])
        tokens, mask, log_prob = map(np.concatenate, zip(*parts, strict=True))
        mask = self._cut(tokens, mask)
        return np.where(mask, tokens, 0), mask, np.where(mask, log_prob, 0)

    def _cut(self, tokens: np.ndarray, mask: np.ndarray) -> np.ndarray:
        """The masks [J, G - 1, A] of responses that end where the sampler ends them."""
        if not self.stop_strings:
            return mask
        decode = self.codec.prompts.tokenizer.decode
        cut = np.array(mask)
        for at in np.ndindex(mask.shape[:-1]):
            cut[at] = cut_at_stop(tokens[at], mask[at], decode, self.stop_strings)
        return cut

    def _ask_server(
        self, params: Any, prompt: Any, places: Any, key: Any, size: int, heat: float
    ) -> tuple[np.ndarray, ...]:
        """The same from a server: prompts one by one, which it caches itself."""
        with environment_failures():
            return self._answers(params, prompt, places, key, size, heat)

    def _answers(
        self, params: Any, prompt: Any, places: Any, key: Any, size: int, heat: float
    ) -> tuple[np.ndarray, ...]:
        self.sampler.start(params, key, temperature=heat)
        shape = (len(places), size - 1, self.max_new_tokens)
        out = (
            np.zeros(shape, np.int32),
            np.zeros(shape, bool),
            np.zeros(shape, np.float32),
        )
        for row, place in enumerate(places):
            one = jax.tree.map(lambda leaf, row=row: np.asarray(leaf)[row], prompt)
            for member in range(1, size):
                ticket = row * (size - 1) + member - 1
                self.sampler.begin(ticket, one, int(place), member)
        while self.sampler.busy:
            for ticket, answer in self.sampler.finished(0.05):
                for whole, part in zip(out, answer, strict=True):
                    whole[divmod(ticket, size - 1)] = part
        return out

    def _matches(self, tokens: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """[J, G] whether members match the first, and [J] whether that is an action."""
        count, size, _ = tokens.shape
        match, readable = np.zeros((count, size), bool), np.zeros(count, bool)
        for row in range(count):
            read: dict[bytes, Any] = {}  # many members say the very same
            actions = []
            for said in tokens[row]:
                name = said.tobytes()
                if name not in read:
                    read[name] = self.codec.decode(said, _BLANK, None)
                actions.append(read[name])
            readable[row] = actions[0].kind != ActionKind.INVALID
            match[row] = [
                actions_match(
                    one, actions[0], screen=self.screen, pixels=self.match_pixels
                )
                for one in actions
            ]
        match[:, 0] = True
        return match, readable


@functools.cache
def _on_mesh(policy: ModelPolicy, mesh: jax.sharding.Mesh | None) -> ModelPolicy:
    if mesh is None:
        return policy
    model = model_on_mesh(policy.model, mesh)
    near = make_qwen_vl_policy(
        model,
        max_new_tokens=policy.max_new_tokens,
        stop_tokens=policy.stop_tokens,
        top_p=policy.top_p,
    )
    return dataclasses.replace(
        policy,
        model=model,
        sample=near.sample,
        sample_group=near.sample_group,
        evaluate=make_packed_evaluate(model_on_mesh(policy.model, mesh, training=True)),
    )


@functools.cache
def _group_program(sample_group: Callable[..., tuple], size: int) -> Callable:
    def run(params: Any, prompt: Any, places: Any, key: Any, temperature: Any) -> tuple:
        keys = jax.vmap(jax.random.fold_in, (None, 0))(key, places)
        members = jnp.arange(1, size)
        keys = jax.vmap(
            lambda one: jax.vmap(jax.random.fold_in, (None, 0))(one, members)
        )(keys)
        return sample_group(params, prompt, keys, temperature=temperature)

    return jax.jit(run)


@functools.cache
def _score(evaluate: Callable[..., Any]) -> Callable:
    def run(params: Any, prompt: Any, tokens: Any, mask: Any, temperature: Any) -> Any:
        found = evaluate(params, prompt, tokens, mask, temperature=temperature)
        return found.log_prob

    return jax.jit(run)


@jax.jit
def _group_advantages(match: Any, advantage: Any, weight: Any) -> jax.Array:
    return jax.vmap(functools.partial(stepjax.step_group_advantages, weight=weight))(
        match, jnp.ones_like(match), advantage
    )
