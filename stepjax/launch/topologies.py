"""TPU slices that are described, not held: what programs are compiled for.

The compiler comes with the `libtpu` package and needs no TPU.
"""

import contextlib
import dataclasses
import importlib.util
import math
import os
import re
import sys
import tempfile
from collections.abc import Iterator
from typing import Any

from stepjax.launch.chips import CHIPS, Chip

__all__ = ["Topology", "describe_topology", "quiet_stderr"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Topology:
    """A slice.

    Attributes:
      name: Such as "v5e:8x8".
      chip: What each of its chips can do.
      shape: Chips along each dimension.
      devices: Descriptions that a mesh can be made of.
    """

    name: str
    chip: Chip
    shape: tuple[int, ...]
    devices: list[Any]


def describe_topology(name: str) -> Topology:
    """A described slice.

    Args:
      name: Chip and shape, such as "v5e:4x4", "v5p:4x4x4" or "v6e:16x16".

    Returns:
      The slice.

    Raises:
      ValueError: If the name cannot be one, or the compiler knows no such slice.
      ImportError: If `libtpu` is not installed.
    """
    match = re.fullmatch(r"(v\w+):(\d+(?:x\d+)*)", name)
    if not match or match[1] not in CHIPS:
        raise ValueError(
            f"topology must be a chip and a shape, such as v5e:8x8, got {name!r}; "
            f"chips: {', '.join(CHIPS)}."
        )
    chip = CHIPS[match[1]]
    shape = tuple(int(size) for size in match[2].split("x"))
    if len(shape) != chip.dimensions:
        raise ValueError(
            f"topology {name!r}: {chip.name} slices have {chip.dimensions} dimensions, "
            f"such as {chip.name}:{'x'.join(['4'] * chip.dimensions)}."
        )
    if importlib.util.find_spec("libtpu") is None:
        raise ImportError(
            "compiling for a TPU needs the libtpu package; install it with "
            "`pip install 'stepjax[compile-check]'` or `pip install libtpu`."
        )
    # Without these, libtpu asks a metadata server that only TPU machines have.
    os.environ.setdefault("TPU_SKIP_MDS_QUERY", "1")
    os.environ.setdefault("TPU_ACCELERATOR_TYPE", f"{chip.name}-{math.prod(shape)}")
    os.environ.setdefault("TPU_WORKER_HOSTNAMES", "localhost")
    # No TPU is opened, so nobody needs to wait for anybody's lock.
    os.environ.setdefault("ALLOW_MULTIPLE_LIBTPU_LOAD", "1")
    import jax
    from jax.experimental import topologies

    if not getattr(jax.config, "jax_platforms"):  # noqa: B009 - made at run time
        # jax would look for a TPU to run on, as the package is there.
        jax.config.update("jax_platforms", "cpu")
    try:
        with quiet_stderr():
            found = topologies.get_topology_desc(name, "tpu")
    except Exception as error:  # whatever the plugin raises for names it cannot read
        reason = str(error).split("\n")[0]
        raise ValueError(
            f"topology {name!r}: the compiler knows no such slice ({reason})."
        ) from None
    return Topology(name=name, chip=chip, shape=shape, devices=list(found.devices))


@contextlib.contextmanager
def quiet_stderr() -> Iterator[None]:
    """Keeps what libtpu logs (about metadata servers) from drowning the answer.

    It writes past Python, so the file descriptor is turned away for a while. Errors
    are raised as ever.
    """
    sys.stderr.flush()
    kept = os.dup(2)
    with tempfile.TemporaryFile() as log:
        os.dup2(log.fileno(), 2)
        try:
            yield
        finally:
            sys.stderr.flush()
            os.dup2(kept, 2)
            os.close(kept)
