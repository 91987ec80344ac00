"""The one error a user is meant to read: what is wrong, where, and how to fix it."""

from __future__ import annotations

import errno
from pathlib import Path

# What the system may refuse for reasons that only the user can fix; any other code is a fault of ours.
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


class InputError(Exception):
    """Wrong use or bad input. The command line prints it as one line and exits with code 2.

    Args:
        what: the fault in plain words.
        where: the file, parameter or record it was found in.
        fix: what the user can do about it.
    """

    def __init__(self, what: str, where: str = "", hint: str = "") -> None:
        self.what, self.where, self.hint = what, where, hint
        parts = [what, f"in {where}" if where else "", f"({hint})" if hint else ""]
        super().__init__(" ".join(" ".join(p.split()) for p in parts if p))


class Ambiguous(InputError):
    """What was looked for is there more than once; the message lists the places."""


class Missing(InputError):
    """A data set is not there at all; where parameters call it optional, it is passed over."""


class BadRecord(Exception):
    """One record that cannot become a sample; it is listed in `rejects.parquet` and costs only itself.

    Args:
        reason: a short stable word for counting, such as `image_missing`.
        detail: what exactly was seen.
    """

    def __init__(self, reason: str, detail: str = "") -> None:
        self.reason, self.detail = reason, detail
        super().__init__(f"{reason}: {detail}" if detail else reason)


def refusal(error: OSError, where: Path | str = ".") -> InputError | None:
    """What the system refused, in plain words; None for an error that is no user's doing.

    Args:
        where: stands in the message if the error names no file itself.
    """
    if error.errno not in _REFUSALS:
        return None
    what, hint = _REFUSALS[error.errno]
    return InputError(what, str(error.filename or where), hint)
