"""A run with everything around it, on levers."""

import dataclasses
import json

import jax
import numpy as np
import pytest

from experiments.config import EnvConfig
from experiments.errors import RunError, UsageError
from experiments.session import run_together, run_with_report
from stepjax.launch.cluster import LaunchError
from stepjax.rollout.backend import Frame
from tests.experiments.lever_world import (
    POLICY,
    LeverBackend,
    lever_config,
    start_params,
)


class PicturedLevers(LeverBackend):
    """Levers whose episodes can be looked at."""

    def replay(self, task_id, seed, action_tokens):
        image = np.full((40, 60, 3), 200, np.uint8)
        pulls = [f"pull {int(token[0])}" for token in action_tokens]
        return [
            Frame(image=image, instruction=f"task {task_id}", action=text)
            for text in [*pulls, ""]
        ]


class BrokenLevers(LeverBackend):
    """Levers that break when episodes are to be looked at."""

    def replay(self, task_id, seed, action_tokens):
        raise RuntimeError("the levers\nhave come off")


@pytest.fixture
def lever_run(monkeypatch, tmp_path):
    """Function that runs levers of a given kind as a user's command would."""

    def run(backend, policy=POLICY):
        monkeypatch.setattr(
            "experiments.backends.open_backend", lambda *_, **__: backend
        )
        monkeypatch.setattr("experiments.backends.make_policy", lambda *_: policy)
        monkeypatch.setattr(
            "experiments.warm_start.warm_started_params",
            lambda *_, **__: start_params(),
        )
        return run_with_report("a test", lever_config(tmp_path / "run"))

    return run


def test_run_leaves_report_and_events(lever_run):
    result = lever_run(PicturedLevers())
    folder = result.run_dir
    html = (folder / "report.html").read_text()
    assert "pull the levers" in html or "task " in html
    assert list((folder / "tensorboard").iterdir())
    assert list((folder / "episodes").iterdir())
    assert json.loads((folder / "result.json").read_text())["status"] == "finished"


@pytest.mark.slow
def test_a_policy_that_lays_parameters_out_in_its_own_way_does_so_for_the_report(
    lever_run, monkeypatch
):
    """They do not go to the host and back."""
    copies, seen = [], []

    @dataclasses.dataclass(frozen=True)
    class Copying(type(POLICY)):
        def acting_copy(self, params):
            copies.append(jax.device_put(params, jax.local_devices()[0]))
            return copies[-1]

    class Watched(PicturedLevers):
        def collect(self, params, *args, **kwargs):
            seen.append(params)
            return super().collect(params, *args, **kwargs)

    policy = Copying(init=POLICY.init, sample=POLICY.sample, evaluate=POLICY.evaluate)
    result = lever_run(Watched(), policy)
    assert seen[-1] is copies[-1] and seen[-2] is result.start_params
    assert seen[-1] is not seen[-3]  # that of the last evaluation is not kept
    np.testing.assert_array_equal(seen[-1]["table"], result.params["table"])


def test_processes_may_name_machines_and_phones_of_their_own(monkeypatch, tmp_path):
    """All else must be alike in every process."""
    compared = []

    def gathered(settings, **options):
        compared.append(settings)
        raise LaunchError("that was all")

    monkeypatch.setattr("experiments.session.gather_facts", gathered)
    for url, serials, steps in (("a", "x", 5), ("b", "y", 5), ("b", "y", 6)):
        env = EnvConfig(
            backend="androidworld",
            url=f"http://{url}",
            serials=serials,
            max_steps=steps,
        )
        with (
            pytest.raises(UsageError, match="that was all"),
            run_together(lever_config(tmp_path, env=env)),
        ):
            pass
    assert compared[0] == compared[1] != compared[2]


def test_levers_that_break_during_the_report_end_the_run_in_one_line(lever_run):
    with pytest.raises(RunError, match="the levers have come off") as caught:
        lever_run(BrokenLevers())
    assert "\n" not in str(caught.value)
