"""AndroidWorld's servers as a backend of a run, and what it says when it cannot be."""

import concurrent.futures
import dataclasses
import json
import socket
import types
from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest

from experiments.androidworld_backend import open_androidworld
from experiments.config import ExperimentConfig
from experiments.env_config import EnvConfig
from experiments.errors import UsageError, as_usage_error
from stepjax.envs.actions import ActionKind
from stepjax.envs.androidworld import AndroidWorldError
from stepjax.envs.screen_actions import SCREEN_KINDS
from tests.envs.androidworld.stand_in import TASKS, PhoneServer, serving

SIZE = (320, 640)


@pytest.fixture
def phone(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    monkeypatch.setattr("stepjax.envs.androidworld.client._WAITS", ())
    server = PhoneServer()
    server.size = SIZE
    with serving(server):
        yield server


def config_of(url: str | None, **given: Any) -> ExperimentConfig:
    options: dict[str, Any] = {
        "screen_width": SIZE[0],
        "screen_height": SIZE[1],
    } | given
    env = EnvConfig(backend="androidworld", url=url, max_steps=3, **options)
    return dataclasses.replace(ExperimentConfig(), env=env)


def done_policy() -> types.SimpleNamespace:
    """One that says DONE at once."""
    kind = SCREEN_KINDS.index(ActionKind.DONE)

    def sample(params, prompt, keys, *, temperature):
        del params, prompt, temperature
        rows = keys.shape[0]
        tokens = jnp.tile(jnp.array([kind, 0, 0, 0], jnp.int32), (rows, 1))
        return tokens, jnp.ones((rows, 4), bool), jnp.zeros((rows, 4), jnp.float32)

    return types.SimpleNamespace(sample=sample)


def refusal(config: ExperimentConfig) -> str:
    with pytest.raises(UsageError) as error:
        with as_usage_error(ValueError, OSError):
            open_androidworld(config, done_policy(), None)  # pyright: ignore
    assert "\n" not in str(error.value)
    return str(error.value)


def test_a_round(phone):
    import jax

    said = []
    backend = open_androidworld(config_of(phone.url), done_policy(), said.append)  # pyright: ignore
    assert backend.name == "androidworld" and backend.tasks.names == TASKS
    ids = np.array([TASKS.index(name) for name in TASKS[3:5]], np.int32)
    found = backend.collect(
        {}, ids, np.array([1, 2], np.uint32), jax.random.key(0), temperature=1.0
    )
    assert np.asarray(found.reward).tolist() == [0.0, 0.0]
    assert np.asarray(found.valid).all()
    assert np.asarray(found.step_mask).sum() == 2
    frames = backend.replay(int(ids[0]), 1, np.array([[7, 0, 0, 0]], np.int32))
    assert frames[0].image.shape == (SIZE[1], SIZE[0], 3)
    assert frames[0].instruction == "SystemBluetoothTurnOff number 1000."
    assert backend.metrics()["env/episodes_completed"] == 3
    backend.close()
    assert phone.left == []


def test_what_cannot_be_opened_is_one_line(phone, tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as listening:
        dead = f"http://127.0.0.1:{listening.getsockname()[1]}"
    assert "env.url is needed" in refusal(config_of(None))
    assert f"{dead}: GET /health: no connection" in refusal(config_of(dead))
    assert "is not AndroidWorld's server" in refusal(config_of(phone.url + "/other"))
    assert "one server twice" in refusal(config_of(f"{phone.url},{phone.url}"))
    assert "must be 1, one for each" in refusal(config_of(phone.url, num_envs=3))
    assert "for each of the 1 servers" in refusal(config_of(phone.url, serials="a,b"))
    assert "Invalid task family" in refusal(config_of(phone.url, family="toasters"))
    wrong = refusal(config_of(phone.url, screen_width=1080, screen_height=2400))
    assert "320 x 640 pixels, unlike the 1080 x 2400 of the settings" in wrong
    assert wrong.endswith("See --env.screen-width and --env.screen-height.")
    assert phone.left == []
    with serving(PhoneServer()) as other:  # a phone of another size beside a sound one
        assert "36 x 80" in refusal(config_of(f"{phone.url},{other.url}"))
        assert other.left == [] and phone.left == []


def test_lists_of_tasks(phone, tmp_path):
    file = tmp_path / "tasks.json"

    def listed(text: str) -> ExperimentConfig:
        file.write_text(text)
        return config_of(phone.url, task_list=file)

    assert "task NoSuch is unknown" in refusal(listed('{"x": ["NoSuch"]}'))
    for text in ("[]", "{}", '{"x": 3}', '{"x": []}', '{"x": [3]}', "{", "[" * 99999):
        assert "env.task_list" in refusal(listed(text))
    config = listed(json.dumps({"settings": [TASKS[4]], "camera": [TASKS[0]]}))
    backend = open_androidworld(config, done_policy(), None)  # pyright: ignore
    assert backend.tasks.names == (TASKS[0], TASKS[4])
    backend.close()
    file.unlink()
    assert "cannot be read" in refusal(config)


def test_a_run_ends_at_once_while_its_server_is_away(phone):
    """Closing does not wait for a server that an environment waits for."""
    with serving(PhoneServer()) as other:
        other.size = SIZE
        backend: Any = open_androidworld(config_of(other.url), done_policy(), None)  # pyright: ignore
    with concurrent.futures.ThreadPoolExecutor(1) as threads:
        waiting = threads.submit(backend._fleet, 0)
        with pytest.raises(TimeoutError):
            waiting.result(0.2)
        backend.close()
        with pytest.raises(AndroidWorldError, match="no connection"):
            waiting.result(60)


def test_one_seed_for_the_whole_suite(phone):
    backend = open_androidworld(
        config_of(phone.url, suite_seed=30),
        done_policy(),  # pyright: ignore
        None,
    )
    frames = backend.replay(4, 7, np.array([[7, 0, 0, 0]], np.int32))
    assert frames[0].instruction == "SystemBluetoothTurnOn number 30000."
    backend.close()
    assert phone.left == []


def test_the_lock_is_given_back(phone):
    for _ in range(2):
        open_androidworld(config_of(phone.url), done_policy(), None).close()  # pyright: ignore
        refusal(config_of(phone.url, screen_width=999))
