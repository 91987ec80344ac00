"""Rows for ms-swift: what they say, that pixels come back byte for byte, and what is refused."""

from __future__ import annotations

import io
import json
import multiprocessing
import random
from array import array
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from earlier_corpus import earlier
from PIL import Image
from training_corpus import break_by_hand, build_corpus
from training_corpus import corpus as corpus

from geozero.common.errors import BadRecord, InputError
from geozero.corpus.images import store
from geozero.corpus.packing import pack
from geozero.corpus.sample import Sample, fold_of
from geozero.corpus.store import Corpus, CorpusWriter, subset
from geozero.engines.families.qwen_vl import GridLimits
from geozero.tasks import SYSTEM_PROMPT, get
from geozero.training.dataset import Readable, Replay, Rows, image_uri, probe_rows, prompt_rows, read_image, swift_rows


def lines(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_sft_rows_hold_question_and_target(corpus: Corpus, tmp_path: Path) -> None:
    rows = swift_rows(corpus, "direct", "norm1000", tmp_path / "rows.jsonl")
    written = lines(tmp_path / "rows.jsonl")
    assert rows.n == len(written) == 40  # ten train images
    for row, sample in zip(written, corpus.samples(split="train"), strict=True):
        user, assistant = row["messages"]
        assert user == {"role": "user", "content": f"<image>{sample.question}"}
        assert assistant == {"role": "assistant", "content": get(sample.task).target(sample, "norm1000")}
        assert row["images"] == [image_uri(corpus.path, sample.image_id)]
        assert "sample" not in row
    assert [p.name for p in tmp_path.iterdir()] == ["rows.jsonl"]


def test_rl_rows_carry_the_sample_and_no_answer(corpus: Corpus, tmp_path: Path) -> None:
    swift_rows(corpus, "tagged", "pixels", tmp_path / "rows.jsonl")
    for row, sample in zip(lines(tmp_path / "rows.jsonl"), corpus.samples(split="train"), strict=True):
        assert [m["role"] for m in row["messages"]] == ["system", "user"]
        assert row["messages"][0]["content"] == SYSTEM_PROMPT
        assert Sample.from_json(row["sample"]) == sample


def test_questions_on_the_way_take_the_tasks_in_turn(corpus: Corpus, tmp_path: Path) -> None:
    assert probe_rows([corpus], "norm1000", tmp_path / "probes.jsonl", 6) == 6
    tasks = [Sample.from_json(row["sample"]).task for row in lines(tmp_path / "probes.jsonl")]
    assert sorted(tasks[:4]) == ["caption", "grounding", "scene_cls", "vqa"] and tasks[4:] == tasks[:2]
    assert prompt_rows([corpus], "norm1000", tmp_path / "val.jsonl", 99) == 8  # all there are
    assert {row["sample"] for row in lines(tmp_path / "probes.jsonl")} <= {
        row["sample"] for row in lines(tmp_path / "val.jsonl")
    }


def test_rows_of_a_fold_and_of_nothing(corpus: Corpus, tmp_path: Path) -> None:
    def of_fold(fold: int) -> int:
        out = tmp_path / f"{fold}.jsonl"
        choose = partial(filter, lambda sample: fold_of(sample.image_key, 2) == fold)
        return swift_rows(corpus, "direct", "norm1000", out, choose=choose).n

    assert of_fold(0) + of_fold(1) == 40
    assert 0 < of_fold(0) < 40
    with pytest.raises(InputError, match="no sample"):
        of_fold(2)


def test_replay_makes_up_its_share(corpus: Corpus, tmp_path: Path) -> None:
    turns = [{"role": "user", "content": "<image>What do you see?"}]
    replay = [Replay(turns, image_uri(corpus.path, "x"), f"thought {i} <answer>a</answer>") for i in range(3)]
    rows = swift_rows(corpus, "direct", "norm1000", tmp_path / "r.jsonl", replay=replay, replay_share=0.2)
    added = lines(tmp_path / "r.jsonl")[40:]
    assert rows.n == 50
    assert {row["messages"][-1]["content"] for row in added} == {r.text for r in replay}
    with pytest.raises(InputError, match="nothing to replay"):
        swift_rows(corpus, "direct", "norm1000", tmp_path / "r.jsonl", replay_share=0.2)


def test_a_media_tag_in_a_question_costs_that_sample(tmp_path: Path) -> None:
    source = Corpus(build_corpus(tmp_path / "a", 2))
    bad = None
    with CorpusWriter(tmp_path / "b", {}) as writer:
        for row in source.image_rows():
            writer.add_image(store(row["bytes"]), row["image_key"])
        for sample in source.samples(split="train"):
            if bad is None:
                bad = sample
                values = sample.to_row() | {"question": "what is <image> here?"}
                sample = Sample.from_row(values)
            writer.add(sample)
    rows = swift_rows(Corpus(tmp_path / "b"), "direct", "norm1000", tmp_path / "rows.jsonl")
    assert rows.n == 3
    assert rows.rejected == {"media_tag_in_question": 1}


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"question": "what is <img> here?"}, "special_token"),
        ({"answer": "a <img>"}, "special_token"),
        ({"answer": "a <image>"}, "media_tag_in_answer"),
        ({"question": "what does <im> mean?"}, None),
    ],
)
def test_a_special_token_of_the_models_own_tokenizer_costs_that_sample(
    change: dict[str, str], reason: str | None, tmp_path: Path
) -> None:
    source = Corpus(build_corpus(tmp_path / "a", 2))
    with CorpusWriter(tmp_path / "b", {}) as writer:
        for row in source.image_rows():
            writer.add_image(store(row["bytes"]), row["image_key"])
        for number, sample in enumerate(source.samples(split="train")):
            writer.add(Sample.from_row(sample.to_row() | change) if number == 0 else sample)
    out = tmp_path / "rows.jsonl"
    rows = swift_rows(Corpus(tmp_path / "b"), "direct", "norm1000", out, readable=Readable({"<img>"}))
    assert rows.rejected == ({reason: 1} if reason else {})


