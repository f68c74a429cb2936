"""Reading the bodies of requests: JSON objects, and forms with files."""

import json
import re
from typing import Any
from urllib.parse import parse_qsl

__all__ = ["FormError", "read_form", "read_json"]

_MAX_FIELDS = 64
_BOUNDARY = re.compile(r'boundary="?([^";,\s]{1,200})"?', re.IGNORECASE)
_NAME = re.compile(r'(?:^|[;\s])name="([^"]*)"')


class FormError(ValueError):
    """A body that cannot be read; the message is one line."""


def read_json(body: bytes) -> dict[str, Any]:
    """The JSON object in a body; an empty body is an empty object.

    Args:
      body: The bytes.

    Raises:
      FormError: If it is no JSON object.
    """
    if not body.strip():
        return {}
    try:
        data = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise FormError(f"the body is no JSON: {error}") from None
    if not isinstance(data, dict):
        raise FormError(f"the body must be a JSON object, got {type(data).__name__}")
    return data


def read_form(body: bytes, content_type: str) -> dict[str, bytes]:
    """Fields of a form, files among them, as bytes; the first of each name.

    Args:
      body: The bytes.
      content_type: The header of that name.

    Raises:
      FormError: If it is no form.
    """
    kind = content_type.partition(";")[0].strip().lower()
    if kind == "application/x-www-form-urlencoded":
        try:
            pairs = parse_qsl(
                body.decode(), keep_blank_values=True, max_num_fields=_MAX_FIELDS
            )
        except ValueError as error:
            raise FormError(f"the form cannot be read: {error}") from None
        return {name: value.encode() for name, value in reversed(pairs)}
    if kind != "multipart/form-data":
        raise FormError(f"a form is needed, got {kind[:60] or 'nothing'}")
    found = _BOUNDARY.search(content_type)
    if found is None:
        raise FormError("the form has no boundary")
    return _multipart(body, b"--" + found.group(1).encode())


def _multipart(body: bytes, mark: bytes) -> dict[str, bytes]:
    if not body.startswith(mark):
        raise FormError("the form does not begin with its boundary")
    fields: dict[str, bytes] = {}
    at = len(mark)
    separator = b"\r\n" + mark
    for _ in range(_MAX_FIELDS):
        if body[at : at + 2] == b"--":
            return fields
        end_of_head = body.find(b"\r\n\r\n", at)
        end = body.find(separator, max(at, end_of_head + 2))
        if body[at : at + 2] != b"\r\n" or end_of_head < 0 or end < 0:
            raise FormError("the form ends in the middle")
        head = body[at:end_of_head].decode("utf-8", "replace")
        for line in head.split("\r\n"):
            key, _, value = line.partition(":")
            name = _NAME.search(value)
            if key.strip().lower() == "content-disposition" and name is not None:
                fields.setdefault(name.group(1), body[end_of_head + 4 : end])
        at = end + len(separator)
    raise FormError(f"the form has more than {_MAX_FIELDS} fields")
