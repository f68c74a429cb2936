"""MiniWoB++'s own pages, read from the installed package without importing it."""

import functools
import importlib.metadata
import importlib.util
import mimetypes
import pathlib
import urllib.parse
from collections.abc import Mapping

__all__ = ["ORIGIN", "PageFolder", "find_pages", "pages_version"]

ORIGIN = "https://miniwob.invalid"
"""Where the pages seem to come from: a name that can never exist."""

_HERE = pathlib.Path(__file__).parent
_HOST = b"""<!DOCTYPE html><html><head><meta charset="utf-8"><style>
body { margin: 0; background: #fff; }
iframe { position: absolute; left: -999px; top: 0; width: 160px; height: 210px;
         border: 0; }
</style><script src="/host.js"></script></head><body></body></html>"""


def find_pages() -> pathlib.Path:
    """Folder with MiniWoB++'s HTML files.

    Raises:
      ImportError: If the package is not installed.
    """
    # find_spec, not import: importing miniwob needs gymnasium and selenium.
    spec = importlib.util.find_spec("miniwob")
    folder = pathlib.Path(spec.origin).parent / "html" if spec and spec.origin else None
    if folder is None or not (folder / "core" / "core.js").is_file():
        raise ImportError(
            "MiniWoB++'s pages are missing; pip install --no-deps miniwob==1.1.0"
        )
    return folder


def pages_version() -> str:
    """Version of the package the pages come from."""
    return importlib.metadata.version("miniwob")


class PageFolder:
    """Answers the browser's requests: files under one folder, and nothing else."""

    def __init__(
        self, folder: pathlib.Path, own: Mapping[str, pathlib.Path] | None = None
    ):
        """Serve `folder` under `ORIGIN`, and further files by the path of their URL."""
        self._folder = folder.resolve()
        self._own = {"/host.js": _HERE / "host.js", **(own or {})}
        self.read = functools.lru_cache(maxsize=512)(self._read)

    @staticmethod
    def resource(name: str) -> str:
        """Text of one of our own scripts."""
        return (_HERE / name).read_text(encoding="utf-8")

    def _read(self, url: str) -> tuple[int, str, bytes]:
        """Status, content type and body for a URL.

        Anything outside `ORIGIN`, outside the folder, or missing is a 404.
        """
        parts = urllib.parse.urlsplit(url)
        if f"{parts.scheme}://{parts.netloc}" != ORIGIN:
            return 404, "text/plain", b""
        if parts.path == "/host.html":
            return 200, "text/html", _HOST
        path = self._own.get(parts.path)
        if path is None:
            name = urllib.parse.unquote(parts.path).lstrip("/")
            path = (self._folder / name).resolve()
            if not path.is_relative_to(self._folder) or not path.is_file():
                return 404, "text/plain", b""
        kind = mimetypes.guess_type(path.name)[0] or "application/octet-stream"
        return 200, kind, path.read_bytes()
