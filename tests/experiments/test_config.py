"""Settings: defaults are the paper's, and impossible numbers are named in one line."""

import dataclasses
import inspect
import json

import pytest

from experiments import cli
from experiments import config as settings
from experiments.config import (
    AlgoConfig,
    CheckpointConfig,
    EnvConfig,
    EvalConfig,
    ExperimentConfig,
    MeshConfig,
    OptimizerConfig,
    PolicyConfig,
    WarmStartConfig,
    flat_config,
)
from experiments.presets import PRESETS

MODEL = ("--policy", "qwen-vl", "--policy.checkpoint", "here")
GROUPS = (
    AlgoConfig,
    CheckpointConfig,
    EnvConfig,
    EvalConfig,
    ExperimentConfig,
    MeshConfig,
    OptimizerConfig,
    PolicyConfig,
    WarmStartConfig,
)


@pytest.mark.parametrize(
    "make, text",
    [
        (lambda: AlgoConfig(group_size=1), "algo.group_size must be >= 2"),
        (lambda: AlgoConfig(threshold=1.5), r"algo.threshold must be in \[0, 1\]"),
        (lambda: AlgoConfig(threshold=float("nan")), "algo.threshold"),
        (lambda: AlgoConfig(augment_threshold=-0.1), "algo.augment_threshold"),
        (lambda: AlgoConfig(sharpness=0.0), "algo.sharpness must be a positive"),
        (lambda: AlgoConfig(method="stepp"), "did you mean step"),
        (lambda: AlgoConfig(group_size=2), "algo.step_group_size"),
        (lambda: AlgoConfig(temperature=0.0), "algo.temperature"),
        (lambda: AlgoConfig(dual_clip=1.0), "algo.dual_clip"),
        (lambda: EnvConfig(backend="simm"), "did you mean sim"),
        (lambda: EnvConfig(max_steps=0), "env.max_steps must be >= 1, got 0"),
        (lambda: MeshConfig(data=0), "mesh.data must be >= 1 or -1"),
        (lambda: MeshConfig(fsdp=-1), "at most one axis"),
        (lambda: OptimizerConfig(learning_rate=float("inf")), "optim.learning_rate"),
        (lambda: OptimizerConfig(b2=1.0), "optim.b2"),
        (lambda: CheckpointConfig(max_to_keep=1), "checkpoint.max_to_keep"),
        (lambda: EvalConfig(every=0), "eval.every"),
        (lambda: EnvConfig(screen_width=100), "env.screen_width must be >= 320"),
        (lambda: EnvConfig(task_list="x.json"), "give the folder as env.tasks"),
        (lambda: EnvConfig(url="host:5000"), "env.url must be .* got 'host:5000'"),
        (lambda: PolicyConfig(width=0), "policy.width"),
        (
            lambda: PolicyConfig(freeze=("^a(",)),
            r"policy.freeze: '\^a\(' is no regular",
        ),
        (lambda: PolicyConfig(view_width=100), "view_width must be a multiple of 32"),
        (lambda: PolicyConfig(view_height=0), "view_height must be a multiple of 20"),
        (lambda: WarmStartConfig(steps=-1), "warm_start.steps"),
        (lambda: ExperimentConfig(rounds=0), "rounds must be >= 1"),
        (lambda: ExperimentConfig(seed=-1), "seed"),
        (
            lambda: ExperimentConfig(
                algo=AlgoConfig(method="t_grpo_many", rows_per_update=8)
            ),
            "algo.rows_per_update must be >= env.max_steps",
        ),
    ],
)
def test_impossible_numbers_are_refused_in_one_line(make, text):
    with pytest.raises(ValueError, match=text) as error:
        make()
    assert "\n" not in str(error.value)


def test_methods_without_step_groups_allow_groups_of_two():
    assert AlgoConfig(method="gigrpo", group_size=2).group_size == 2


def test_paper_preset_is_the_papers():
    algo = PRESETS["paper"].config.algo
    assert (algo.method, algo.tasks_per_round, algo.group_size) == ("step", 16, 16)
    assert (algo.threshold, algo.sharpness, algo.augment_threshold) == (0.6, 10.0, 0.2)
    assert algo.resolved_step_group_size == 8 and algo.temperature == 0.7
    assert (algo.augment_weight, algo.max_cache_copies) == (None, None)
    assert algo.rows_per_update == 256 and algo.max_augmented_steps is None


def test_quick_is_the_default_and_says_its_method():
    name, preset = next(iter(PRESETS.items()))
    assert name == "quick" and preset.config.algo.method in preset.note


def test_flat_config_is_json_with_the_fixed_names():
    flat = flat_config(ExperimentConfig())
    fixed = """run_dir seed env.backend env.chromium algo.method algo.group_size
      algo.threshold algo.sharpness algo.augment_threshold mesh.data mesh.fsdp
      mesh.tensor""".split()
    assert set(fixed) <= set(flat)
    assert json.loads(json.dumps(flat)) == flat


@pytest.mark.parametrize("group", GROUPS)
def test_every_setting_has_help(group):
    source = inspect.getsource(group)
    for field in dataclasses.fields(group):
        if dataclasses.is_dataclass(getattr(group(), field.name)):
            continue
        declared = source[source.index(f"\n    {field.name}: ") :].lstrip()
        following = declared.split("\n", 1)[1].strip()
        assert following.startswith('"""'), f"{group.__name__}.{field.name}"


def test_names_are_exported():
    assert set(settings.__all__) >= {group.__name__ for group in GROUPS}


@pytest.mark.parametrize(
    ("flags", "mesh"),
    [
        ((), MeshConfig()),
        (MODEL, MeshConfig(data=1, fsdp=-1)),
        ((*MODEL, "--mesh.data", "4"), MeshConfig(data=4)),
        ((*MODEL, "--mesh.tensor=2"), MeshConfig(tensor=2)),
    ],
    ids=["small", "model", "data", "tensor"],
)
def test_devices_share_a_model_unless_its_place_is_given(flags, mesh):
    _, config = cli.parse("program", PRESETS, flags)
    assert config.mesh == mesh


def test_patterns_to_freeze_are_given_one_after_another():
    _, config = cli.parse("program", PRESETS, ["--policy.freeze", "^vision/", "embed"])
    assert config.policy.freeze == ("^vision/", "embed")
    assert flat_config(config)["policy.freeze"] == ["^vision/", "embed"]
