from pathlib import Path

import pytest

from experiments.backends import make_policy, open_backend
from experiments.config import EnvConfig, ExperimentConfig
from experiments.errors import UsageError
from tests.experiments.test_desktop_backend import open_it, task_folder


def test_a_missing_package_is_named_with_what_brings_it(monkeypatch):
    def open_without(*_):
        raise ModuleNotFoundError("No module named 'openpyxl'", name="openpyxl")

    monkeypatch.setattr(
        "experiments.backends.BACKEND_FACTORIES", {"desktop": open_without}
    )
    said = r"backend desktop needs .* openpyxl; pip install .*experiments,desktop"
    with pytest.raises(UsageError, match=said):
        config = ExperimentConfig(env=EnvConfig(backend="desktop"))
        open_backend(config, make_policy(config.policy, config.env.backend))


@pytest.mark.parametrize(
    "env, text",
    [
        ({}, "env.tasks is needed with the vm backend: the folder"),
        ({"tasks": "nowhere"}, "no folder nowhere/examples"),
        ({"url": "http://a:5000", "num_envs": 2}, r"env.num_envs must be 1 .* got 2"),
        ({"url": "https://a/b", "tasks": "own"}, "url must be like http://host:5000"),
        ({"provider": "dokcer", "tasks": "own"}, "docker, .* got 'dokcer'"),
        ({"evaluators": Path("none"), "tasks": "own"}, "no evaluators in .*/none: "),
    ],
)
def test_machines_that_cannot_be_opened_are_one_line(tmp_path, env, text):
    if env.get("tasks") == "own":
        env = {**env, "tasks": task_folder(tmp_path)}
    env = {name: Path(env[name]) if name == "tasks" else env[name] for name in env}
    with pytest.raises(UsageError, match=text) as error:
        open_it(backend="vm", **env)
    assert "\n" not in str(error.value)
