"""Words as stable hashed ids, and the vocabulary of widget roles.

One hash serves the simulator, web pages and desktops, so one policy reads them all.
"""

import re
import zlib

__all__ = ["ROLES", "WORD_BUCKETS", "clauses", "role_id", "split_words", "word_id"]

WORD_BUCKETS = 4096
"""Size of the hashed vocabulary; id 0 is padding."""

ROLES = (
    "other", "icon", "button", "menu", "menu_item", "check_box", "radio", "text_field",
    "text", "tab", "link", "option", "list_item", "status", "dialog", "slider",
)  # fmt: skip
"""Roles a widget can have; the index is what a prompt holds."""

_PART = r"[\w@#$%+\-/]+"
_WORD = re.compile(rf"\"[^\"]+\"|'[^']+'(?!\w)|{_PART}(?:[.:]{_PART})*|[^\w\s]")
_CLAUSE_ENDS = frozenset({",", ";", ".", "then", "and"})


def word_id(word: str) -> int:
    """Hashed id of a word, the same on every machine and in every process.

    Args:
      word: Any text; case and surrounding punctuation or spaces do not matter.

    Returns:
      An int in [1, WORD_BUCKETS), or 0 for an empty word.

    Example:
      >>> word_id("Save") == word_id("save")
      True
    """
    text = word.strip().strip("\"'.,:;!?").lower()
    return 1 + zlib.crc32(text.encode("utf-8")) % (WORD_BUCKETS - 1) if text else 0


def role_id(role: str) -> int:
    """Index of a role in `ROLES`; unknown roles are "other" (0)."""
    return ROLES.index(role) if role in ROLES else 0


def split_words(text: str) -> list[str]:
    """Words of an instruction in order; a quoted phrase stays one word, without quotes.

    Example:
      >>> split_words('Type "big cat", then press OK.')
      ['Type', 'big cat', ',', 'then', 'press', 'OK', '.']
    """
    return [match.strip("\"'") or match for match in _WORD.findall(text)]


def clauses(words: list[str]) -> list[int]:
    """Clause number of each word: a comma, full stop, "then" or "and" ends a clause.

    Example:
      >>> clauses(["open", "mail", ",", "then", "press", "ok"])
      [0, 0, 0, 0, 1, 1]
    """
    numbers, current, pending = [], 0, False
    for word in words:
        ends = word.lower() in _CLAUSE_ENDS
        if pending and not ends:
            current, pending = current + 1, False
        pending = pending or (ends and bool(numbers))
        numbers.append(current)
    return numbers
