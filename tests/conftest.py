"""Settings every test runs under; they must be in force before jax starts a backend."""

import os
import tempfile
from pathlib import Path

# Subprocesses started by tests share the cache, so it goes into the environment.
_CACHE = Path(tempfile.gettempdir()) / f"stepjax-jax-cache-{os.getuid()}"
os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(_CACHE))
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0.5")
os.environ.setdefault("MPLBACKEND", "Agg")

import jax  # noqa: E402
import pytest  # noqa: E402

jax.config.update("jax_num_cpu_devices", 8)
jax.config.update("jax_numpy_rank_promotion", "raise")


def pytest_configure(config):
    """Tests that are not slow compile far more than they compute."""
    if "not slow" in (config.option.markexpr or ""):
        jax.config.update("jax_disable_most_optimizations", True)


@pytest.fixture
def strict_dtypes():
    """No implicit dtype promotion; every kernel test uses it."""
    with jax.numpy_dtype_promotion("strict"):
        yield


@pytest.fixture(scope="session")
def repository_root() -> Path:
    """The checkout the tests run from."""
    return Path(__file__).resolve().parent.parent
