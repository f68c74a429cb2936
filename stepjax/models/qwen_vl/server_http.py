"""JSON over HTTP with deadlines and retries, and errors of one line."""

import http.client
import json
import os
import socket
import threading
import urllib.error
import urllib.request
from collections.abc import Sequence
from typing import Any

__all__ = [
    "BUSY",
    "KEY_VARIABLE",
    "Connection",
    "ServerError",
    "key_from_environment",
]

KEY_VARIABLE = "STEPJAX_SERVER_KEY"
"""Environment variable of the key; no setting, since those are written to files."""

BUSY = (408, 409, 425, 429, 502, 503, 504)
"""Statuses of a server that may do later what it does not do now."""

_PASSING = (*BUSY, 500)
_FIRST_PAUSE, _LONGEST_PAUSE = 0.5, 30.0
_SHOWN = 300
_FAULTS = (urllib.error.URLError, http.client.HTTPException, OSError, ValueError)


class ServerError(RuntimeError):
    """A server that cannot be used, or not any more; one line says why.

    Attributes:
      status: That it answered with, if it answered; else None.
    """

    def __init__(self, message: str, *, status: int | None = None):
        super().__init__(message)
        self.status = status


class Connection:
    """A server's address. Calls may come from many threads."""

    def __init__(
        self, url: str, *, retries: int, seconds: float, key: str | None = None
    ):
        """A connection; nothing is sent yet.

        Args:
          url: Address without a path, such as http://host:8000.
          retries: Times a request is sent again after a fault that may pass.
          seconds: Deadline of a request.
          key: Sent along as a bearer token; None for a server that asks for none.
        """
        self._url = url.rstrip("/").removesuffix("/v1")
        self._retries = retries
        self._seconds = seconds
        self._key = key
        self._closed = threading.Event()

    def close(self) -> None:
        """Nothing is sent again: a request that fails from now on fails for good."""
        self._closed.set()

    def get(self, path: str) -> dict[str, Any]:
        """What the server answers to a GET.

        Raises:
          ServerError: If it does not, or not in JSON.
        """
        return self._call(path, None, self._seconds, _PASSING)

    def post(
        self,
        path: str,
        body: dict[str, Any],
        *,
        seconds: float | None = None,
        passing: Sequence[int] = _PASSING,
    ) -> dict[str, Any]:
        """What the server answers to a POST of JSON; nothing at all counts as {}.

        Args:
          path: Such as /v1/chat/completions.
          body: Entries that are None are left out.
          seconds: Deadline; None for the connection's.
          passing: Statuses that another attempt may not meet.

        Raises:
          ServerError: If it refuses, or does not answer after all retries.
        """
        said = {name: value for name, value in body.items() if value is not None}
        data = json.dumps(said).encode()
        return self._call(path, data, seconds or self._seconds, passing)

    def _call(
        self, path: str, data: bytes | None, seconds: float, passing: Sequence[int]
    ) -> dict[str, Any]:
        pause = _FIRST_PAUSE
        for left in range(self._retries, -1, -1):
            try:
                return self._once(path, data, seconds)
            except urllib.error.HTTPError as error:
                said = " ".join(error.read(2000).decode(errors="replace").split())
                what = f"answers {error.code} to {path}: {said[:_SHOWN]}"
                if error.code in (401, 403):
                    what += f" (its key belongs into the variable {KEY_VARIABLE})"
                if error.code not in passing or not left:
                    text = f"{self._url} {what}"
                    raise ServerError(text, status=error.code) from error
            except _FAULTS as error:
                if not left:
                    tried = f"after {self._retries + 1} attempts"
                    raise ServerError(
                        f"{self._url}{path} does not answer {tried}: "
                        f"{_reason(error, seconds)}. Is the server up?"
                    ) from error
            if self._closed.wait(pause):
                break
            pause = min(2 * pause, _LONGEST_PAUSE)
        raise ServerError(f"{self._url}{path} did not answer before it was given up.")

    def _once(self, path: str, data: bytes | None, seconds: float) -> dict[str, Any]:
        request = urllib.request.Request(  # noqa: S310 (the scheme was checked)
            self._url + path, data, {"Content-Type": "application/json"}
        )
        if self._key is not None:
            # Unredirected: where a server points to is not who the key is for.
            request.add_unredirected_header("Authorization", f"Bearer {self._key}")
        with urllib.request.urlopen(request, timeout=seconds) as reply:  # noqa: S310
            text = reply.read()
        if not text.strip():
            return {}
        try:
            found = json.loads(text)
        except ValueError:
            found = None
        return (
            found
            if isinstance(found, dict)
            else {"said": text.decode("utf-8", "replace")}
        )


def key_from_environment() -> str | None:
    """The server's key; None if the variable is not set, or empty.

    Raises:
      ServerError: If no header can hold it; the line does not show it.
    """
    key = os.environ.get(KEY_VARIABLE, "").strip()
    if not (key.isascii() and key.isprintable()) or " " in key:
        raise ServerError(
            f"{KEY_VARIABLE} must be a key of printable ASCII characters without "
            "spaces; what it holds is not."
        )
    return key or None


def _reason(error: BaseException, seconds: float) -> str:
    inner = getattr(error, "reason", error)
    if isinstance(inner, socket.timeout | TimeoutError):
        return f"nothing within {seconds:g} seconds"
    return " ".join(str(inner).split()) or type(inner).__name__
