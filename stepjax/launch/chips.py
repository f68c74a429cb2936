"""What a TPU chip can do at best, by its maker's data sheets."""

import dataclasses

__all__ = ["CHIPS", "Chip"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Chip:
    """Limits of one chip; a device of jax is one chip for all of these.

    Attributes:
      name: As in the name of a topology, "v5e:4x4".
      flops: Operations a second in bfloat16, a multiply-add being two.
      memory: Bytes of high-bandwidth memory.
      memory_rate: Bytes a second from and to it.
      link_rate: Bytes a second over one link to a neighbor, in one direction.
      dimensions: Of the grid that chips are wired in.
    """

    name: str
    flops: float
    memory: float
    memory_rate: float
    link_rate: float
    dimensions: int


def _chip(name: str, flops: float, memory: float, rate: float, **more) -> Chip:
    return Chip(
        name=name,
        flops=flops * 1e12,
        memory=memory * 1e9,
        memory_rate=rate * 1e9,
        **more,
    )


CHIPS: dict[str, Chip] = {
    "v4": _chip("v4", 275, 32, 1228, link_rate=50e9, dimensions=3),
    "v5e": _chip("v5e", 197, 16, 819, link_rate=50e9, dimensions=2),
    "v5p": _chip("v5p", 459, 95, 2765, link_rate=100e9, dimensions=3),
    "v6e": _chip("v6e", 918, 32, 1640, link_rate=100e9, dimensions=2),
}
"""Chips by name. Sources: the pages on v4, v5e, v5p and v6e at cloud.google.com/tpu,
read on 2026-11-23; a link's rate is the chip's interconnect rate by its links (2,400,
1,600, 4,800 and 3,200 Gbit/s; six links in three dimensions, four in two)."""
