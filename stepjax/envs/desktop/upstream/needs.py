"""What a task needs beyond a sandboxed desktop without network."""

import dataclasses
import enum
import json
import re
import shutil
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from stepjax.envs.desktop.tasks.schema import SetupStep, TaskSpec
from stepjax.envs.desktop.upstream.assets import missing_assets
from stepjax.envs.desktop.upstream.names import GETTERS, METRICS

__all__ = ["Abilities", "Need", "Obstacle", "obstacles"]


class Need(enum.Enum):
    """Why a task cannot run, in the words of the table."""

    WEB = "needs the web"
    VS_CODE = "needs VS Code"
    CHROME = "needs Google Chrome"
    BROWSER_PORT = "needs the browser's or VLC's own port"
    APPLICATION = "application missing"
    ASSET = "asset missing"
    UNKNOWN = "unknown type"
    ROOT = "needs root"
    LEFT_OUT = "needs a package that is left out"
    MALFORMED = "malformed"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Obstacle:
    """One reason why a task cannot run.

    Attributes:
      need: Its kind.
      detail: What exactly, such as the key of the task file or the missing path.
    """

    need: Need
    detail: str

    def __str__(self) -> str:
        return f"{self.need.value}: {self.detail}" if self.detail else self.need.value


@dataclasses.dataclass(frozen=True, kw_only=True)
class Abilities:
    """What the desktops of this machine have.

    Attributes:
      has_program: True for a program that is installed, by name or path.
      root: True if desktops with root rights can be started.
    """

    has_program: Callable[[str], bool] = lambda name: shutil.which(name) is not None
    root: bool = False


_PLACES = re.compile(r"https?://(?!localhost|127\.0\.0\.1|0\.0\.0\.0)\S")
_INSTALLS = re.compile(
    r"\b(?:pip3?|apt|apt-get|snap|npm)\s+(?:-\S+\s+)*(?:install|update)"
)
_SUDO = re.compile(r"\bsudo\b")

_OWN_PORT_STEPS = {"chrome_open_tabs", "chrome_close_tabs"}
_WEB_STEPS = {"googledrive", "login"}
_OWN_PORT_GETTERS = {
    "active_tab_html_parse",
    "active_tab_info",
    "gotoRecreationPage_and_get_html_content",
    "info_from_website",
    "number_of_search_results",
    "open_tabs_info",
    "page_info",
    "pdf_from_url",
    "vlc_playing_info",
}
_WEB_GETTERS = {
    "googledrive_file",
    "gotoRecreationPage_and_get_html_content",
    "info_from_website",
    "number_of_search_results",
    "pdf_from_url",
    "rule_relativeTime",  # asks a web service for the time zone
}
# Look for "Google Chrome" in the accessibility tree, where Chromium has its own name.
_CHROME_GETTERS = {
    "active_tab_url_parse",
    "active_url_from_accessTree",
    "macys_product_url_parse",
    "url_dashPart",
    "url_path_parse",
}
_VS_CODE_NAMES = {"vscode_config", "is_extension_installed"}
_OCR_METRICS = {"compare_image_text"}

_VS_CODE_PROGRAMS = {"code"}
_CHROME_PROGRAMS = {"chrome", "google-chrome", "google-chrome-stable"}
_APPS = {
    "calc": "localc",
    "gimp": "gimp",
    "impress": "loimpress",
    "libreoffice_calc": "localc",
    "libreoffice_impress": "loimpress",
    "libreoffice_writer": "lowriter",
    "picard": "picard",
    "thunderbird": "thunderbird",
    "vlc": "vlc",
    "writer": "lowriter",
    "browser": "google-chrome",
    "chrome": "google-chrome",
    "google_chrome": "google-chrome",
    "code": "code",
    "vs_code": "code",
    "vscode": "code",
}
_ALWAYS_THERE = {"python", "python3"}  # the desktop brings them with pyautogui


def obstacles(
    spec: TaskSpec, *, cache: Path | None, abilities: Abilities
) -> tuple[Obstacle, ...]:
    """Every reason why a task cannot run here; none if it can.

    Args:
      spec: The task.
      cache: The user's folder of assets, or None.
      abilities: What desktops here have.

    Raises:
      ValueError: If an asset is named in a way that cannot be.
    """
    found = [
        *_of_apps(spec, abilities),
        *_of_steps("config", spec.config, abilities),
        *_of_steps("evaluator.postconfig", spec.evaluator.postconfig, abilities),
        *_of_checks(spec),
    ]
    if spec.data.get("proxy") is True:
        found.append(Obstacle(need=Need.WEB, detail="proxy"))
    if (spec.needs_root or _asks_sudo(spec)) and not abilities.root:
        found.append(Obstacle(need=Need.ROOT, detail="a command with sudo"))
    for path in missing_assets(spec.data, source=spec.source, cache=cache):
        found.append(Obstacle(need=Need.ASSET, detail=str(path)))
    return tuple(dict.fromkeys(found))


