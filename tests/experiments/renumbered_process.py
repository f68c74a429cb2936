"""As `lever_process`, but jax numbers the processes the other way round.

TPUs may number processes by their place in the slice, whatever jax was started with.
"""

import sys
from typing import Any

import jax
from jax._src.distributed import global_state

from tests.experiments.lever_process import main

_initialize = jax.distributed.initialize


def _initialize_renumbered(*arguments: Any, **options: Any) -> None:
    _initialize(*arguments, **options)
    given, count = global_state.process_id, global_state.num_processes
    assert count is not None
    global_state.process_id = count - 1 - given
    jax.devices()  # the backend takes its number now
    global_state.process_id = given
    assert jax.process_index() == count - 1 - given


if __name__ == "__main__":
    jax.distributed.initialize = _initialize_renumbered
    main(*sys.argv[1:])
