"""Print the versions that decide whether a failure is ours."""

import importlib.metadata
import platform

NAMES = ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "chex", "numpy")
found = ", ".join(f"{name} {importlib.metadata.version(name)}" for name in NAMES)
print(f"Python {platform.python_version()}, {found}")
