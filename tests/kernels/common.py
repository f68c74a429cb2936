"""What the kernel tests share."""

import jax
import numpy as np
from hypothesis import HealthCheck, settings
from jax.sharding import AxisType, NamedSharding, PartitionSpec

# Compilation makes the first example slow; the strict-dtype fixture holds no state.
quick = settings(
    max_examples=40,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)


def close(got, want, tolerance=2e-6):
    got, want = np.asarray(got), np.asarray(want)
    assert got.shape == want.shape
    np.testing.assert_allclose(got, want, rtol=tolerance, atol=tolerance)


def on_eight_devices(fn, *args):
    """`fn` jitted with every array's leading axis cut over eight devices."""
    mesh = jax.make_mesh((8,), ("data",), axis_types=(AxisType.Auto,))
    sharding = NamedSharding(mesh, PartitionSpec("data"))
    placed = [jax.device_put(x, sharding) for x in args]
    assert len(placed[0].sharding.device_set) == 8
    return jax.jit(fn)(*placed)


def count_traces(fn):
    """`fn` jitted, and a list that grows by one with every compilation."""
    traces = []

    def counted(*args, **kwargs):
        traces.append(None)
        return fn(*args, **kwargs)

    return jax.jit(counted), traces
