"""What a compiled program sends between devices, read from its text.

The compiler's own counts take a loop's body once. Here every collective is multiplied
by the trips of the loops around it, as far as the text tells them; loops whose trips
are known at run time only (over micro-batches) are counted once and named.
"""

import collections
import dataclasses
import math
import re
from collections.abc import Iterable, Sequence

__all__ = ["Collective", "find_collectives", "transfer_seconds"]

_SIZES = {"pred": 1, "s8": 1, "u8": 1, "s4": 0.5, "u4": 0.5, "bf16": 2, "f16": 2}
_SIZES |= {"s16": 2, "u16": 2, "s32": 4, "u32": 4, "f32": 4, "s64": 8, "f64": 8}
_SIZES |= {"u64": 8, "f8e4m3fn": 1, "f8e5m2": 1}
_HEAD = re.compile(r"^(ENTRY )?%?([\w.\-]+) \(.*\{\s*$")
_KINDS = "all-gather|all-reduce|reduce-scatter|all-to-all|collective-permute"
_COLLECTIVE = re.compile(rf"= (.*?) ({_KINDS})(-start)?\(")
_SHAPE = re.compile(r"([a-z]\w*)\[([\d,]*)\]")
_CALLS = re.compile(
    r"(calls|to_apply|body|condition|true_computation|false_computation)=%?([\w.\-]+)"
)
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
      loop: The loop of unknown length that it stands in, of which `times` counts one
        trip: the scope that is named in it, "" if none is. None outside such loops.
    """

    kind: str
    size: float
    devices: int
    times: int
    loop: str | None


@dataclasses.dataclass(frozen=True)
class _Place:
    """How often a computation runs, in which loop of unknown length, in whose body."""

    count: int
    loop: str | None
    body: str


def find_collectives(
    text: str, num_devices: int, scopes: Sequence[str] = ()
) -> list[Collective]:
    """The collectives of a compiled program.

    Args:
      text: `compiled.as_text()`.
      num_devices: Devices the program is for.
      scopes: Names of `jax.named_scope` that tell loops of unknown length apart.

    Returns:
      One entry per collective of the text; those among one device are left out.
    """
    bodies, entry = _computations(text)
    places = _places(bodies, entry, scopes)
    found: dict[tuple, Collective] = {}
    for name, lines in bodies.items():
        place = places.get(name)
        for index, line in enumerate(lines):
            match = _COLLECTIVE.search(line)
            if not match or place is None:
                continue
            one = _collective(match, line, name, num_devices, place)
            if one.devices == 1:
                continue
            # Start, steps and end of one transfer show it several times, in
            # computations of their own. Those that scatter share a channel.
            channel = re.search(r"channel_id=(\d+)", line)
            key: tuple = (name, index)
            if channel and "all-reduce-scatter" not in name:
                key = (place.body, one.kind, channel[1])
            if key not in found or one.times > found[key].times:
                found[key] = one
    return list(found.values())


def transfer_seconds(items: Iterable[Collective], *, link_rate: float) -> float:
    """Seconds the links need at least; loops of unknown length count once.

    Nothing overlaps. A ring around the group is assumed, used in both directions: a
    gathered value passes every device but for its own part, a reduced one twice. When
    all send to all, a part of 1/n of the value goes to each of the others, n / 4 hops
    away on average.

    Args:
      items: From `find_collectives`.
      link_rate: Bytes a second over a link, in one direction.

    Returns:
      Seconds.
    """
    seconds = 0.0
    for item in items:
        passes = _passes(item.kind, item.devices)
        seconds += item.times * passes * item.size / (2 * link_rate)
    return seconds


def _passes(kind: str, devices: int) -> float:
    """How many times its size a value crosses the links out of a device of a ring."""
    if kind == "collective-permute":
        return 1.0
    if kind == "all-to-all":  # distances to the others add up to n^2 / 4
        return devices**2 // 4 / devices
    return (2.0 if kind == "all-reduce" else 1.0) * (devices - 1) / devices


def _computations(text: str) -> tuple[dict[str, list[str]], str]:
    """Lines by computation, and the name of the one that the program starts with."""
    bodies: dict[str, list[str]] = {}
    entry, current = "", None
    for line in text.splitlines():
        head = _HEAD.match(line)
        if head:
            current = bodies.setdefault(head[2], [])
            entry = head[2] if head[1] else entry
        elif current is not None:  # a "}" may belong to a kernel's settings
            current.append(line)
    return bodies, entry


def _places(
    bodies: dict[str, list[str]], entry: str, scopes: Sequence[str]
) -> dict[str, _Place]:
    """Where each computation that runs stands."""
    places: dict[str, _Place] = {}
    queue = collections.deque([(entry, _Place(1, None, entry))])
    while queue:
        name, place = queue.popleft()
        known = places.get(name)
        if name not in bodies or (known and known.count >= place.count):
            continue
        places[name] = place
        for line in bodies[name]:
            called = _CALLS.findall(line)
            inner = place
            if " while(" in line:
                inner = _inside(place, dict(called), line, bodies, scopes)
            names = [other for _, other in called]
            branches = _BRANCHES.search(line)
            if branches:
                names += re.findall(r"[\w.\-]+", branches[1])
            queue.extend((other, inner) for other in names)
    return places


def _inside(
    place: _Place,
    called: dict[str, str],
    line: str,
    bodies: dict[str, list[str]],
    scopes: Sequence[str],
) -> _Place:
    """The place of a loop's body."""
    body, trips = called["body"], _trips(line, called["condition"], bodies)
    loop = place.loop
    if trips is None and loop is None:
        loop = _scope_in(body, bodies, scopes)
    return _Place(place.count * (trips or 1), loop, body)


