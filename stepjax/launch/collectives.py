"""What a compiled program sends between devices, read from its text.

The compiler's own counts take a loop's body once. Here every collective is multiplied
by the trips of the loops around it, as far as the text tells them; loops whose trips
are known at run time only (over micro-batches) are counted once and marked.
"""

import collections
import dataclasses
import math
import re
from collections.abc import Iterable

__all__ = ["Collective", "find_collectives", "transfer_seconds"]

_SIZES = {"pred": 1, "s8": 1, "u8": 1, "s4": 0.5, "u4": 0.5, "bf16": 2, "f16": 2}
_SIZES |= {"s16": 2, "u16": 2, "s32": 4, "u32": 4, "f32": 4, "s64": 8, "f64": 8}
_SIZES |= {"u64": 8, "f8e4m3fn": 1, "f8e5m2": 1}
_HEAD = re.compile(r"^(ENTRY )?%?([\w.\-]+) \(.*\{\s*$")
_KINDS = "all-gather|all-reduce|reduce-scatter|all-to-all|collective-permute"
_COLLECTIVE = re.compile(rf"= (.*?) ({_KINDS})(-start)?\(")
_SHAPE = re.compile(r"([a-z]\w*)\[([\d,]*)\]")
_CALLS = re.compile(r"(calls|to_apply|body|condition)=%?([\w.\-]+)")
_BRANCHES = re.compile(r"branch_computations=\{([^}]*)\}")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Collective:
    """One transfer among groups of devices.

    Attributes:
      kind: "all-gather", "all-reduce", "reduce-scatter", "all-to-all" or
        "collective-permute".
      size: Bytes of the whole value on one device: gathered, or before scattering.
      devices: Devices of a group.
      times: How often it runs, loops of known length included.
      repeated: Whether it stands in a loop of unknown length, of which `times` counts
        one trip.
    """

    kind: str
    size: float
    devices: int
    times: int
    repeated: bool


def find_collectives(text: str, num_devices: int) -> list[Collective]:
    """The collectives of a compiled program.

    Args:
      text: `compiled.as_text()`.
      num_devices: Devices the program is for.

    Returns:
      One entry per collective of the text; those among one device are left out.
    """
    bodies, entry = _computations(text)
    times = _multipliers(bodies, entry)
    found: dict[str, Collective] = {}
    for name, lines in bodies.items():
        count, repeated = times.get(name, (0, False))
        for index, line in enumerate(lines):
            match = _COLLECTIVE.search(line)
            if not match or not count:
                continue
            one = _collective(match, line, name, num_devices, count, repeated)
            channel = re.search(r"channel_id=(\d+)", line)
            # Start and end of one transfer show it twice, in computations of their own.
            key = f"{one.kind} {channel[1]}" if channel else f"{name} {index}"
            if one.devices > 1 and count > getattr(found.get(key), "times", 0):
                found[key] = one
    return list(found.values())


def transfer_seconds(
    items: Iterable[Collective], *, link_rate: float, repeats: int = 1
) -> float:
    """Seconds the links need at least, nothing overlapping.

    A ring around the group is assumed, used in both directions: a gathered value passes
    every device but for its own part, a reduced one twice.

    Args:
      items: From `find_collectives`.
      link_rate: Bytes a second over a link, in one direction.
      repeats: Trips of the loop of unknown length.

    Returns:
      Seconds.
    """
    seconds = 0.0
    for item in items:
        share = item.size * (item.devices - 1) / item.devices
        passes = {"all-reduce": 2.0, "all-to-all": 0.5}.get(item.kind, 1.0)
        if item.kind == "collective-permute":
            share = item.size
        times = item.times * (repeats if item.repeated else 1)
        seconds += times * passes * share / (2 * link_rate)
    return seconds


def _computations(text: str) -> tuple[dict[str, list[str]], str]:
    """Lines by computation, and the name of the one that the program starts with."""
    bodies: dict[str, list[str]] = {}
    entry, current = "", None
    for line in text.splitlines():
        head = _HEAD.match(line)
        if head:
            current = bodies.setdefault(head[2], [])
            entry = head[2] if head[1] else entry
        elif line.startswith("}"):
            current = None
        elif current is not None:
            current.append(line)
    return bodies, entry


def _multipliers(
    bodies: dict[str, list[str]], entry: str
) -> dict[str, tuple[int, bool]]:
    """How often each computation runs, and whether in a loop of unknown length."""
    times: dict[str, tuple[int, bool]] = {}
    queue = collections.deque([(entry, 1, False)])
    while queue:
        name, count, repeated = queue.popleft()
        known = times.get(name)
        if name not in bodies or (known and known >= (count, repeated)):
            continue
        times[name] = (count, repeated)
        for line in bodies[name]:
            called = dict(_CALLS.findall(line))
            branches = _BRANCHES.search(line)
            names = [] if not branches else re.findall(r"[\w.\-]+", branches[1])
            trips: int | None = 1
            if "body" in called:
                trips = _trips(line, called.get("condition", ""), bodies)
            for _, other in _CALLS.findall(line):
                names.append(other)
            for other in names:
                queue.append((other, count * (trips or 1), repeated or trips is None))
    return times


def _trips(line: str, condition: str, bodies: dict[str, list[str]]) -> int | None:
    """Trips of a loop, None if the text does not tell."""
    known = re.search(r'known_trip_count":\{"n":"(\d+)"', line)
    if known:
        return int(known[1])
    pending, constants = [condition], []
    while pending:
        for inner in bodies.get(pending.pop(), ()):
            constants += re.findall(r"= s32\[\]\S* constant\((\d+)\)", inner)
            pending += [name for _, name in _CALLS.findall(inner)]
    return max(map(int, constants)) if constants else None


def _collective(
    match: re.Match[str],
    line: str,
    name: str,
    num_devices: int,
    count: int,
    repeated: bool,
) -> Collective:
    kind, devices = match[2], _group_size(line, num_devices)
    sizes = [
        _SIZES.get(dtype, 4) * math.prod(int(d) for d in shape.split(",") if d)
        for dtype, shape in _SHAPE.findall(match[1])
    ]
    # A start holds operands and results; else a tuple is several values sent at once.
    size = max(sizes, default=0) if match[3] else sum(sizes)
    if kind == "reduce-scatter":
        size *= devices
    elif kind == "all-reduce" and "all-reduce-scatter" in name:
        kind = "reduce-scatter"
    return Collective(
        kind=kind, size=size, devices=devices, times=count, repeated=repeated
    )


def _group_size(line: str, num_devices: int) -> int:
    if "collective-permute" in line:
        return 2
    lists = re.search(r"replica_groups=\{\{([\d,]+)\}", line)
    if lists:
        return lists[1].count(",") + 1
    grid = re.search(r"replica_groups=\[(\d+),(\d+)\]", line)
    if grid:
        return int(grid[2])
    mesh = re.search(r"replica_groups=mesh\[([^\]]*)\]\s*\{([^}]*)\}", line)
    if mesh:
        sizes = dict(re.findall(r"'([^']+)'=(\d+)", mesh[1]))
        size = 1
        for axis, part in re.findall(r"'([^']+)'(?::\(\d+\)(\d+))?", mesh[2]):
            size *= int(part or sizes.get(axis, 1))
        return size
    return num_devices
