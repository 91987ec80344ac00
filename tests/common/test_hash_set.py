"""Seen: as a set of texts, in a tenth of its memory."""

from __future__ import annotations

import sys

from hypothesis import given
from hypothesis import strategies as st

from geozero.common.hash_set import HashSet64


@given(st.lists(st.text(max_size=3)))
def test_it_is_a_set(texts: list[str]) -> None:
    seen, known = HashSet64(), set[str]()
    for text in texts:
        assert (text in seen) == (text in known)
        assert seen.add(text) == (text not in known)
        known.add(text)
        assert len(seen) == len(known) and text in seen


def test_it_grows_and_stays_small() -> None:
    seen = HashSet64()
    assert all(seen.add(str(n)) for n in range(5_000))
    assert not any(seen.add(str(n)) for n in range(5_000)) and len(seen) == 5_000 and "5000" not in seen
    assert sys.getsizeof(seen._slots) <= 5_000 * 24 + 1_000
