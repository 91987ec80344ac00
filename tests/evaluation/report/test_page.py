"""The page: everything in one file, missing parts named, nothing a model wrote can run."""

from __future__ import annotations

import base64
import hashlib
import html
import json
import re
import xml.etree.ElementTree as ET
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hostile_page import HOSTILE, OWN_IMAGE, Outline, edited, hostile_inputs
from hostile_page import data as data
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from geozero.common.errors import InputError
from geozero.evaluation.report import plots
from geozero.evaluation.report.build import SECTIONS, build_report, report
from geozero.evaluation.report.charts import Figure, histogram
from geozero.evaluation.report.gallery import script_json
from geozero.evaluation.report.schema import FILES, MAX_TEXT, OPTIONAL, Place, ReportInputs, read_inputs
from geozero.evaluation.report.tables import place_label


def page_of(data: Path) -> str:
    return build_report(data, data.parent / "index.html").read_text(encoding="utf-8")


def test_the_whole_page(data: Path, tmp_path: Path) -> None:
    page, tables, paper, *plots = report(data, tmp_path / "reports" / "index.html")
    outline = Outline(page.read_text(encoding="utf-8"))
    for said in (
        "A²GRPO, tagged is significantly better than SFT, tagged on 1 of 4 test sets.",
        "Significantly better: Scene classification · toy_aid · hard test split: +7.0 points "
        "(95 % interval +3.0 to +11.0)",
        "No significant difference on the other 3.",
        "On 7 more only the scores are known",
        "corrected",
        "3 of 5 goals met",
        "Real aerial imagery (NEON)",
        "KL divergence on answer tokens",
        "Words per thought",
        "26 questions with the models' answers",
        "7d1f0c2a9b",
        "20 min 9 s in total",
        "pass rate",
        "Gain by reasoning",
        "pass@8",
        "vote of the answers right",
        "By object size",
        "taken for",
        "2 records: prediction missing",
    ):
        assert said in outline.text, said
    assert "incomplete" not in outline.text
    order = ("Which model is better?", "All scores", "Samples", "Checks of this run", "Provenance")
    assert [t for t in re.findall(r"<h2>(.*?)</h2>", page.read_text()) if t in order] == list(order)
    assert "| Rendered toy world · hard test split | presence | accuracy | 270 |" in tables.read_text()
    assert sorted(p.name for p in page.parent.iterdir()) == ["index.html", "plots", "scores.md", "scores.tex"]
    assert len({p.name for p in plots}) == len(plots) == 11
    for plot in plots:
        root = ET.fromstring(plot.read_text())
        assert root.tag == "{http://www.w3.org/2000/svg}svg" and "--before" in (root[0].text or "")
    assert paper.read_text().count("\\toprule") == paper.read_text().count("\\bottomrule") > 3


def test_every_score_stands_in_one_row(data: Path) -> None:
    """A test set of one source is not repeated for all sources, nor in a second table."""
    scores = page_of(data).split('<section id="scores">')[1].split("</section>")[0]
    rows = re.findall(r"<tr(?: class=\"detail\")?><th scope=\"row\">(.*?)</tr>", scores, re.DOTALL)
    values = [tuple(re.findall(r'data-value="([^"]+)"', row)) for row in rows if "well formed" not in row]
    assert len(values) > 40 and len(set(values)) == len(values)


def test_every_table_has_a_caption_and_its_heads_a_scope(data: Path) -> None:
    outline = Outline(page_of(data))
    tags = [tag for tag, _ in outline.elements]
    assert tags.count("table") == tags.count("caption") > 10
    assert all("scope" in attributes for tag, attributes in outline.elements if tag == "th")


def test_the_same_inputs_give_the_same_bytes(data: Path, tmp_path: Path) -> None:
    first, second = (build_report(data, tmp_path / name) for name in ("a.html", "b.html"))
    assert first.read_bytes() == second.read_bytes()


