"""A vision-language policy on the simulator: settings, groups, rounds end to end."""

import dataclasses
import json
import shutil
from types import SimpleNamespace
from typing import Any

import jax
import numpy as np
import pytest

from experiments import cli
from experiments.config import AlgoConfig, EnvConfig, ExperimentConfig, PolicyConfig
from experiments.errors import UsageError
from experiments.presets import PRESETS
from stepjax.envs.actions import Action, ActionKind
from stepjax.envs.base import Observation
from stepjax.types import StepBatch

PROGRAM = "python -m experiments.osworld"


def parse(*args):
    return cli.parse(PROGRAM, PRESETS, args)[1]


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


# --- End to end -----------------------------------------------------------------------


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    pytest.importorskip("safetensors", reason="needs the extra vlm")
    pytest.importorskip("tokenizers", reason="needs the extra vlm")
    from tests.models.qwen_vl.tiny import make_tiny_checkpoint

    folder = tmp_path_factory.mktemp("tiny")
    make_tiny_checkpoint(folder, "qwen2_5_vl")
    (folder / "wording.txt").write_text("{instruction}")
    return folder


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


@pytest.fixture
def generous_sim(monkeypatch):
    """A simulator with six tasks that are solved by every other episode."""
    from experiments import backends
    from stepjax.envs import sim

    class Generous(sim.SimEnvironment):
        def reset(self, task, seed):
            self.solved = float(seed % 2)
            return super().reset(task, seed)

        def evaluate(self):
            return self.solved

    opened = backends._open_sim_screens

    def few(config, policy, report):
        backend = opened(config, policy, report)
        ids = {"train_ids": backend.tasks.train_ids[:4]}
        ids["unseen_ids"] = backend.tasks.unseen_ids[:2]
        backend.tasks = dataclasses.replace(backend.tasks, **ids)
        return backend

    monkeypatch.setattr(sim, "SimEnvironment", Generous)
    monkeypatch.setattr(backends, "_open_sim_screens", few)


def arguments(checkpoint, run_dir, **more):
    flags = {
        "run-dir": run_dir,
        "rounds": 2,
        "env.backend": "sim",
        "env.max-steps": 2,
        "env.num-envs": 4,
        "policy": "qwen-vl",
        "policy.checkpoint": checkpoint,
        "policy.wording": checkpoint / "wording.txt",
        "policy.max-pixels": 28 * 28 * 24,
        "policy.max-new-tokens": 6,
        "policy.prompt-tokens": 192,
        "policy.past-responses": 1,
        "policy.slots": 4,
        "policy.rows-per-pass": 4,
        "policy.dtype": "float32",
        "policy.remat": "none",
        "algo.method": "step",
        "algo.tasks-per-round": 2,
        "algo.group-size": 4,
        "algo.augment-threshold": 1.0,
        "algo.rows-per-update": 8,
        "optim.learning-rate": 1e-3,
        "mesh.data": -1,
        "eval.every": 2,
        **more,
    }
    return [part for name, value in flags.items() for part in (f"--{name}", str(value))]


def run(args):
    from experiments import osworld

    with pytest.raises(SystemExit) as stop:
        cli.main(PROGRAM, PRESETS, osworld.run, args)
    return stop.value.code


def metrics_of(folder):
    lines = (folder / "metrics.jsonl").read_text().splitlines()
    return [json.loads(line) for line in lines]


@pytest.mark.slow
def test_rounds_end_to_end(checkpoint, generous_sim, tmp_path, capsys):
    """The command of the docs, with a tiny checkpoint: rounds and a report."""
    folder = tmp_path / "run"
    assert run(arguments(checkpoint, folder)) == 0, capsys.readouterr().err
    rounds = [line for line in metrics_of(folder) if line["round"] > 0]
    assert [line["round"] for line in rounds] == [1, 2]
    assert sum(line["update/count"] for line in rounds) >= 2
    assert all(np.isfinite(line.get("update/loss", 0.0)) for line in rounds)
    # The trainer agrees with the engine about what was sampled.
    first = next(line for line in rounds if line["update/count"])
    assert abs(first["update/ratio"] - 1.0) < 0.5
    assert (folder / "report.html").is_file()


@pytest.mark.slow
def test_rounds_with_a_server(checkpoint, generous_sim, tmp_path, capsys):
    """The same with a server as the sampler, which gets new weights every round."""
    from tests.models.qwen_vl.stub_server import stub_server

    with stub_server("sglang", stop=501, vocabulary=256) as server:
        more = {"policy.server": server.url, "policy.server-folder": tmp_path / "given"}
        assert run(arguments(checkpoint, tmp_path / "run", **more)) == 0, (
            capsys.readouterr().err
        )
        paths = [path for path, _ in server.asked]
    rounds = [line for line in metrics_of(tmp_path / "run") if line["round"] > 0]
    updates = sum(line["update/count"] for line in rounds)
    assert updates >= 1 and "/generate" in paths
    # The stub's numbers are made up: far from the trainer's, and said so.
    gaps = [line["sampler/log_prob_gap"] for line in rounds if line["update/rows"]]
    assert gaps and min(gaps) > 0.1
    assert "nats a token from the trainer's" in "".join(capsys.readouterr())
    # The first ones, those of each round that learned, and two for the report: an
    # evaluation and the round after it act with the same.
    learned = sum(bool(line["update/count"]) for line in rounds)
    assert paths.count("/update_weights_from_disk") == 3 + learned
    assert list((tmp_path / "given").glob("weights-*/model.safetensors"))