def test_an_image_that_the_model_cannot_see_costs_its_samples(corpus: Corpus, tmp_path: Path) -> None:
    class Square:
        def check(self, width: int, height: int) -> None:
            if (width, height) != (first.width, first.height):
                raise BadRecord("image_too_thin")

        def tokens_at(self, width: int, height: int) -> int:
            return 1

    first = next(corpus.samples(split="train"))
    readable = Readable(limits=Square())  # type: ignore[arg-type]
    assert swift_rows(corpus, "direct", "norm1000", tmp_path / "a", readable=readable).rejected == {}
    first = replace(first, width=1)
    with pytest.raises(InputError, match="40 image_too_thin"):
        swift_rows(corpus, "direct", "norm1000", tmp_path / "b", readable=readable)
    with pytest.raises(InputError, match="no validation sample"):
        prompt_rows([corpus], "norm1000", tmp_path / "c", 4, readable)


def test_a_solution_that_no_answer_can_meet_costs_that_sample(tmp_path: Path) -> None:
    """An answer of marks alone would make every group of RL silent."""
    source = Corpus(build_corpus(tmp_path / "a", 2))

    def corpus_with(name: str, change: Any) -> Corpus:
        with CorpusWriter(tmp_path / name, {}) as writer:
            for row in source.image_rows():
                writer.add_image(store(row["bytes"]), row["image_key"])
            for sample in source.samples(split="train"):
                writer.add(Sample.from_row(sample.to_row() | change(sample)))
        return Corpus(tmp_path / name)

    vqa = corpus_with("some", lambda s: {"answer": "?!"} if s.task == "vqa" else {})
    rows = swift_rows(vqa, "tagged", "norm1000", tmp_path / "rows.jsonl")
    assert rows.n > 0 and rows.rejected["unusable_solution"] > 0
    none = corpus_with("none", lambda s: {"answer": "?!", "references": ["?!"], "box": None})
    with pytest.raises(InputError, match=r"no sample to train on: 2 unusable_solution"):
        swift_rows(none, "tagged", "norm1000", tmp_path / "none.jsonl")
    assert not (tmp_path / "none.jsonl").exists()


@pytest.mark.parametrize("mode", ["direct", "tagged"])
def test_a_corpus_changed_by_hand_costs_its_broken_samples_only(mode: str, tmp_path: Path) -> None:
    corpus = Corpus(break_by_hand(build_corpus(tmp_path / "corpus")))
    rows = swift_rows(corpus, mode, "norm1000", tmp_path / "rows.jsonl")
    assert rows.n > 0 and set(rows.rejected) <= {"answer_empty", "references_missing"} and rows.rejected.total() > 0


