"""A server that stands in for AndroidWorld's, and settings that wait for nothing."""

import pytest

from stepjax.envs.androidworld.settings import AndroidWorldSettings, CallSeconds
from tests.envs.androidworld.stand_in import PhoneServer, serving


@pytest.fixture
def phone():
    """A server with a phone, served."""
    with serving(PhoneServer()) as server:
        yield server


@pytest.fixture
def settings():
    """Settings for a phone that is quick."""
    seconds = CallSeconds(
        quick=20.0, suite=20.0, initialize=20.0, tear_down=20.0, reset=20.0,
        action=20.0, score=20.0, screenshot=20.0,
    )  # fmt: skip
    return AndroidWorldSettings(
        settle_seconds=0.0, stable=False, patience=0.0, seconds=seconds
    )


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    """No waits between tries."""
    monkeypatch.setattr("stepjax.envs.androidworld.client._WAITS", (0.0, 0.01))
    monkeypatch.setattr("stepjax.envs.androidworld.phone._WAIT", 0.02)
