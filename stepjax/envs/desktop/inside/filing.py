"""Routes that read and write files of the desktop's user."""

import os
import stat
import subprocess
from pathlib import Path
from typing import Any

from inside.forms import FormError, read_form, read_json
from inside.processes import Programs
from inside.serving import Answer, Request, Route, json_answer

__all__ = ["Filing", "directory_tree", "read_regular_file", "user_path"]

MAX_FILE = 128 << 20
_MAX_ENTRIES = 50_000
_MAX_DEPTH = 64
_BACKGROUND = "org.gnome.desktop.background"


class Filing:
    """Files, folders and the wallpaper.

    Args:
      programs: Starts `gsettings`.
    """

    def __init__(self, programs: Programs):
        self._programs = programs

    def routes(self) -> dict[tuple[str, str], Route]:
        """The routes by method and path."""
        return {
            ("POST", "/file"): Route(self.file, 30.0),
            ("POST", "/setup/upload"): Route(self.upload, 60.0),
            ("POST", "/setup/download_file"): Route(self.download, 5.0),
            ("POST", "/list_directory"): Route(self.list_directory, 15.0),
            ("POST", "/desktop_path"): Route(self.desktop_path, 5.0),
            ("POST", "/wallpaper"): Route(self.wallpaper, 10.0),
            ("POST", "/setup/change_wallpaper"): Route(self.change_wallpaper, 10.0),
        }

    def file(self, request: Request) -> Answer:
        """A file's content."""
        form = read_form(request.body, request.content_type)
        if "file_path" not in form:
            return json_answer({"error": "file_path is required"}, 400)
        return _content(user_path(form["file_path"].decode("utf-8", "replace")))

    def upload(self, request: Request) -> Answer:
        """Write a file, with the folders above it."""
        form = read_form(request.body, request.content_type)
        if "file_path" not in form or "file_data" not in form:
            missing = {"error": "file_path and file_data are required"}
            return json_answer(missing, 400)
        path = user_path(form["file_path"].decode("utf-8", "replace"))
        data = form["file_data"]
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            _write(path, data)
        except OSError as error:
            path.with_name(path.name + ".part").unlink(missing_ok=True)
            return json_answer({"error": f"Failed to upload file: {error}"}, 500)
        return Answer(200, "text/plain", f"File Uploaded: {len(data)} bytes".encode())

    def download(self, request: Request) -> Answer:
        """Refused at once: there is no network in here."""
        text = "Failed to download: this desktop has no network; upload the file."
        return Answer(501, "text/plain", text.encode())

    def list_directory(self, request: Request) -> Answer:
        """A folder and all below it."""
        path = read_json(request.body).get("path")
        if not isinstance(path, str):
            return json_answer({"error": "Missing 'path' parameter"}, 400)
        if not user_path(path).is_dir():
            missing = {"error": "The provided path is not a directory"}
            return json_answer(missing, 400)
        return json_answer({"directory_tree": directory_tree(str(user_path(path)))})

    def desktop_path(self, request: Request) -> Answer:
        """Where the icons on the desktop lie."""
        path = Path.home() / "Desktop"
        if not path.is_dir():
            return json_answer({"error": "there is no desktop folder"}, 404)
        return json_answer({"desktop_path": str(path)})

    def wallpaper(self, request: Request) -> Answer:
        """The picture that the settings name as background."""
        done = self._programs.run(
            ["gsettings", "get", _BACKGROUND, "picture-uri"], timeout=5.0
        )
        name = done.output.strip().strip("'").removeprefix("file://")
        if done.returncode != 0 or not name:
            return json_answer({"error": "Wallpaper file not found"}, 404)
        return _content(Path(name), "image/png")

    def change_wallpaper(self, request: Request) -> Answer:
        """Name a picture as background."""
        path = read_json(request.body).get("path")
        if not isinstance(path, str) or not path:
            return Answer(400, "text/plain", b"Path not supplied!")
        if not user_path(path).exists():
            return Answer(404, "text/plain", f"File not found: {path}".encode())
        uri = f"file://{user_path(path)}"
        try:
            done = self._programs.run(
                ["gsettings", "set", _BACKGROUND, "picture-uri", uri], timeout=5.0
            )
        except (OSError, subprocess.SubprocessError) as error:
            text = f"Failed to change wallpaper. Error: {error}"
            return Answer(500, "text/plain", text.encode())
        if done.returncode != 0:
            text = f"Failed to change wallpaper. Error: {done.error.strip()}"
            return Answer(500, "text/plain", text.encode())
        return Answer(200, "text/plain", b"Wallpaper changed successfully")


def user_path(text: str) -> Path:
    """A path with `~` and variables filled in; relative ones lie in the home folder.

    Args:
      text: What a request says.

    Raises:
      FormError: If it can be no path.
    """
    if not text or "\0" in text:
        raise FormError("the path must not be empty or hold a zero character")
    return Path.home() / os.path.expandvars(os.path.expanduser(text))


def read_regular_file(path: Path, most: int = MAX_FILE) -> bytes:
    """A file's content; never waits for a pipe or reads a device without end.

    Args:
      path: The file.
      most: Most bytes.

    Raises:
      OSError: If it is not there, no regular file, or larger.
    """
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    with open(descriptor, "rb") as file:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise OSError(f"{path} is no regular file")
        data = file.read(most + 1)
    if len(data) > most:
        raise OSError(f"{path} has more than {most} bytes")
    return data


def directory_tree(path: str, depth: int = 0, left: list[int] | None = None) -> Any:
    """A folder's content in upstream's form; links to folders are not followed.

    Args:
      path: The folder.
      depth: How far below the first one it is.
      left: Entries that may still be listed.
    """
    left = [_MAX_ENTRIES] if left is None else left
    children: list[Any] = []
    tree = {"type": "directory", "name": os.path.basename(path), "children": children}
    try:
        with os.scandir(path) as entries:
            for entry in entries:
                left[0] -= 1
                if left[0] < 0:
                    break
                if entry.is_dir(follow_symlinks=False) and depth < _MAX_DEPTH:
                    children.append(directory_tree(entry.path, depth + 1, left))
                else:
                    kind = "directory" if entry.is_dir() else "file"
                    more = {"children": []} if kind == "directory" else {}
                    children.append({"type": kind, "name": entry.name, **more})
    except OSError as error:
        return {"error": str(error)}
    return tree


def _content(path: Path, kind: str = "application/octet-stream") -> Answer:
    try:
        return Answer(200, kind, read_regular_file(path))
    except FileNotFoundError:
        return json_answer({"error": "File not found"}, 404)
    except OSError as error:
        return json_answer({"error": f"Failed to serve file: {error}"}, 500)


def _write(path: Path, data: bytes) -> None:
    """Write a file whole or not at all; what stood there keeps its mode."""
    if path.exists() and not path.is_file():
        raise OSError(f"{path} is no regular file")
    part = path.with_name(path.name + ".part")
    part.write_bytes(data)
    if path.exists():
        part.chmod(stat.S_IMODE(path.stat().st_mode))
    part.replace(path.resolve())
