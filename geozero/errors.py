"""The one error a user is meant to read: what is wrong, where, and how to mend it."""


class InputError(Exception):
    """Wrong use or bad input. The command line prints it as one line and exits with code 2.

    Args:
        what: the fault in plain words.
        where: the file, parameter or record it was found in.
        mend: what the user can do about it.
    """

    def __init__(self, what: str, where: str = "", mend: str = "") -> None:
        self.what, self.where, self.mend = what, where, mend
        parts = [what, f"in {where}" if where else "", f"({mend})" if mend else ""]
        super().__init__(" ".join(" ".join(p.split()) for p in parts if p))


class BadRecord(Exception):
    """One record that cannot become a sample; it is listed in `rejects.parquet` and costs only itself.

    Args:
        reason: a short stable word for counting, such as `image_missing`.
        detail: what exactly was seen.
    """

    def __init__(self, reason: str, detail: str = "") -> None:
        self.reason, self.detail = reason, detail
        super().__init__(f"{reason}: {detail}" if detail else reason)
