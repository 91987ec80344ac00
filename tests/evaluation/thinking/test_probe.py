"""The probe: how a thought is made to begin, and a, g, p0 recomputed by hand from the kept completions."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from stand_in_engine import make_model, one_source, stand_in
from typer.testing import CliRunner

from geozero.cli.app import app
from geozero.common.errors import InputError
from geozero.corpus.store import Corpus
from geozero.engines.base import Request
from geozero.evaluation.thinking import probe as module
from geozero.evaluation.thinking.probe import OPENING, Probe, beginnings, measure, predicted, probe, table, verdict
from geozero.inference.corpus_job import CorpusJob, run

LONG = "Buildings: one two three four five six seven eight nine."  # ten words


def answers(request: Request, rollout: int) -> str:
    """Yes-no questions: right with a thought, half right without one. Numbers: never right. One in four thinks."""
    if request.prefix == "<answer>":
        return "yes</answer>" if rollout % 2 else "no</answer>"
    if request.prefix:
        return f" {LONG} <answer>yes</answer>" if rollout else " short <answer>yes</answer>"
    return f"{LONG} <answer>yes</answer>" if rollout == 3 else "Well. <answer>no</answer>"


@pytest.fixture
def job(tmp_path: Path) -> CorpusJob:
    corpus = one_source(tmp_path / "toy_rsvqa_lr", "toy_rsvqa_lr", "vqa", n=8, split="val")
    model = make_model(tmp_path / "model")
    return CorpusJob(
        str(model), (str(corpus),), str(tmp_path / "out"), ("tagged",), split="val", samples=4, temperature=1.0
    )


def rows_of(result: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {row["question_type"]: row for row in result["rows"]}


def test_a_g_and_p0_are_those_of_the_kept_completions(job: CorpusJob, monkeypatch: pytest.MonkeyPatch) -> None:
    engine = stand_in(monkeypatch, answers)
    result = probe(Probe(job), lambda line: None)
    rows = rows_of(result)
    assert set(rows) == {"presence", "count", "all"}
    presence, count = rows["presence"], rows["count"]
    assert (presence["questions"], presence["p0"]["value"], presence["g"]["value"], presence["a"]["value"]) == (
        4,
        0.25,
        0.5,
        1.0,
    )
    assert presence["g"]["n"] == 16 and presence["a"]["n"] == 12  # one in four did not go on
    assert presence["a_minus_g"]["value"] == 0.5 and presence["went_on"] == 0.75
    assert (presence["a_free"]["value"], presence["g_free"]["value"]) == (1.0, 0.0)
    assert (count["g"]["value"], count["a"]["value"], count["can_pay"]) == (0.0, 0.0, False)
    assert rows["all"]["a"]["value"] == 0.5 and rows["all"]["questions"] == 8

    out = Path(job.out)  # by hand, from the files
    for mode, name in (("forced", "g"), ("opened", "a")):
        kept = json.loads((out / mode / "toy_rsvqa_lr.json").read_text())
        own = [r for r in kept if r["question_type"] == "presence"]
        if mode == "opened":
            own = [r for r in own if len(r["raw_output"].partition("<answer>")[0].split()) >= 10]
        right = [r["raw_output"].endswith("<answer>yes</answer>") for r in own]
        assert sum(right) / len(right) == presence[name]["value"]
    assert json.loads((out / "thinking.json").read_text()) == json.loads(json.dumps(result))

    asked = len(engine.asked)
    assert probe(Probe(job), lambda line: None) == result and len(engine.asked) == asked


def test_a_thought_begins_as_another_question_s_thought_did(job: CorpusJob, monkeypatch: pytest.MonkeyPatch) -> None:
    engine = stand_in(monkeypatch, answers)
    probe(Probe(job), lambda line: None)
    assert {r.prefix for r, _ in engine.asked} == {"", "<answer>", "Buildings:"}
    free = [{"sample": "a", "task": "vqa", "raw_output": f"{LONG} <answer>1</answer>"}]
    free += [{"sample": name, "task": "vqa", "raw_output": "<answer>1</answer>"} for name in "bc"]
    assert beginnings(Probe(job), free) == {"a": OPENING, "b": "Buildings:", "c": "Buildings:"}  # a's own says too much
    assert beginnings(Probe(job, opening="First"), free) == dict.fromkeys("abc", "First")
    assert beginnings(Probe(job, full_words=11), free) == dict.fromkeys("abc", OPENING)


def test_thoughts_of_the_user_s_own(job: CorpusJob, monkeypatch: pytest.MonkeyPatch) -> None:
    engine = stand_in(
        monkeypatch, lambda request, rollout: "yes</answer>" if "true" in request.prefix else "no</answer>"
    )
    names = [s.id for s in Corpus(Path(job.corpora[0])).samples("val") if s.question_type == "presence"]
    given = {names[0]: "It is true.", names[1]: "It is false.", "unknown": "no"}
    result = probe(Probe(job, given=given), lambda line: None)
    assert {r.prefix for r, _ in engine.asked if r.prefix != "<answer>"} == {
        "",
        "It is true. <answer>",
        "It is false. <answer>",
    }
    presence = rows_of(result)["presence"]
    assert (presence["a"]["value"], presence["a"]["n"], presence["a_minus_g"]["questions"]) == (0.5, 8, 2)
    assert rows_of(result)["count"]["a"] is None and "unknown" in verdict(rows_of(result)["count"])
    with pytest.raises(InputError, match="no thought is about a question that is asked"):
        probe(Probe(job, given={"unknown": "no"}), lambda line: None)


def test_several_gpus_share_the_questions(job: CorpusJob, monkeypatch: pytest.MonkeyPatch) -> None:
    engine = stand_in(monkeypatch, answers)
    sent: list[CorpusJob] = []

    def in_child(one: CorpusJob, log: Path, on_line: Any) -> None:
        sent.append(one)
        run(one, on_line)

    monkeypatch.setattr(module.process, "visible_gpus", lambda: ["0", "1"])
    monkeypatch.setattr(module, "run_in_child", in_child)
    assert rows_of(probe(Probe(job), lambda line: None))["presence"]["a"]["value"] == 1.0
    assert [one.opened is None for one in sent] == [True, False] and engine.asked


def test_what_thinks() -> None:
    job = CorpusJob("m", (), "o", ("tagged",))
    assert Probe(job).thinks(f"{LONG} <answer>1</answer>")
    assert not Probe(job).thinks(LONG)  # nothing tells where the answer begins
    assert not Probe(job, full_words=11).thinks(f"{LONG} <answer>1</answer>")


def rows(mode_values: dict[str, list[tuple[str, str, float]]]) -> dict[str, list[dict[str, Any]]]:
    """mode → (sample, text, reward) as kept rows, each sample about an image of its own."""
    return {
        mode: [
            {"sample": s, "image_id": s, "source": "x", "task": "vqa", "question_type": "count", "raw_output": text,
             "reward": reward, "n_tokens": len(text.split())}
            for s, text, reward in values
        ]
        for mode, values in mode_values.items()
    }  # fmt: skip


def test_the_difference_is_paired_by_question_and_its_interval_narrow_where_all_agree() -> None:
    job = CorpusJob("m", (), "o", ("tagged",))
    thinking = f"{LONG} <answer>1</answer>"
    records = rows({
        "tagged": [(f"{i}", "<answer>1</answer>", 0.0) for i in range(80)],
        "forced": [(f"{i}", "<answer>1</answer>", float(i % 2)) for i in range(80)],
        "opened": [(f"{i}", thinking, float(i % 2 or i < 60)) for i in range(80)],
    })  # fmt: skip
    row = measure(Probe(job), records)["rows"][0]
    assert row["a_minus_g"]["value"] == pytest.approx(30 / 80)
    low, high = row["a_minus_g"]["interval"]
    assert 0.2 < low < 30 / 80 < high < 0.6 and row["p0"]["value"] == 0.0
    assert verdict(row) == "yes" and row["rare"] and row["guessable"]
    few = {mode: own[:6] for mode, own in records.items()}
    assert verdict(measure(Probe(job), few)["rows"][0]).endswith("(n too small to be sure)")


def test_a_prediction_starts_from_the_measured_shares() -> None:
    job = CorpusJob("m", (), "o", ("tagged",))
    thinking = f"{LONG} <answer>1</answer>"
    records = rows({
        "tagged": [(f"{i}", thinking if i < 4 else "<answer>1</answer>", 0.0) for i in range(40)],
        "forced": [(f"{i}", "1</answer>", float(i % 2)) for i in range(40)],
        "opened": [(f"{i}", thinking, float(i < 38)) for i in range(40)],
    })  # fmt: skip
    row = measure(Probe(job), records)["rows"][0]
    found = predicted(row, l0=10, beta=0.2)
    assert found is not None and found["start"] == pytest.approx(0.1 * 0.95 + 0.9 * 0.5)
    assert found["gains"]["a2grpo"] == pytest.approx(0.945 - found["start"], abs=0.01)
    assert found["a2grpo_minus_grpo"] == pytest.approx(found["gains"]["a2grpo"] - found["gains"]["grpo"])
    header, line = table({"rows": [row | {"predicted": found}]})
    assert header[-1] == "A²GRPO − GRPO" and line[3].startswith("10.0 [") and len(header) == len(line)
    assert predicted(row | {"a": None}) is None
    never = measure(Probe(job, full_words=11), {**records, "opened": []})["rows"][0]
    assert never["p0"]["value"] == 0 and never["a"] is None


def test_failed_requests_count_for_nothing() -> None:
    job = CorpusJob("m", (), "o", ("tagged",))
    records = rows({"tagged": [("a", "<answer>1</answer>", 0.0)] * 2, "forced": [], "opened": []})
    records["tagged"][1]["error"] = "no pixels"
    assert measure(Probe(job), records)["rows"][0]["p0"]["n"] == 1


def test_the_command(job: CorpusJob, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    stand_in(monkeypatch, answers)
    words = ["probe-thinking", "--model", job.model, "--corpus", job.corpora[0], "--out", str(tmp_path / "p")]
    done = CliRunner().invoke(app, [*words, "--samples", "4", "--predict"], catch_exceptions=False)
    assert done.exit_code == 0 and "presence" in done.output and "A²GRPO − GRPO" in done.output
    assert (tmp_path / "p" / module.RESULT).is_file()
    bad = tmp_path / "thoughts.jsonl"
    bad.write_text('{"id": "a"}\n')
    with pytest.raises(InputError, match=r"no id and thought in .*thoughts.jsonl, line 1"):
        CliRunner().invoke(app, [*words, "--thought-file", str(bad)], catch_exceptions=False)
    assert replace(job, opened="x").prompt_modes == ("tagged", "opened")
