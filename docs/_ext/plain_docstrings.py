"""The house's docstrings (Google sections; else plain text with `code` and indented blocks) as reStructuredText."""

from __future__ import annotations

import re
from collections.abc import Iterable

SECTION = re.compile(r"(Args|Attributes|Examples?|Notes?|Raises|Returns|Yields):$")
LABEL = re.compile(r"([A-Z][\w ,]{2,30}):(?= )")
CODE = re.compile(r"(`+)(.+?)\1", re.DOTALL)
SPECIAL = re.compile(r"[*|]|(?<=\w)_(?!\w)|\\")


def to_rest(lines: Iterable[str]) -> list[str]:
    """The lines of one docstring, converted.

    A block that is indented below plain text stays as it is written; a line such as `Layout: …` that follows the end of
    a sentence begins a paragraph; what stands between backticks is code; nothing else is markup.
    """
    lines = list(lines)
    if lines and SECTION.match(lines[0]):  # nothing before it, so that removing the common indent took its own
        lines[1:] = [f"    {line}" if line else line for line in lines[1:]]
    converted: list[str] = []
    in_section = in_block = False
    plain: list[str] = []

    def flush() -> None:
        converted.extend(_inline("\n".join(plain)).split("\n") if plain else [])
        plain.clear()

    for line in lines:
        indented = line.startswith("    ")
        if SECTION.match(line):
            in_section = True
        elif line and not indented:
            in_section = False
        if line and not in_section and indented != in_block:
            flush()
            converted.extend(["", "::", ""] if indented else [""])
            in_block = indented
        if in_block:
            converted.append(line)
            continue
        if LABEL.match(line) and plain and plain[-1].endswith("."):
            plain.append("")
        plain.append(line)
    flush()
    return converted


def _inline(text: str) -> str:
    """Single backticks doubled; the markup of reStructuredText in the rest escaped."""
    parts, at = [], 0
    for code in CODE.finditer(text):
        parts.append(SPECIAL.sub(r"\\\g<0>", text[at : code.start()]))
        joined_left = at < code.start() and text[code.start() - 1].isalnum()
        joined_right = code.end() < len(text) and text[code.end()].isalnum()
        parts.append(("\\ " if joined_left else "") + f"``{code[2]}``" + ("\\ " if joined_right else ""))
        at = code.end()
    return "".join(parts) + SPECIAL.sub(r"\\\g<0>", text[at:])
