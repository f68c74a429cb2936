import importlib.util

import pytest

from stepjax.envs.miniwob import find_chromium
from stepjax.envs.mobile import PhoneScreen, make_mobile_environment

try:
    CHROMIUM = find_chromium()
    MISSING = ""
except FileNotFoundError as error:
    CHROMIUM, MISSING = "", str(error)
if not MISSING and importlib.util.find_spec("miniwob") is None:
    MISSING = "MiniWoB++'s pages are missing; pip install --no-deps miniwob==1.1.0"

SLOTS = 5


@pytest.fixture(scope="session")
def chromium():
    if MISSING:
        pytest.skip(MISSING)
    return CHROMIUM


@pytest.fixture(scope="session")
def phones(chromium):
    """One browser for all tests that do not harm it."""
    screen = PhoneScreen(width=720, height=1600, scale=2.0)
    made = make_mobile_environment(chromium, SLOTS, screen=screen, max_steps=20)
    yield made
    made.close()
