"""Record rows of any shape, for property tests."""

from __future__ import annotations

from hypothesis import strategies as st

numbers = st.one_of(st.integers(-(10**20), 10**20), st.floats())


texts = st.one_of(
    st.text(max_size=20),
    st.sampled_from(
        ["[1, 2, 3, 4]", "<answer>[10, 10, 30, 30]</answer>", "<answer><answer>yes</answer>", "٣", "\ud800"]
    ),
    st.sampled_from(["", "yes", "<answer></answer>", "[" + "9" * 400 + ",1,2,3]", "12", "NaN", "\x00"]),
)


values = st.recursive(
    st.one_of(st.none(), st.booleans(), numbers, texts),
    lambda inner: st.one_of(st.lists(inner, max_size=4), st.dictionaries(texts, inner, max_size=2)),
    max_leaves=5,
)


fields = st.fixed_dictionaries(
    {},
    optional={
        "raw_output": st.one_of(texts, values),
        "pred": values,
        "label": st.one_of(texts, st.lists(texts, max_size=3), values),
        "image_path": values,
        "width": values,
        "height": values,
        "question_type": values,
        "id": values,
    },
)


rows = st.lists(st.one_of(fields, values), max_size=6)
