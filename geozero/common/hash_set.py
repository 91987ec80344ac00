"""HashSet64: a set of texts in 12 to 24 bytes each, for finding repeats among millions."""

from __future__ import annotations

from array import array

import xxhash

_FIRST_SLOTS = 1 << 10
_HASH_BYTES = 8


class HashSet64:
    """Texts by their 64-bit hashes, in open addressing; a Python set of ids needs 150 bytes each.

    With ten million different texts, the chance that any two share a hash is 3 in a million; the later one would count
    as seen.
    """

    def __init__(self) -> None:
        self._slots = array("Q", bytes(_HASH_BYTES * _FIRST_SLOTS))
        self._count = 0

    def __len__(self) -> int:
        return self._count

    def __contains__(self, text: str) -> bool:
        return self._slots[self._slot(_hashed(text))] != 0

    def add(self, text: str) -> bool:
        """Add a text; returns whether it is new."""
        value = _hashed(text)
        slot = self._slot(value)
        if self._slots[slot]:
            return False
        self._slots[slot] = value
        self._count += 1
        if 3 * self._count > 2 * len(self._slots):
            self._grow()
        return True

    def _slot(self, value: int) -> int:
        """The slot that holds the value, or the empty one where it belongs."""
        slots, mask = self._slots, len(self._slots) - 1
        slot = value & mask
        while slots[slot] and slots[slot] != value:
            slot = (slot + 1) & mask
        return slot

    def _grow(self) -> None:
        old, self._slots = self._slots, array("Q", bytes(2 * _HASH_BYTES * len(self._slots)))
        for value in old:
            if value:
                self._slots[self._slot(value)] = value


def _hashed(text: str) -> int:
    return xxhash.xxh3_64_intdigest(text.encode()) or 1  # 0 is empty
