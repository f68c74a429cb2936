"""A client whose desktop is a dictionary of files."""

import types


class FakeFilesClient:
    """Answers as `DesktopClient` would, for what tasks ask of it.

    Attributes:
      files: Content by path.
      titles: Windows; a list of lists is gone through, one a call.
      outputs: What commands print, by their first word; a pair adds the return code.
      done: What was asked for, in order.
    """

    def __init__(self, files=None, *, titles=(), outputs=None):
        self.files = dict(files or {})
        self.titles = list(titles)
        self.outputs = dict(outputs or {})
        self.done = []

    def rest(self, *, timeout=20.0):
        return True

    def execute(self, command, *, timeout=10.0, cwd=None):
        name = command[0].rpartition("/")[2]
        if name == "stat":
            data = self.files.get(command[-1])
            if data is None:
                return finished(1, "")
            kind = "directory" if data == "folder" else "regular file"
            return finished(0, f"{len(data)} {kind}\n")
        self.done.append(("execute", list(command)))
        code, text = self.outputs.get(name, (0, ""))
        return finished(code, text)

    def read_file(self, path, *, max_bytes=0):
        return self.files[path]

    def write_file(self, path, data):
        self.files[path] = data

    def windows(self):
        if self.titles and isinstance(self.titles[0], list):
            now = self.titles[0]
            del self.titles[: len(self.titles) > 1]
            return tuple(now)
        return tuple(self.titles)

    def __getattr__(self, name):
        if name.startswith("_"):
            raise AttributeError(name)
        return lambda *given, **named: self.done.append((name, *given))


def finished(code, output, error=""):
    return types.SimpleNamespace(returncode=code, output=output, error=error)
