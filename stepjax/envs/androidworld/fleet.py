"""Several phones: where each is, and an environment for each place in a pool."""

import concurrent.futures
import contextlib
import logging
import socket
import threading
from collections.abc import Callable, Sequence
from pathlib import Path

from stepjax.envs.androidworld.adb import AdbDevice
from stepjax.envs.androidworld.environment import (
    AndroidWorldEnvironment,
    FormatAction,
)
from stepjax.envs.androidworld.errors import AndroidWorldError
from stepjax.envs.androidworld.exchange import Address, parse_address
from stepjax.envs.androidworld.journal import Journal
from stepjax.envs.androidworld.phone import Phone, ScreenSize
from stepjax.envs.androidworld.settings import AndroidWorldSettings
from stepjax.envs.desktop.screen_states import ScreenStates

__all__ = ["AndroidWorldFleet", "split_urls"]

_LOG = logging.getLogger(__name__)
_MOST = 1024
_AT_ONCE = 32


def split_urls(text: str) -> tuple[str, ...]:
    """Addresses in a text, separated by commas.

    Raises:
      ValueError: If there is none, one is unsound, or two are the same server.

    Example:
      >>> split_urls("http://a:5000, http://b:5000")
      ('http://a:5000', 'http://b:5000')
    """
    found = [parse_address(part) for part in text.split(",") if part.strip()]
    if not 1 <= len(found) <= _MOST:
        raise ValueError(
            "url must name AndroidWorld's servers, such as http://localhost:5000, "
            f"separated by commas, got {text!r:.80}."
        )
    seen: dict[object, Address] = {}
    for address in found:
        for place in _places(address):
            other = seen.setdefault((place, address.path), address)
            if other is not address:
                raise ValueError(
                    f"url names one server twice, as {other} and as {address}; each "
                    "phone needs a server of its own."
                )
    return tuple(map(str, found))


class AndroidWorldFleet:
    """Phones behind servers of AndroidWorld; makes the environments of a pool.

    Args:
      urls: Of the servers, one for each phone.
      budget_of: Steps that a task may take, by its name.
      settings: How phones are driven; None for the defaults.
      serials: Of the same phones, as adb lists them, in the same order; empty if adb
        does not reach them.
      adb: The program.
      format_action: AndroidWorld's JSON of an action; None for the grammar's.
      journals: Folder that says what is set up where; None for the default.

    Attributes:
      urls: Of the servers.

    Raises:
      ValueError: If the numbers of servers and serials differ, or another run on this
        machine uses one of the servers.
    """

    def __init__(
        self,
        urls: Sequence[str],
        *,
        budget_of: Callable[[str], int],
        settings: AndroidWorldSettings | None = None,
        serials: Sequence[str] = (),
        adb: str = "adb",
        format_action: FormatAction | None = None,
        journals: Path | None = None,
    ):
        if serials and len(serials) != len(urls):
            raise ValueError(
                f"serials must be one for each of the {len(urls)} servers, got "
                f"{len(serials)}."
            )
        self.urls = tuple(urls)
        self._settings = settings or AndroidWorldSettings()
        self._budget_of, self._format = budget_of, format_action
        self._devices = [AdbDevice(serial, adb=adb) for serial in serials]
        self._size = ScreenSize(self._settings.screen)
        self._states = ScreenStates()
        self._over = threading.Event()
        self._journals: list[Journal] = []
        with contextlib.ExitStack() as undo:
            for url in self.urls:
                journal = Journal(url, journals)
                undo.callback(journal.close)
                self._journals.append(journal)
            undo.pop_all()

    def open(self) -> tuple[str, ...]:
        """Reach every phone once and look at it, all at a time.

        Returns:
          Names of the tasks, which must be the same everywhere.

        Raises:
          AndroidWorldError: If a server or a phone is not there, or not as the others.
        """
        with concurrent.futures.ThreadPoolExecutor(_AT_ONCE) as threads:
            found = list(threads.map(self._greet, range(len(self.urls))))
        for url, names in zip(self.urls, found, strict=True):
            if set(names) != set(found[0]):
                odd = sorted(set(names) ^ set(found[0]))[0]
                raise AndroidWorldError(
                    f"{url} and {self.urls[0]} offer different tasks, {odd} for one; "
                    "run the same AndroidWorld everywhere."
                )
        return found[0]

    def __call__(self, index: int) -> AndroidWorldEnvironment:
        """The environment of a place in a pool; waits for a server that has gone."""
        phone = self._phone(index)
        phone.connect(self._settings.patience)
        return AndroidWorldEnvironment(
            phone,
            self._budget_of,
            settings=self._settings,
            format_action=self._format,
            states=self._states,
        )

    def status_line(self) -> str:
        """What is set up on the phones."""
        busy = [journal.task for journal in self._journals if journal.task]
        shown = ", ".join(busy[:3]) + (", ..." if busy[3:] else "")
        line = f"{len(busy)} of {len(self.urls)} phones at work"
        return f"{line}: {shown}" if busy else line

    def metrics(self) -> dict[str, float]:
        """Nothing of its own: the pool counts what fails."""
        return {}

    def hurry(self) -> None:
        """Wait for no server that has gone: the run is over. Safe from any thread."""
        self._over.set()

    def close(self) -> None:
        """Tear down what is set up, and give the servers free; may be called twice."""
        for index, journal in enumerate(self._journals):
            if journal.task is not None:
                try:
                    self._phone(index).end()
                except AndroidWorldError as error:
                    _LOG.warning("%s; the next run on this machine does it", error)
            journal.close()

    def _phone(self, index: int) -> Phone:
        return Phone(
            self.urls[index],
            self._journals[index],
            settings=self._settings,
            size=self._size,
            device=self._devices[index] if self._devices else None,
            over=self._over,
        )

    def _greet(self, index: int) -> tuple[str, ...]:
        phone = self._phone(index)
        names = phone.connect()
        phone.look()
        return names


def _places(address: Address) -> list[object]:
    """Numbers and port that an address stands for, or its name if there are none."""
    try:
        found = socket.getaddrinfo(address.host, address.port, type=socket.SOCK_STREAM)
    except OSError:
        return [(address.host, address.port)]
    return [place[:2] for *_, place in found]