def test_it_needs_no_network_and_its_policy_allows_only_its_own_script(data: Path) -> None:
    page = page_of(data)
    outline = Outline(page)
    for tag, attributes in outline.elements:
        assert tag not in ("iframe", "object", "embed", "base", "form") or tag == "form"
        for name in ("src", "href", "srcset", "action", "data"):
            target = attributes.get(name)
            assert target is None or target.startswith(("#", "data:")), (tag, target)
        assert not any(name.startswith("on") or name == "style" for name in attributes), (tag, attributes)
    assert set(re.findall(r"https?://[^\s\"'<]+", page)) == {"http://www.w3.org/2000/svg"}
    (policy,) = (a["content"] for t, a in outline.elements if t == "meta" and a.get("http-equiv"))
    assert policy is not None and policy.startswith("default-src 'none';")
    (own,) = (text for text in outline.texts["script"] if text.startswith('"use strict"'))
    for text in (own, outline.texts["style"][0]):
        assert base64.b64encode(hashlib.sha256(text.encode()).digest()).decode() in policy


@pytest.mark.parametrize("part", [part for part in FILES if part not in OPTIONAL])
def test_a_missing_part_is_named_and_the_rest_shown(data: Path, tmp_path: Path, part: str) -> None:
    outline = Outline(page_of(edited(data, tmp_path / "data", **{part: None})))
    assert f"{FILES[part]} is missing" in outline.text
    assert "This page is incomplete. See" in outline.text
    anchors = {
        a["href"] for t, a in outline.elements if t == "a" and "=" not in str(a["href"])
    }  # others filter samples
    assert anchors <= {f"#{a['id']}" for _, a in outline.elements if "id" in a}


@pytest.mark.parametrize(
    ("part", "value", "said"),
    [
        ("scores", "{", "scores.json could not be read"),
        ("goals", {"name": "x"}, "goals.json does not hold a list"),
        ("timings", [], "timings.json is empty"),
        ("curves", {"sft": [{"loss": 1.0}], "a2grpo": "x"}, "'a2grpo' in curves.json has no rows with a step"),
        ("difficulty", {"vqa": {"edges": [0, 1], "counts": [1, 2]}}, "its edges do not fit its counts"),
        ("gallery", [{"id": 1}, 7, {"id": "a", "task": "vqa", "question": "q"}], "2 of 3 records in gallery.json"),
        ("gallery", [{"id": "a", "task": "vqa", "question": "q"}], "1 of 1 images could not be read"),
        ("scores", [{"model": "sft"}], "1 of 1 records in scores.json were left out (record 0: split"),
        ("lineage", "[" * 100_000, "lineage.json could not be read"),
    ],
)
def test_a_broken_part_costs_only_itself(data: Path, tmp_path: Path, part: str, value: Any, said: str) -> None:
    outline = Outline(page_of(edited(data, tmp_path / "data", **{part: value})))
    assert said in outline.text
    assert "Visual grounding" in outline.text


def test_notes_stand_above_the_scores_and_question_types_are_folded_and_not_tested(data: Path, tmp_path: Path) -> None:
    cards = json.loads((data / "details.json").read_text())
    note = "the predicted boxes fit far better as pixels"
    folder = edited(data, tmp_path / "data", details=[{**cards[0], "notes": [note]}, *cards])
    page = build_report(folder, tmp_path / "index.html").read_text()
    scores = page.split('<section id="scores">')[1]
    assert scores.index(note) < scores.index("<table")
    table = page.split('<table class="data pair-table">')[1].split("</table>")[0]
    rows = re.findall(r'<tr class="detail"><th scope="row"><a [^>]*kind=presence.*?</tr>', table, re.DOTALL)
    assert len(rows) == 3 and "question types are not tested" in rows[0]
    assert not any("significantly" in row for row in rows)


