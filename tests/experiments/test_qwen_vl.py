"""A vision-language policy on the simulator: settings, groups."""

import dataclasses
import shutil
from types import SimpleNamespace
from typing import Any

import jax
import numpy as np
import pytest

from experiments.config import (
    AlgoConfig,
    EnvConfig,
    ExperimentConfig,
    PolicyConfig,
    WarmStartConfig,
)
from experiments.errors import UsageError
from experiments.presets import PRESETS
from stepjax.envs.actions import Action, ActionKind
from stepjax.envs.base import Observation
from stepjax.types import StepBatch
from tests.experiments.tiny_runs import parse

# --- Settings -------------------------------------------------------------------------


@pytest.mark.parametrize(
    "args", [["--policy", "qwen-vl"], ["--policy=qwen-vl"], ["--policy.name=qwen-vl"]]
)
def test_the_command_of_the_docs(args):
    config = parse(*args, "--policy.checkpoint", "here", "--env.backend", "desktop")
    assert (config.policy.name, str(config.policy.checkpoint)) == ("qwen-vl", "here")
    # A trained model is not cloned from scripts, and is updated gently.
    assert config.warm_start.steps == 0 and config.optim.learning_rate == 1e-6
    assert config.algo == PRESETS["desktop"].config.algo
    adapted = parse(*args, "--policy.checkpoint", "here", "--policy.lora-rank", "8")
    assert adapted.optim.learning_rate == 1e-5 and adapted.policy.lora_rank == 8
    whole = parse(*args, "--policy.checkpoint", "here", "--policy.lora-rank", "None")
    assert whole.optim.learning_rate == 1e-6 and whole.policy.lora_rank is None


def test_flags_win_over_what_suits_a_model():
    config = parse(
        *("--policy", "qwen-vl", "--policy.checkpoint", "here"),
        *("--warm-start.steps", "7", "--optim.learning-rate", "0.5"),
        *("--policy.stop", "</s>", "--policy.server", "http://host:8000"),
    )
    assert config.warm_start.steps == 7 and config.optim.learning_rate == 0.5
    assert config.policy.stop == ("</s>",)
    assert parse().policy.name == "small"
    assert parse().warm_start.steps == PRESETS["quick"].config.warm_start.steps


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (["--policy", "qwen-vl"], "policy.checkpoint is needed"),
        (["--policy", "qwen"], "did you mean qwen-vl"),
        (["--policy.checkpoint", "x"], "add --policy qwen-vl"),
        (["--policy.server", "http://x"], "add --policy qwen-vl"),
    ],
)
def test_wrong_usage_is_one_line(args, said):
    with pytest.raises(UsageError) as error:
        parse(*args)
    text = " ".join(str(error.value).split())
    assert said in text


MODEL = {"name": "qwen-vl", "checkpoint": "x"}


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: PolicyConfig(**MODEL, server="host"), "policy.server"),
        (lambda: PolicyConfig(**MODEL, top_p=0.0), "policy.top_p"),
        (lambda: PolicyConfig(**MODEL, coordinates="polar"), "policy.coordinates"),
        (lambda: PolicyConfig(**MODEL, lora_rank=0), "policy.lora_rank must be >= 1"),
        (lambda: PolicyConfig(**MODEL, lora_targets=("q",)), "policy.lora_targets"),
        (lambda: PolicyConfig(lora_rank=4), "add --policy qwen-vl"),
        (
            lambda: PolicyConfig(**MODEL, lora_vision=True),
            "policy.lora_vision says how",
        ),
        (
            lambda: ExperimentConfig(policy=PolicyConfig(**MODEL, lora_rank=4)),
            "warm_start.steps = 3000 moves all weights",
        ),
        (
            lambda: ExperimentConfig(
                policy=PolicyConfig(**MODEL), env=EnvConfig(backend="miniwob")
            ),
            "miniwob",
        ),
        (
            lambda: ExperimentConfig(
                policy=PolicyConfig(**MODEL), algo=AlgoConfig(entropy_coef=0.1)
            ),
            "entropy_coef",
        ),
    ],
)
def test_settings_that_do_not_fit_are_named(make, said):
    with pytest.raises(ValueError, match=said):
        make()


def test_kernels_to_adapt_are_those_of_the_model():
    from stepjax.models.qwen_vl.lora import TARGETS

    assert PolicyConfig().lora_targets == TARGETS


