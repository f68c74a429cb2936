"""A server on a Unix socket that answers as a test says, well or badly."""

import contextlib
import json
import socket
import struct
import tempfile
import threading
from pathlib import Path


def body_of(head, picture=b"", *, length=None):
    """The body of an answer of /act."""
    text = head if isinstance(head, bytes) else json.dumps(head).encode()
    return struct.pack(">I", len(text) if length is None else length) + text + picture


def answer(body=b"{}", status=200, *, version="1", length=None, more=""):
    """Bytes of an HTTP answer; `length` may lie."""
    if not isinstance(body, bytes):
        body = json.dumps(body).encode()
    lines = [f"HTTP/1.1 {status} Whatever"]
    if version is not None:
        lines.append(f"X-Stepjax-Version: {version}")
    lines.append(f"Content-Length: {len(body) if length is None else length}")
    head = "\r\n".join([*lines, *([more] if more else [])])
    return head.encode() + b"\r\n\r\n" + body


class FakeServer:
    """Each request gets `reply(request)`: bytes to send, or a function of the socket.

    `requests` holds what was asked: method, path, headers, body.
    """

    def __init__(self, reply):
        self.requests = []
        self._folder = tempfile.TemporaryDirectory()
        self.path = Path(self._folder.name) / "socket"
        self._reply = reply
        self._ended = threading.Event()
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(str(self.path))
        self._listener.listen()
        self._connections = []
        self._thread = threading.Thread(target=self._accept)
        self._thread.start()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self._ended.set()
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)  # wakes who accepts
        self._thread.join()
        for thread, connection in self._connections:
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
            thread.join()
            connection.close()
        self._listener.close()
        self._folder.cleanup()

    def pause(self, seconds):
        """Wait, but not for longer than the test lasts."""
        self._ended.wait(seconds)

    def _accept(self):
        while not self._ended.is_set():
            with contextlib.suppress(OSError):
                connection, _ = self._listener.accept()
                thread = threading.Thread(target=self._serve, args=(connection,))
                self._connections.append((thread, connection))
                thread.start()

    def _serve(self, connection):
        with contextlib.suppress(OSError), connection.makefile("rb") as file:
            while (line := file.readline()) and not self._ended.is_set():
                headers = {}
                while (header := file.readline().strip()) != b"":
                    name, _, value = header.decode().partition(":")
                    headers[name.lower()] = value.strip()
                body = file.read(int(headers.get("content-length", 0)))
                method, path = line.decode().split()[:2]
                request = {
                    "method": method,
                    "path": path,
                    "headers": headers,
                    "body": body,
                }
                self.requests.append(request)
                said = self._reply(request)
                if callable(said):
                    said(connection)
                    connection.shutdown(socket.SHUT_RDWR)
                    return
                connection.sendall(said)