def test_notes_of_a_test_set_stand_together_in_the_order_of_the_tables_and_once(data: Path, tmp_path: Path) -> None:
    card = {k: v for k, v in json.loads((data / "details.json").read_text())[0].items() if k != "confusion"}
    cut = "3 of 9 completions were cut off before an answer and count as wrong: allow more tokens"
    places = [("neon", "test"), ("toy", "test"), ("toy", "test_hard")]
    models = [("sft", "tagged"), ("base", "tagged")]
    rows = [
        card | {"world": w, "split": s, "model": m, "mode": o, "notes": ["all alike"], "problems": {}}
        for w, s in places
        for m, o in models
    ]
    rows[0] |= {"notes": [cut, "all alike"], "problems": {"cut_off": 3, "no_label": 1}}
    page = build_report(edited(data, tmp_path / "data", details=rows), tmp_path / "index.html").read_text()
    notes = page.split('<ul class="warnings">')[1].split("</details>")[0]
    titles = [place_label(Place.model_validate(row)) for row in reversed(rows[::2])]
    assert re.findall("<strong>(.*?)</strong>", notes) == titles
    assert notes.count("All models: all alike.") == 3 and notes.count(f"SFT, tagged: {cut}.") == 1
    assert re.findall(r'class="place" id="behind-\d+"><summary>(.*?) <span>', page) == titles
    behind = page.split('id="details"')[1]
    assert behind.count("cut off") == 1 and "1 record: no label" in behind  # what a note says is not said again
    assert behind.index("Base, tagged") < behind.index("SFT, tagged")


def test_what_was_not_measured_is_not_explained(data: Path, tmp_path: Path) -> None:
    rows = json.loads((data / "reasoning.json").read_text())
    bare = [row | {"help": None, "changed": {}} for row in rows]
    rows[0] |= {"changed": {"without": {"value": 0.1, "n": 9}}}
    full, plain = (page_of(edited(data, tmp_path / n, reasoning=part)) for n, part in (("a", rows), ("b", bare)))
    assert "Gain by reasoning: " in full and "Not measured here" not in full
    assert "Gain by reasoning" not in plain and "depended on it" not in plain
    assert "Not measured here: whether reasoning raises the scores, and whether answers depend" in plain


def test_missed_goals_are_named_before_anything_is_unfolded(data: Path) -> None:
    missed = [goal["name"] for goal in json.loads((data / "goals.json").read_text()) if goal["ok"] is False]
    assert missed and f"3 of 5 goals met; missed: {'; '.join(missed)}</span></summary>" in page_of(data)


def test_without_samples_no_address_leads_to_them(data: Path, tmp_path: Path) -> None:
    folder = edited(data, tmp_path / "data", gallery=None)
    assert "view=gallery" in page_of(data)
    assert "view=gallery" not in build_report(folder, tmp_path / "index.html").read_text().split("<script>")[0]


@pytest.mark.parametrize(
    ("date", "shown"),
    [
        ("2026-11-30T21:57:05+00:00", "2026-11-30 21:57 UTC"),
        ("2026-11-30T21:57:05.123Z", "2026-11-30 21:57 UTC"),
        ("2026-11-30T21:57:05+02:00", "2026-11-30T21:57:05+02:00"),
        ("yesterday", "yesterday"),
    ],
)
def test_the_date_is_short_where_its_zone_is_known(data: Path, tmp_path: Path, date: str, shown: str) -> None:
    page = build_report(edited(data, tmp_path / "data", lineage={"date": date}), tmp_path / "index.html").read_text()
    assert f"<dt>Date</dt><dd>{html.escape(shown)}</dd>" in page


def test_no_inputs_at_all_is_a_readable_error(tmp_path: Path) -> None:
    for folder in (tmp_path / "nowhere", tmp_path):
        with pytest.raises(InputError, match="evaluate first"):
            report(folder, tmp_path / "index.html")
    assert not (tmp_path / "index.html").exists()