def test_patterns_that_leave_no_adapter_are_those_given(checkpoint):
    from experiments.learner import check_mesh
    from experiments.model_setup import make_model_policy

    model = PolicyConfig(
        name="qwen-vl", checkpoint=checkpoint, lora_rank=2, freeze=("^decoder/",)
    )
    config = ExperimentConfig(policy=model, warm_start=WarmStartConfig(steps=0))
    said = r"freeze: \['\^decoder/'\] leaves no parameter .* only lora_a and lora_b"
    with pytest.raises(UsageError, match=said):
        check_mesh(config, make_model_policy(model, EnvConfig()))


def test_a_folder_without_a_model_is_named(tmp_path):
    from experiments.model_setup import make_model_policy

    policy = PolicyConfig(name="qwen-vl", checkpoint=tmp_path)
    with pytest.raises(UsageError, match=r"config\.json"):
        make_model_policy(policy, EnvConfig())


def test_tensors_that_do_not_fit_are_named_before_anything_starts(checkpoint, tmp_path):
    from safetensors.numpy import load_file, save_file

    from experiments.model_setup import make_model_policy

    shutil.copytree(checkpoint, tmp_path / "bad")
    tensors = load_file(checkpoint / "model.safetensors")
    del tensors["model.norm.weight"]
    save_file(tensors, tmp_path / "bad" / "model.safetensors")
    policy = PolicyConfig(name="qwen-vl", checkpoint=tmp_path / "bad")
    with pytest.raises(UsageError, match=r"lacks tensors of qwen2_5_vl: model\.norm"):
        make_model_policy(policy, EnvConfig())


# --- Step-level groups ----------------------------------------------------------------


class FakeCodec:
    """Token n clicks n tenths across; 0 is nothing that can be read."""

    def decode(self, tokens, observation, context):
        if not tokens[0]:
            return Action(kind=ActionKind.INVALID)
        return Action(kind=ActionKind.CLICK, x=tokens[0] / 10, y=0.5)


def fake_policy(answers):
    """A policy whose groups hold `answers` [J, G - 1]."""
    from experiments.model_policy import ModelPolicy

    def sample_group(params, prompt, keys, *, temperature):
        tokens = jax.numpy.asarray(answers)[prompt][..., None]
        return tokens, tokens >= 0, -0.1 * tokens

    return ModelPolicy(
        **{"init": None, "sample": None, "evaluate": None, "token_mask": None},
        model=None,
        sample_group=sample_group,
        max_new_tokens=1,
        stop_tokens=(1,),
        codec=FakeCodec(),
        sampler=None,
        screen=(1000, 500),
        match_pixels=140.0,
        remote=False,
        max_importance=2.0,
        rows_per_pass=2,
    )


def taken_rows(tokens):
    count = len(tokens)
    return StepBatch(
        prompt=np.arange(count),
        action_tokens=np.asarray(tokens, np.int32)[:, None],
        token_mask=np.ones((count, 1), bool),
        old_log_prob=np.full((count, 1), -0.5, np.float32),
        advantage=np.linspace(1.0, 2.0, count).astype(np.float32),
        weight=np.ones(count, np.float32),
        task_id=np.arange(count, dtype=np.int32),
        trajectory_id=np.arange(count, dtype=np.int32),
    )


def test_members_match_by_what_they_do():
    answers = np.array([[6, 7, 2], [5, 5, 6], [1, 1, 1], [0, 2, 5]])
    algo = AlgoConfig(group_size=8)  # groups of four
    rows, agreeing = fake_policy(answers).regroup(
        None, taken_rows([5, 5, 0, 5]), np.arange(4), jax.random.key(0), algo
    )
    got = {
        int(step): rows.advantage[rows.trajectory_id == step].round(4).tolist()
        for step in range(4)
    }
    # 0.6 is 100 pixels from 0.5 and matches, 0.7 and 0.2 do not: two of four.
    np.testing.assert_allclose(got[0], np.array([1, 1, -1, -1]) * 0.866, atol=1e-3)
    assert got[1] == [] and agreeing == 1  # all do the same
    assert got[2] == [rows.advantage[rows.trajectory_id == 2][0].round(4)]
    assert rows.action_tokens[rows.trajectory_id == 2].tolist() == [[0]]  # kept plain
    two = np.array([1, -1, -1, 1]) * 0.866 * 2.0
    np.testing.assert_allclose(got[3], two, atol=1e-3)


