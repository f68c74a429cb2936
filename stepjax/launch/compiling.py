"""Memory and transfers of a program, as the compiler plans them."""

import dataclasses
import re
import time
from collections.abc import Sequence
from typing import Any

from stepjax.launch.collectives import find_collectives
from stepjax.launch.topologies import quiet_stderr

__all__ = ["compile_program"]


def compile_program(
    lowered: Any, devices: int, scopes: Sequence[str] = ()
) -> dict[str, Any]:
    """Memory per chip and collectives of a program.

    Args:
      lowered: What `jax.jit(...).lower` returns.
      devices: Devices it is for.
      scopes: As in `find_collectives`.

    Returns:
      Bytes by kind and "total", "collectives" as dicts and "items" as they were found,
      and "seconds"; "reused" are the arguments that are given up for results. If the
      compiler finds no room: "limit" and no kinds.

    Raises:
      ValueError: If the compiler refuses for another reason.
    """
    began = time.monotonic()
    try:
        with quiet_stderr():
            compiled = lowered.compile()
    except Exception as error:  # the compiler's own, of several kinds
        text = " ".join(str(error).split())
        used = re.search(r"Used ([\d.]+)([KMGT]) of ([\d.]+)([KMGT])", text)
        if "RESOURCE_EXHAUSTED" not in text or not used:
            raise ValueError(
                f"the compiler refused the program: {text[:400]}"
            ) from None
        return {
            "total": _bytes(used[1], used[2]),
            "limit": _bytes(used[3], used[4]),
            "collectives": [],
            "items": [],
            "seconds": time.monotonic() - began,
        }
    memory = compiled.memory_analysis()
    items = find_collectives(compiled.as_text(), devices, scopes)
    arguments = memory.argument_size_in_bytes
    fresh = memory.output_size_in_bytes - memory.alias_size_in_bytes
    total = arguments + fresh + memory.temp_size_in_bytes
    return {
        "arguments": arguments,
        "outputs": fresh,
        "reused": memory.alias_size_in_bytes,
        "temporaries": memory.temp_size_in_bytes,
        "total": total + memory.generated_code_size_in_bytes,
        "collectives": [dataclasses.asdict(item) for item in items],
        "items": items,
        "seconds": time.monotonic() - began,
    }


def _bytes(number: str, unit: str) -> float:
    return float(number) * 1024.0 ** (1 + "KMGT".index(unit))
