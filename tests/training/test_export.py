"""Handing a model on: what is written, its card, and what is refused; the engines' agreement with stand-ins."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from marks import needs_vllm
from paths import ROOT
from training_corpus import build_corpus
from training_stage import base as base  # a fixture
from training_stage import make_params, write_checkpoint
from weights import write_weights

from geozero.common.errors import InputError
from geozero.engines.base import Completion
from geozero.training.export import engine_agreement, model_card
from geozero.training.export.engine_agreement import Agreement
from geozero.training.export.export import export
from geozero.training.stage_spec import StageSpec


@pytest.fixture
def run(tmp_path: Path, base: Path) -> Path:
    """A finished stage as `stage.py` leaves it."""
    params = make_params()
    corpus = build_corpus(tmp_path / "corpus")
    spec = StageSpec("a2grpo", "a2grpo", params, corpus, base, tmp_path / "runs")
    directory = tmp_path / "runs" / "a2grpo-1"
    identity = spec.identity()
    record = {
        **identity,
        "corpus": str(corpus),
        "base": str(base),
        "corpus_digest": identity["corpus"],
        "base_hash": identity["base"],
        "rows": {"n": 40, "rejected": {}},
        "model_step": 3,
    }
    write_checkpoint(directory, 2)
    (directory / "stage.json").write_text(json.dumps(record))
    model = directory / "model"
    model.mkdir()
    write_weights(model / "model.safetensors", bytes(32))
    for name in ("config.json", "generation_config.json", "chat_template.jinja"):
        (model / name).write_text((base / name).read_text())
    return directory


def test_a_stage_s_model_with_its_card(run: Path, tmp_path: Path) -> None:
    scores = tmp_path / "scores"
    scores.mkdir()
    values = {"task": "vqa", "protocol": "strict", "n": 7, "metrics": {"accuracy": 0.5}, "notes": []}
    (scores / "ucm.json").write_text(json.dumps(values))
    out = export(run, tmp_path / "mine", scores=[scores], checked=False)
    names = {p.name for p in out.iterdir()}
    assert names == {"model.safetensors", "config.json", "generation_config.json", "chat_template.jinja", "README.md"}
    assert (out / "model.safetensors").read_bytes() == (run / "model" / "model.safetensors").read_bytes()
    text = (out / "README.md").read_text()
    record = json.loads((run / "stage.json").read_text())
    for said in (
        record["corpus_digest"],
        record["base_hash"],
        "3 steps",
        "| ucm | vqa | strict | 7 | accuracy | 0.5000 |",
    ):
        assert said in text
    assert f"beta: {make_params().a2grpo.beta}" in text and "base_model: " in text and "Not checked." in text
    assert text.startswith("---\nlibrary_name: transformers\n")
    with pytest.raises(InputError, match="the directory is not empty"):
        export(run, out, checked=False)


def test_an_exported_model_carries_the_limits_that_it_was_trained_with(run: Path, tmp_path: Path) -> None:
    file = run / "model" / "preprocessor_config.json"
    own = {"size": {"shortest_edge": 65_536, "longest_edge": 16_777_216}, "patch_size": 16, "merge_size": 2, "x": 1}
    file.write_text(json.dumps(own))
    out = export(run, tmp_path / "mine", checked=False)
    most = make_params().model.max_pixels
    expected = own | {"size": {"shortest_edge": min(65_536, most // 4), "longest_edge": most}}
    assert json.loads((out / file.name).read_text()) == expected
    assert json.loads(file.read_text()) == own


def test_a_checkpoint_of_a_stage_and_a_plain_model(run: Path, base: Path, tmp_path: Path) -> None:
    early = export(run / "checkpoint-2", tmp_path / "early", checked=False)
    assert (early / "model.safetensors").read_bytes() == (run / "checkpoint-2" / "model.safetensors").read_bytes()
    assert not (early / "optimizer.pt").exists() and (early / "chat_template.jinja").is_file()
    plain = export(base, tmp_path / "plain", checked=False)
    assert "no record says how it was trained" in (plain / "README.md").read_text()


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        ("nowhere", "no such directory"),
        ("unfinished", "no finished model"),
        ("cut", "no whole checkpoint of a stage: model.safetensors is cut off"),
        ("scores", "no scores that `geozero evaluate` wrote"),
    ],
)
def test_what_cannot_be_exported_is_one_line_and_leaves_nothing(
    damage: str, message: str, run: Path, tmp_path: Path
) -> None:
    source, scores = run, []
    if damage == "nowhere":
        source = tmp_path / "nowhere"
    elif damage == "unfinished":
        (run / "model").rename(tmp_path / "moved")
    elif damage == "cut":
        source = run / "checkpoint-2"
        (source / "model.safetensors").write_bytes((source / "model.safetensors").read_bytes()[:-1])
    else:
        scores = [run / "stage.json"]
    with pytest.raises(InputError, match=message):
        export(source, tmp_path / "out", scores=scores, checked=False)
    assert not (tmp_path / "out").exists()
    assert not list(tmp_path.glob(".out*"))


# -- both engines ------------------------------------------------------------------------------------------------


def stand_in(monkeypatch: pytest.MonkeyPatch, rules: dict[str, Any]) -> None:
    class Engine:
        def __init__(self, options: dict[str, Any], seconds: float) -> None:
            self.rule = rules[options["name"]]

        def generate(self, requests: Any, params: Any) -> list[list[Completion]]:
            assert params.temperature == 0
            return [[Completion(self.rule(r), "stop", 1)] for r in requests]

        def close(self) -> None:
            pass

    monkeypatch.setattr(engine_agreement, "IsolatedEngine", Engine)
    monkeypatch.setattr(engine_agreement, "choose_engine", lambda name: (name, "is there"))


def test_engines_that_answer_alike(monkeypatch: pytest.MonkeyPatch) -> None:
    stand_in(monkeypatch, {"transformers": lambda r: r.id, "vllm": lambda r: r.id})
    found = engine_agreement.check("m", "float32", log=lambda line: None)
    assert (found.alike, len(found.answers)) == (1.0, 2 * len(engine_agreement.QUESTIONS))


def test_engines_that_do_not(monkeypatch: pytest.MonkeyPatch) -> None:
    stand_in(monkeypatch, {"transformers": lambda r: r.id, "vllm": lambda r: r.id if r.id == "direct-0" else "x"})
    with pytest.raises(InputError, match="differ on 88% of the probe questions"):
        engine_agreement.check("m", "bfloat16", log=lambda line: None)
    rule = lambda r: "x" if r.id == "direct-0" else r.id  # noqa: E731
    stand_in(monkeypatch, {"transformers": lambda r: r.id, "vllm": rule})
    assert engine_agreement.check("m", "bfloat16", log=lambda line: None).alike == 0.875  # rounding may decide one
    with pytest.raises(InputError, match="differ on 12%"):
        engine_agreement.check("m", "float32", log=lambda line: None)


def test_without_vllm_the_card_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    stand_in(monkeypatch, {"transformers": lambda r: r.id})

    def absent(name: str) -> None:
        raise InputError("vLLM is not installed")

    monkeypatch.setattr(engine_agreement, "choose_engine", absent)
    found = engine_agreement.check("m", "float32", log=lambda line: None)
    assert found.alike is None
    assert "vLLM was not asked: vLLM is not installed" in model_card.card("m", {}, [], found)
    assert "88% of the probe" in model_card.card("m", {}, [], Agreement(0.875, "", ()))


@pytest.mark.slow
@needs_vllm
def test_the_demo_s_base_answers_alike_in_both_engines(tmp_path: Path) -> None:
    base = ROOT / "models/tiny-qwen3-vl"
    out = export(base, tmp_path / "out", log=lambda line: None)
    assert "100% of the probe questions were answered alike" in (out / "README.md").read_text()
