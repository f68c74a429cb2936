"""A short soak in every run; the long one is `python -m tests.envs.desktop.soak`."""

import shutil

import pytest

from stepjax.envs.desktop import doctor
from tests.envs.desktop.soak import soak

PROGRAMS = ("soffice", "mousepad", "pcmanfm", "xterm", "chromium", "vlc")


@pytest.mark.desktop
@pytest.mark.filterwarnings(
    "ignore:Exception ignored in. <socket:pytest.PytestUnraisableExceptionWarning"
)
def test_faults_are_accounted_for_and_nobody_else_pays():
    lacking = [one for one in doctor.examine(start=False) if one.needed and not one.ok]
    if lacking:
        pytest.skip(f"no desktop: {lacking[0].name}: {lacking[0].detail}")
    for program in PROGRAMS:
        if shutil.which(program) is None:
            pytest.skip(f"{program} is not installed")
    account = soak(minutes=0.1, fault_seconds=4.0, num_envs=2, seed=1)
    assert account["faults"] > 0
    assert not account["missed"]
    assert account["solved"] == account["valid"] > 0
    assert not [one for one in account["outcomes"] if "never ended" in one]
    for name in ("children", "mounts", "folders"):
        assert account["after"][name] == account["before"][name], name