def test_html_in_any_text_is_inert(data: Path, tmp_path: Path) -> None:
    """String level: the hostile page has exactly the elements that a page of harmless texts could have."""
    page = page_of(hostile_inputs(data, tmp_path / "data"))
    outline = Outline(page)
    scripts = [a for t, a in outline.elements if t == "script"]
    assert [a.get("type") for a in scripts] == ["application/json", None, "application/json", "application/json"]
    images = [a for t, a in outline.elements if t == "img"]
    assert len(images) == 3 and all(set(a) == {"src", "alt"} for a in images)
    assert all(str(a["src"]).startswith("data:image/jpeg;base64,/9j/") for a in images)
    assert "onerror" in outline.text  # shown as text
    assert "<img" not in OWN_IMAGE.sub("", page)
    assert json.loads(outline.texts["script"][0])[0]["task"] == HOSTILE
    texts = json.loads(next(text for text in outline.texts["script"] if text.startswith('[{"question"')))
    assert all(output[0].startswith(HOSTILE) for output in texts[0]["out"].values())
    markdown = (report(tmp_path / "data", tmp_path / "x" / "index.html")[1]).read_text()
    assert "<script" not in markdown and "<img" not in markdown


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=6), inner, max_size=3),
    max_leaves=6,
)


@settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))
@given(part=st.sampled_from([p for p in FILES if p not in ("curves", "difficulty", "lineage")]), data_=st.data())
def test_any_change_to_a_record_costs_at_most_that_record(
    part: str, data_: st.DataObject, data: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """One field of one record of the inputs becomes anything at all: there is a page, and nothing else is lost."""
    rows = json.loads((data / FILES[part]).read_text())
    row = rows[data_.draw(st.integers(0, len(rows) - 1))]
    row[data_.draw(st.sampled_from(sorted(row)))] = data_.draw(JSON)
    inputs = read_inputs(edited(data, tmp_path_factory.mktemp("fuzz") / "data", **{part: rows}))
    assert len(getattr(inputs, part)) >= len(rows) - 1
    if len(getattr(inputs, part)) < len(rows):
        assert f"1 of {len(rows)} records in {FILES[part]} were left out" in inputs.faults[part][0]
    inputs.gallery = inputs.gallery[:2]
    assert "<h2>All scores</h2>" in build_report(inputs, tmp_path_factory.mktemp("fuzz") / "page.html").read_text()


@given(
    st.recursive(
        st.text() | st.integers() | st.none(), lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner)
    )
)
def test_json_in_a_script_element_reads_back_and_closes_nothing(value: Any) -> None:
    text = script_json(value)
    assert json.loads(text) == value
    assert not set(text) & set("<>&\u2028\u2029")


def test_a_lone_surrogate_and_a_runaway_completion_do_not_stop_the_page(data: Path, tmp_path: Path) -> None:
    gallery = json.loads((data / "gallery.json").read_text())[:2]
    gallery[0]["answers"][1]["thought"] = "\ud800" + "word " * 100_000
    folder = edited(data, tmp_path / "data", gallery=gallery)
    after = read_inputs(folder).gallery[0].answers[1]
    assert len(after.thought) < MAX_TEXT + 40 and after.thought.endswith("more characters)")
    assert page_of(folder)


def test_a_new_plot_is_a_function_and_needs_no_change_of_the_page(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def draw(inputs: ReportInputs) -> Iterator[Figure]:
        yield Figure("Seconds by stage", histogram([0, 1, 2], [1, len(inputs.timings)], "seconds"), note="of this run")

    folded = [name for name in SECTIONS if name not in ("comparisons", "scores")]
    for section in folded:
        monkeypatch.setitem(plots.PLOTS, section, (*plots.PLOTS.get(section, ()), draw))
    page = build_report(data, tmp_path / "index.html").read_text()
    for section in folded:
        shown = page.split(f'<details class="section" id="{section}">')[1].split('<details class="section"')[0]
        assert shown.count("<b>Seconds by stage</b>") == 1 and "of this run" in shown
