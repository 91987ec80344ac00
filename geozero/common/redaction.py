"""What may be shown and kept: passwords reach nothing that is, and a stranger's text cannot control a terminal."""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping
from typing import Any

HIDDEN = "***"
# The user and password of an address. A password may hold an @, or a slash (which makes the address wrong, but no less
# secret); a port is no password.
_USER = re.compile(r"(?<=://)(?:[^\s/?#'\"<>]*@|[^\s/@:?#'\"<>]*:(?!\d+[/?#])[^\s'\"<>]*@)")
_KEY = r"(?:[\w-]*[_-])?(?:password|passwd|pwd|secret|token|api[_-]?key|access[_-]?key|sslpassword)"
_QUERY = re.compile(rf"(?i)(?<=[?&;])({_KEY})=[^\s&#'\"<>]*")
_BEARER = re.compile(r"(?i)\b(bearer|basic)\s+[\w.~+/=-]{8,}")
_SECRET_NAME = re.compile(rf"(?i){_KEY}")
# Control characters except tab and newline (an escape sequence begins with one), what changes the direction of text,
# and halves of surrogate pairs (from file names that are not UTF-8)
_UNSAFE = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")


def redact(text: str) -> str:
    """The text without the passwords and keys of addresses in it: `postgresql://***@host/runs`."""
    if "://" in text:
        text = _QUERY.sub(rf"\1={HIDDEN}", _USER.sub(f"{HIDDEN}@", text))
    return _BEARER.sub(rf"\1 {HIDDEN}", text)


def redacted(value: Any) -> Any:
    """A copy of nested values with every text redacted, and the value of every name such as `hub_token` hidden."""
    if isinstance(value, str):
        return redact(value)
    if isinstance(value, Mapping):
        return {
            redact(key) if isinstance(key, str) else key: HIDDEN
            if isinstance(one, str) and one and isinstance(key, str) and _SECRET_NAME.fullmatch(key.rpartition(".")[2])
            else redacted(one)
            for key, one in value.items()
        }
    if isinstance(value, list | tuple):
        return type(value)(map(redacted, value)) if type(value) in (list, tuple) else [redacted(one) for one in value]
    return value


def plain(text: str) -> str:
    r"""The text with every character that a terminal would obey written out, as \x1b."""
    return _UNSAFE.sub(lambda found: found[0].encode("unicode_escape").decode(), text)


class PlainFormatter(logging.Formatter):
    """Formats log lines for a terminal."""

    def format(self, record: logging.LogRecord) -> str:
        return plain(super().format(record))
