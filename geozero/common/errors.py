"""Errors for the user to read: what is wrong, where, and how to fix it."""

from __future__ import annotations

import errno
from pathlib import Path

from geozero.common.redaction import plain, redact

# What the system may refuse for reasons that only the user can fix; any other code is a bug of ours.
_REFUSALS = {
    errno.ENOSPC: ("no space left on the disk", "make room, or choose another place"),
    errno.EDQUOT: ("the disk quota is used up", "make room, or choose another place"),
    errno.EROFS: ("the disk is read-only", "choose another place"),
    errno.EACCES: ("no permission", "choose another place, or change its owner or mode"),
    errno.EPERM: ("no permission", "choose another place, or change its owner or mode"),
    errno.EISDIR: ("a directory stands where a file is expected", "choose another name"),
    errno.ENOTDIR: ("a file stands where a directory is expected", "choose another place"),
    errno.EEXIST: ("a file stands where a directory is expected", "choose another place"),
    errno.ENAMETOOLONG: ("the name is too long", "choose a shorter one"),
}

EXIT_BAD_INPUT = 2  # of a command that was used in a wrong way, or on bad input


class InputError(Exception):
    """Wrong use or bad input. The command line prints it as one line and exits with `EXIT_BAD_INPUT`.

    Args:
        what: the fault in plain words.
        where: the file, parameter or record it was found in.
        hint: what the user can do about it.
    """

    def __init__(self, what: str, where: str = "", hint: str = "") -> None:
        self.what, self.where, self.hint = what, where, hint = redact(what), redact(where), redact(hint)
        parts = [what, f"in {where}" if where else "", f"({hint})" if hint else ""]
        super().__init__(plain(" ".join(" ".join(p.split()) for p in parts if p)))


class Ambiguous(InputError):
    """Several candidates match; the message lists them."""


class Missing(InputError):
    """A data set is absent; where the parameters call it optional, it is skipped."""


class BadRecord(Exception):
    """One record that cannot become a sample; it is listed in `rejects.parquet`, and the others go on.

    Args:
        reason: a short stable word for counting, such as `image_missing`.
        detail: what exactly was seen.
    """

    def __init__(self, reason: str, detail: str = "") -> None:
        self.reason, self.detail = reason, detail
        super().__init__(f"{reason}: {detail}" if detail else reason)


def refusal(error: OSError, where: Path | str = ".") -> InputError | None:
    """What the system refused, in plain words; None for an error that the user cannot fix.

    Args:
        where: named in the message if the error itself names no file.
    """
    if error.errno not in _REFUSALS:
        return None
    what, hint = _REFUSALS[error.errno]
    return InputError(what, str(error.filename or where), hint)
