"""Fail unless the installed package is whole and brings nothing else along."""

import importlib.util
import sys
from importlib.resources import files

import jax.numpy as jnp

import stepjax

where = files("stepjax")
if "site-packages" not in str(where):
    sys.exit(f"stepjax was imported from {where}, not from the wheel")
for name in ("py.typed", "kernels/advantages.py", "envs/sim", "envs/miniwob"):
    if not where.joinpath(name).exists():
        sys.exit(f"the wheel lacks stepjax/{name}")
if not any(entry.suffix == ".js" for entry in where.joinpath("envs/miniwob").iterdir()):
    sys.exit("the wheel lacks the scripts of stepjax/envs/miniwob")
for name in ("experiments", "benchmarks", "tests"):
    if importlib.util.find_spec(name) is not None:
        sys.exit(f"the wheel brings a top-level package named {name}")

result = stepjax.centered_advantages(jnp.array([1.0, 0.0]), jnp.array([True, True]))
if result.tolist() != [0.5, -0.5]:
    sys.exit(f"centered_advantages gave {result}")
print(f"wheel ok: {len(stepjax.__all__)} public names")
