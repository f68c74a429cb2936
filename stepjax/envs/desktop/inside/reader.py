"""The process that reads widgets: a question a line in, an answer a line out."""

import json
import sys

from inside.atspi import connect
from inside.tree import read_terminal, read_tree
from inside.widgets import read_widgets

__all__ = ["main"]


def main() -> None:
    """Answer questions until the server goes away."""
    connection = connect()
    for line in sys.stdin.buffer:
        question = json.loads(line)
        kind, seconds = question["kind"], question["seconds"]
        if kind == "widgets":
            answer = read_widgets(
                connection, question["size"], seconds=seconds, most=question["most"]
            )
        elif kind == "tree":
            answer = read_tree(connection, seconds=seconds)
        elif kind == "terminal":
            answer = read_terminal(connection, seconds=seconds)
        else:
            answer = {}
        answer["number"] = question["number"]
        sys.stdout.buffer.write(json.dumps(answer).encode() + b"\n")
        sys.stdout.buffer.flush()


if __name__ == "__main__":
    main()