@pytest.mark.parametrize("form", ["ingested", "derived", "packed", "earlier"])
def test_pixels_come_back_byte_for_byte_and_in_forked_workers(form: str, corpus: Corpus, tmp_path: Path) -> None:
    expected = [row["bytes"] for row in corpus.image_rows()]
    if form != "ingested":
        subset(corpus, list(corpus.samples()), tmp_path / "derived", {})
        pack(tmp_path / "derived", tmp_path / "packed")
        earlier(tmp_path / "packed", tmp_path / "earlier")
        corpus = Corpus(tmp_path / form)
    assert [row["bytes"] for row in corpus.image_rows()] == expected
    uris = {image_uri(corpus.path, row["image_id"]): row["bytes"] for row in corpus.image_rows()}
    assert {uri: read_image(uri) for uri in uris} == uris
    with multiprocessing.get_context("fork").Pool(2) as pool:
        assert pool.map(read_image, list(uris)) == list(uris.values())


@pytest.mark.parametrize("uri", ["a.png", "geozero-image:", "geozero-image:x#", "geozero-image:/nowhere#00"])
def test_other_names_are_refused(uri: str) -> None:
    with pytest.raises(InputError):
        read_image(uri)


def test_an_image_that_is_not_in_the_corpus_is_refused(corpus: Corpus) -> None:
    with pytest.raises(InputError, match="no image"):
        read_image(image_uri(corpus.path, "0" * 32))


@pytest.mark.slow
def test_swift_templates_read_our_names(corpus: Corpus) -> None:
    from geozero.common import process
    from geozero.training import dataset

    process.prepare()
    from swift.template import Template

    dataset.install()
    dataset.install()  # a second call changes nothing
    row = next(corpus.image_rows())
    expected = Image.open(io.BytesIO(row["bytes"])).convert("RGB")
    uri = image_uri(corpus.path, row["image_id"])
    for image in (uri, {"bytes": None, "path": uri}):
        for load_images in (True, False):
            assert np.array_equal(np.asarray(Template._load_image(image, load_images)), np.asarray(expected))
    other = Template._load_image({"bytes": row["bytes"], "path": None}, True)
    assert np.array_equal(np.asarray(other), np.asarray(expected))


def test_sorting_by_length_keeps_each_steps_samples_and_spares_padding(corpus: Corpus, tmp_path: Path) -> None:
    write = partial(swift_rows, corpus, "direct", "norm1000", readable=Readable((), GridLimits(1024, 1 << 20, 32)))
    plain = write(out=tmp_path / "plain")
    grouped = write(out=tmp_path / "sorted", sort_steps_of=8, seed=7)
    as_written, by_length = (
        (tmp_path / "plain").read_text().splitlines(),
        (tmp_path / "sorted").read_text().splitlines(),
    )
    assert sorted(by_length) == sorted(as_written) and by_length != as_written
    shuffled = random.Random(7).sample(as_written, len(as_written))
    for start in range(0, len(shuffled), 8):  # each step has the samples that the seed gives it
        assert sorted(by_length[start : start + 8]) == sorted(shuffled[start : start + 8])
        lengths = list(grouped.lengths[start : start + 8])
        assert lengths == sorted(lengths)
    length = dict(zip(as_written, plain.lengths, strict=True))
    assert [length[line] for line in by_length] == list(grouped.lengths)
    assert grouped.useful_share(micro=4, world=1) > plain.useful_share(micro=4, world=1)
    assert plain.useful_share(micro=1, world=1) == 1.0
    write(out=tmp_path / "again", sort_steps_of=8, seed=7)
    assert (tmp_path / "again").read_bytes() == (tmp_path / "sorted").read_bytes()


def test_padding_is_counted_as_devices_get_their_rows() -> None:
    rows = Rows(n=4, lengths=array("L", [1, 9, 1, 9]))
    assert rows.useful_share(micro=2, world=1) == 20 / 36
    assert rows.useful_share(micro=2, world=2) == 1.0  # rows are dealt in turn: each device has equal ones
