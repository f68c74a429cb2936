"""The files that a task needs and the agent does not make: inputs and gold files.

Upstream looks for them in a cache folder before it downloads, so a folder that somebody
filled once is enough: `<cache>/<task id>/<uuid5 of the address>_<name>` for an input,
`<cache>/<task id>/<dest>` for a file to compare with.
"""

import dataclasses
import os
import uuid
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

__all__ = ["Asset", "asset_name", "assets_of", "missing_assets"]

_HISTORY = "history_new.sqlite"
"""Where upstream keeps the empty history that `update_browse_history` starts from."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Asset:
    """One file.

    Attributes:
      key: Where the task names it, such as "config[0].parameters.files[0]".
      url: Where upstream would get it from, "" if the task does not say.
      name: Its name in the task's folder of the cache.
    """

    key: str
    url: str
    name: str


def asset_name(url: str, path: str) -> str:
    """Name in the cache of an input that lies at `url` and goes to `path`.

    Example:
      >>> asset_name("https://example.org/a?x=1", "/home/user/a.txt")
      'b41fa30b-f54a-5461-9428-0b55a0470ef8_a.txt'
    """
    return f"{uuid.uuid5(uuid.NAMESPACE_URL, url)}_{os.path.basename(path)}"


def assets_of(data: Mapping[str, Any], *, source: str) -> tuple[Asset, ...]:
    """Every file that a task needs from the cache.

    Args:
      data: The task, as `parse_task` accepts it.
      source: Where it came from, for messages.

    Raises:
      ValueError: If an address or a name is missing or leads out of the folder.
    """
    found: list[Asset] = []
    evaluator = data["evaluator"]
    for key, steps in (
        ("config", data.get("config")),
        ("evaluator.postconfig", evaluator.get("postconfig")),
    ):
        for index, step in enumerate(steps or ()):
            found += _of_step(step, f"{key}[{index}].parameters", source)
    for key in ("result", "expected"):
        getters = evaluator.get(key)
        several = isinstance(getters, list)
        for index, getter in enumerate(getters if several else [getters]):
            spot = f"evaluator.{key}[{index}]" if several else f"evaluator.{key}"
            if getter and getter.get("type") == "cloud_file":
                found += _of_cloud_file(getter, spot, source)
    for asset in found:
        if asset.name in ("", ".", "..") or "/" in asset.name or "\0" in asset.name:
            raise ValueError(
                f"{source}: {asset.key} names {asset.name!r}; it must be a file's name "
                "without a folder."
            )
    return tuple({asset.name: asset for asset in found}.values())


def missing_assets(
    data: Mapping[str, Any], *, source: str, cache: Path | None
) -> tuple[Path, ...]:
    """Paths of the files that should be in the cache and are not.

    Args:
      data: The task, as `parse_task` accepts it.
      source: Where it came from, for messages.
      cache: The cache folder, or None if there is none: then every file is missing.
    """
    folder = (cache or Path("<cache>")) / data["id"]
    return tuple(
        folder / asset.name
        for asset in assets_of(data, source=source)
        if cache is None or not (folder / asset.name).is_file()
    )


def _of_step(step: Mapping[str, Any], key: str, source: str) -> Iterator[Asset]:
    if step["type"] == "update_browse_history":
        yield Asset(key=key, url="", name=_HISTORY)
    if step["type"] != "download":
        return
    for index, one in enumerate(step["parameters"]["files"]):
        spot = f"{key}.files[{index}]"
        url = _text(one.get("url"), f"{spot}.url", source)
        path = _text(one.get("path"), f"{spot}.path", source)
        yield Asset(key=spot, url=url, name=asset_name(url, path))


def _of_cloud_file(getter: Mapping[str, Any], key: str, source: str) -> Iterator[Asset]:
    paths, dests = getter.get("path"), getter.get("dest")
    if not getter.get("multi", False):
        paths, dests = [paths], [dests]
    if not isinstance(paths, list) or not isinstance(dests, list):
        raise ValueError(
            f"{source}: {key} has multi, so path and dest must be lists of texts."
        )
    if len(paths) != len(dests):
        raise ValueError(
            f"{source}: {key} has {len(paths)} in path and {len(dests)} in dest; there "
            "must be as many."
        )
    for url, dest in zip(paths, dests, strict=True):
        yield Asset(
            key=key,
            url=_text(url, f"{key}.path", source),
            name=_text(dest, f"{key}.dest", source),
        )


def _text(value: Any, key: str, source: str) -> str:
    if isinstance(value, str) and value:
        return value
    raise ValueError(f"{source}: {key} is {value!r}; it must be a text.")
