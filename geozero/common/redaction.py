"""Passwords never reach what is kept or shown: errors, logs, MLflow, lineage files, pages."""

from __future__ import annotations

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