def _of_apps(spec: TaskSpec, abilities: Abilities) -> Iterator[Obstacle]:
    for app in spec.related_apps:
        program = _APPS.get(app.strip().lower().replace(" ", "_"))
        if program is not None:
            yield from _of_program(program, f"related_apps has {app!r}", abilities)


def _of_program(name: str, where: str, abilities: Abilities) -> Iterator[Obstacle]:
    leaf = name.rpartition("/")[2]
    if leaf in _VS_CODE_PROGRAMS:
        yield Obstacle(need=Need.VS_CODE, detail=where)
    elif leaf in _CHROME_PROGRAMS:
        # The desktops have a command of that name, which starts Chromium.
        if not abilities.has_program("chromium"):
            yield Obstacle(need=Need.CHROME, detail=where)
    elif leaf not in _ALWAYS_THERE and not abilities.has_program(name):
        yield Obstacle(need=Need.APPLICATION, detail=f"{name!r} ({where})")


def _of_steps(
    key: str, steps: tuple[SetupStep, ...], abilities: Abilities
) -> Iterator[Obstacle]:
    for index, step in enumerate(steps):
        where = f"{key}[{index}]"
        if step.type in _WEB_STEPS:
            yield Obstacle(need=Need.WEB, detail=f"{where} is {step.type}")
        if step.type in _OWN_PORT_STEPS:
            yield Obstacle(need=Need.BROWSER_PORT, detail=f"{where} is {step.type}")
            addresses = [v for v in step.parameters.values() if isinstance(v, list)]
            yield from _of_text(" ".join(map(str, sum(addresses, []))), where)
        command = step.parameters.get("command")
        if command is not None:
            yield from _of_command(step, command, where, abilities)


def _of_command(
    step: SetupStep, command: str | list[str], where: str, abilities: Abilities
) -> Iterator[Obstacle]:
    text = command if isinstance(command, str) else " ".join(command)
    yield from _of_text(text, where)
    words = text.split()
    shell = step.parameters.get("shell") in (True, "true", "True")
    # A shell line may begin with anything; an unknown word is no proof there.
    if words and (step.type == "launch" or not shell) and "=" not in words[0]:
        yield from _of_program(words[0], where, abilities)


def _of_text(text: str, where: str) -> Iterator[Obstacle]:
    if _PLACES.search(text) or _INSTALLS.search(text):
        yield Obstacle(need=Need.WEB, detail=where)


def _of_checks(spec: TaskSpec) -> Iterator[Obstacle]:
    several = isinstance(spec.data["evaluator"]["func"], list)
    if "Google Chrome" in json.dumps(spec.data["evaluator"]):
        yield Obstacle(need=Need.CHROME, detail="the evaluator asks for that name")
    for index, check in enumerate(spec.evaluator.checks):
        end = f"[{index}]" if several else ""
        yield from _of_metric(check.metric, f"evaluator.func{end}")
        for key, getter in (("result", check.result), ("expected", check.expected)):
            if getter:
                yield from _of_getter(getter, f"evaluator.{key}{end}")


def _of_metric(name: str, where: str) -> Iterator[Obstacle]:
    if name not in METRICS:
        yield Obstacle(need=Need.UNKNOWN, detail=f"{where} is {name!r}")
    if name in _OCR_METRICS:
        yield Obstacle(need=Need.LEFT_OUT, detail=f"{where} wants easyocr")
    if name in _VS_CODE_NAMES:
        yield Obstacle(need=Need.VS_CODE, detail=f"{where} is {name}")


def _of_getter(getter: Mapping[str, Any], where: str) -> Iterator[Obstacle]:
    kind = getter["type"]
    if kind not in GETTERS:
        yield Obstacle(need=Need.UNKNOWN, detail=f"{where}.type is {kind!r}")
    for names, need in (
        (_WEB_GETTERS, Need.WEB),
        (_OWN_PORT_GETTERS, Need.BROWSER_PORT),
        (_CHROME_GETTERS, Need.CHROME),
        (_VS_CODE_NAMES, Need.VS_CODE),
    ):
        if kind in names:
            yield Obstacle(need=need, detail=f"{where} is {kind}")
    command = getter.get("command")
    if isinstance(command, str | list):
        text = command if isinstance(command, str) else " ".join(map(str, command))
        yield from _of_text(text, where)


def _asks_sudo(spec: TaskSpec) -> bool:
    getters = [one for c in spec.evaluator.checks for one in (c.result, c.expected)]
    return any(_SUDO.search(str(one.get("command", ""))) for one in getters if one)