def test_many_groups_are_drawn_in_parts():
    answers = np.tile([6, 2, 3], (21, 1))
    rows, agreeing = fake_policy(answers).regroup(
        None,
        taken_rows([5] * 21),
        np.arange(21),
        jax.random.key(0),
        AlgoConfig(group_size=8),
    )
    assert len(rows.weight) == 84 and agreeing == 0
    np.testing.assert_array_equal(rows.trajectory_id, np.repeat(np.arange(21), 4))


def test_members_of_a_group_end_at_stop_strings():
    """As the responses that the engine or a server samples do."""
    said = np.array([[[5, 9, 7, 3], [5, 3, 7, 1]], [[9, 5, 1, 0], [2, 9, 0, 0]]])
    length = np.array([[4, 4], [3, 2]])

    def sample_group(params, prompt, keys, *, temperature):
        tokens = jax.numpy.asarray(said)[prompt]
        mask = jax.numpy.asarray(np.arange(4) < length[..., None])[prompt]
        return tokens, mask, jax.numpy.where(mask, -0.1 * tokens, 0.0)

    class Tokenizer:
        def decode(self, ids):
            return "".join(f"<{one}>" for one in ids)

    codec: Any = FakeCodec()
    codec.prompts = SimpleNamespace(tokenizer=Tokenizer())
    policy = dataclasses.replace(
        fake_policy([[0]]),
        sample_group=sample_group,
        max_new_tokens=4,
        codec=codec,
        stop_strings=("<7>", "x", "9><5"),
    )
    taken = dataclasses.replace(
        taken_rows([9, 4]),
        action_tokens=np.array([[9, 1, 0, 0], [4, 1, 0, 0]], np.int32),
        token_mask=np.array([[True, True, False, False]] * 2),
        old_log_prob=np.zeros((2, 4), np.float32),
    )
    rows, _ = policy.regroup(
        None, taken, np.arange(2), jax.random.key(0), AlgoConfig(group_size=6)
    )
    wanted = {
        0: [[9, 1, 0, 0], [5, 9, 7, 0], [5, 3, 7, 0]],
        1: [[4, 1, 0, 0], [9, 5, 0, 0], [2, 9, 0, 0]],
    }
    for step, responses in wanted.items():
        mine = np.asarray(rows.trajectory_id) == step
        assert np.asarray(rows.action_tokens)[mine].tolist() == responses
    mask = np.asarray(rows.token_mask)
    np.testing.assert_array_equal(mask, np.asarray(rows.action_tokens) != 0)
    assert not np.asarray(rows.old_log_prob)[~mask].any()


def test_responses_that_a_text_stops_are_actions(checkpoint):
    """Acting, remembering and grouping read them without that text."""
    from experiments.model_setup import make_model_policy

    policy = make_model_policy(
        PolicyConfig(name="qwen-vl", checkpoint=checkpoint, stop=("</s>", "Obs")),
        EnvConfig(),
    )
    tokens = np.zeros((1, 3, policy.max_new_tokens), np.int32)
    encode = policy.codec.prompts.tokenizer.encode
    for row, text in enumerate(("wait()</s>", "wait()\nObs", "wait()")):
        ids = encode("Action: " + text)
        tokens[0, row, : len(ids)] = ids
    match, readable = policy._matches(tokens)
    assert readable.all()
    assert match.tolist() == [[True, True, False]]  # the last goes on with padding


def test_only_prompts_that_are_too_long_name_the_settings_of_lengths(checkpoint):
    from experiments.model_setup import make_model_policy

    model = PolicyConfig(name="qwen-vl", checkpoint=checkpoint, prompt_tokens=1000)
    codec = make_model_policy(model, EnvConfig()).codec
    with pytest.raises(RuntimeError, match=r"has \d+ tokens .*--policy.prompt-tokens"):
        codec.encode(Observation(instruction="word " * 999), ())
    huge = np.broadcast_to(np.uint8(0), (10_000, 10_000, 3))
    with pytest.raises(RuntimeError, match="100,000,000 pixels") as caught:
        codec.encode(Observation(instruction="Go", screenshot=huge), ())
    assert "--policy" not in str(caught.value)
