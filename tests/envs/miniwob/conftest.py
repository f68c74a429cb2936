import importlib.util

import pytest

from stepjax.envs.miniwob import find_chromium, make_vector_environment

try:
    CHROMIUM = find_chromium()
    MISSING = ""
except FileNotFoundError as error:
    CHROMIUM, MISSING = "", str(error)
if not MISSING and importlib.util.find_spec("miniwob") is None:
    MISSING = "MiniWoB++'s pages are missing; pip install --no-deps miniwob==1.1.0"


@pytest.fixture(scope="session")
def chromium():
    if MISSING:
        pytest.skip(MISSING)
    return CHROMIUM


@pytest.fixture(scope="session")
def vector(chromium):
    """One browser for all tests that do not harm it."""
    made = make_vector_environment(chromium, num_slots=8, max_steps=10)
    yield made
    made.close()