def _scope_in(name: str, bodies: dict[str, list[str]], scopes: Sequence[str]) -> str:
    """The scope that most operations of a computation are named after, "" for none."""
    if not scopes:
        return ""
    named = re.compile(rf'op_name="[^"]*[/(]({"|".join(scopes)})[/)"]')
    counts: collections.Counter[str] = collections.Counter()
    pending, seen = [name], set()
    while pending:
        one = pending.pop()
        if one in seen:
            continue
        seen.add(one)
        for line in bodies.get(one, ()):
            counts.update(named.findall(line))
            pending += [other for _, other in _CALLS.findall(line)]
    return counts.most_common(1)[0][0] if counts else ""


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
    match: re.Match[str], line: str, name: str, num_devices: int, place: _Place
) -> Collective:
    kind, devices = match[2], _group_size(line, num_devices)
    starts = match[3] is not None
    size = _started_size(kind, match[1]) if starts else _size(match[1])
    if kind == "reduce-scatter" and not starts:
        size *= devices
    elif kind == "all-reduce" and "all-reduce-scatter" in name:
        kind = "reduce-scatter"
    return Collective(
        kind=kind, size=size, devices=devices, times=place.count, loop=place.loop
    )


def _started_size(kind: str, shape: str) -> float:
    """Bytes of a transfer from what its start gives: operands, results, more.

    Only that of an all-reduce gives results alone.
    """
    parts = _parts(shape)
    if kind == "all-reduce" or len(parts) < 2:
        return _size(shape)
    return _size(parts[0] if kind == "reduce-scatter" else parts[1])


def _size(shape: str) -> float:
    """Bytes of all arrays of a shape; a tuple is several values sent at once."""
    return sum(
        _SIZES.get(dtype, 4) * math.prod(int(d) for d in dims.split(",") if d)
        for dtype, dims in _SHAPE.findall(shape)
    )


def _parts(shape: str) -> list[str]:
    """The elements of a tuple's shape; none of another."""
    parts, depth = [], 0
    for sign in shape[1:-1] if shape.startswith("(") else "":
        depth += (sign in "([{") - (sign in ")]}")
        if not parts or (sign == "," and not depth):
            parts.append("")
        if sign != "," or depth:
            parts[-1] += sign
    return parts


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
