"""Official formats: the bytes that the authors write, and a round trip that loses nothing but what it says."""

from __future__ import annotations

import json
import tarfile
from pathlib import Path
from typing import Any

import pytest
from build_world import stored
from fixtures import make_sources
from release_samples import AREA, SAMPLES, TESTED, corpus, sample

from geozero.common.errors import InputError
from geozero.corpus.packing import pack
from geozero.corpus.store import Corpus, CorpusWriter, subset
from geozero.curation.ingest.checks import with_checks
from geozero.curation.release import exporting
from geozero.curation.release.exporting import LOST, export
from geozero.curation.release.importing import import_release
from geozero.tasks import SYSTEM_PROMPT

BUILDING = "Is there a residential building on the right of the university?"


def rows(path: Path) -> list[Any]:
    found: list[Any] = json.loads(path.read_text())
    return found


def test_the_training_files_are_the_authors(tmp_path: Path) -> None:
    made = corpus(tmp_path / "c", SAMPLES)
    export(tmp_path / "r", {"raw": made, "hard": made}, [])
    first = rows(tmp_path / "r" / "GeoZero-Raw.json")[0]
    assert first == {
        "messages": [
            {"role": "user", "content": f"<image>\n[vqa] {AREA}"},
            {"role": "assistant", "content": "1934m2"},
        ],
        "images": ["rsvqa_hr/Data/8766.png"],
    }
    assert rows(tmp_path / "r" / "GeoZero-Hard.json")[0] == {
        "messages": [{"role": "system", "content": SYSTEM_PROMPT}, first["messages"][0]],
        "images": ["rsvqa_hr/Data/8766.png"],
        "solution": "<answer> 1934m2 </answer>\n",
        "task_type": ["vqa"],
    }
    last = rows(tmp_path / "r" / "GeoZero-Raw.json")[-1]
    assert last["messages"][1]["content"] == "[125, 250, 375, 500]"
    with tarfile.open(tmp_path / "r" / "images" / "rsvqa_hr-0000.tar") as tar:
        assert tar.getnames() == ["rsvqa_hr/Data/8766.png", "rsvqa_hr/Data/8767.png"]
        member = tar.extractfile("rsvqa_hr/Data/8766.png")
        assert member is not None and member.read() == stored(1).data
    assert {p.name for p in (tmp_path / "r" / "images").iterdir()} == {
        f"{name}-0000.tar" for name in ("aid", "dior_rsvg", "rsicd", "rsvqa_hr")
    }


@pytest.mark.parametrize("kind", ["raw", "instruct", "hard"])
def test_a_round_trip_keeps_what_the_format_carries(kind: Any, tmp_path: Path) -> None:
    made = corpus(tmp_path / "c", SAMPLES)
    told = export(tmp_path / "r", {kind: made}, [])
    import_release(tmp_path / "r", tmp_path / "back")
    back = {s.image_key: s for s in Corpus(tmp_path / "back").samples()}
    assert len(back) == len(SAMPLES)
    for one in SAMPLES:
        found = back[one.image_key].to_row()
        lost = {"id", "question_type", "classes", "references"}
        assert {k: v for k, v in found.items() if k not in lost} == {
            k: v for k, v in one.to_row().items() if k not in lost
        }
        assert found["references"] == list(one.references[:1]) and found["question_type"] is None
        assert Corpus(tmp_path / "back").image_bytes(one.image_id) == stored(int(one.id, 16)).data
    assert told.lost == {"box": 1, "classes": 1, "id": 5, "question_type": 1, "references": 1}
    assert [line.split("\t")[1] for line in told.lines() if line.startswith("lost")] == list(told.lost)
    again = export(tmp_path / "r2", {kind: tmp_path / "back"}, [])  # what came back goes out the same
    name = next(iter(again.files))
    assert (tmp_path / "r2" / name).read_bytes() == (tmp_path / "r" / name).read_bytes()
    for tar in (tmp_path / "r" / "images").iterdir():
        assert (tmp_path / "r2" / "images" / tar.name).read_bytes() == tar.read_bytes()


def test_a_corpus_that_refers_and_a_packed_one_give_the_same_release(tmp_path: Path) -> None:
    made = Corpus(corpus(tmp_path / "ingested", SAMPLES))
    subset(made, list(made.samples()), tmp_path / "refers", {})
    pack(tmp_path / "refers", tmp_path / "packed")
    found = []
    for form in ("ingested", "refers", "packed"):
        export(tmp_path / "release" / form, {"raw": tmp_path / form}, [])
        files = sorted(p for p in (tmp_path / "release" / form).rglob("*") if p.is_file())
        found.append({p.relative_to(tmp_path / "release" / form): p.read_bytes() for p in files})
    assert found[0] == found[1] == found[2] and len(found[0]) > 1


def test_the_evaluation_json_keeps_all_but_classes(tmp_path: Path) -> None:
    made = corpus(tmp_path / "c", TESTED)
    told = export(tmp_path / "r", {}, [made])
    assert told.files == {
        "eval/dior_rsvg_grounding.json": 1,
        "eval/rsicd_caption.json": 1,
        "eval/rsvqa_hr_vqa.json": 1,
    }
    assert told.lost == {"not_evaluated": 1}
    item = rows(tmp_path / "r" / "eval" / "rsicd_caption.json")[0]
    assert item["refs"] == ["a .", "b ."] and item["images"] == ["rsicd/00002.png"]
    assert item["conversations"][0] == {"from": "human", "value": "<image>Describe it."}
    assert (tmp_path / "r" / "eval" / "rsicd" / "00002.png").read_bytes() == stored(12).data
    for one in TESTED[:3]:
        name = f"{one.source}_{one.task}.json"
        import_release(tmp_path / "r" / "eval", tmp_path / "back", file=name)
        assert list(Corpus(tmp_path / "back").samples()) == [one]


def test_one_image_under_two_keys_and_two_under_one(tmp_path: Path) -> None:
    first, other = stored(1), stored(2)
    pairs = [(first, "ucm/a/a00"), (first, "ucm_captions/a/1"), (other, "ucm/a/a00"), (other, "top"), (other, "../x/y")]
    with CorpusWriter(tmp_path / "c", {}) as writer:
        for n, (image, key) in enumerate(pairs):
            writer.add_image(image, key)
            assert writer.add(sample(1, "vqa", key, id=str(n), image_id=image.image_id, question=f"{n}?"))
    told = export(tmp_path / "r", {"raw": tmp_path / "c"}, [])
    paths = [row["images"][0] for row in rows(tmp_path / "r" / "GeoZero-Raw.json")]
    assert paths[:3] == ["ucm/a/a00.png", "ucm_captions/a/1.png", f"ucm/a/a00~{other.image_id[:8]}.png"]
    assert all(path.startswith(f"images/{other.image_id}") for path in paths[3:]) and told.images == 5
    import_release(tmp_path / "r", tmp_path / "back")
    back = list(Corpus(tmp_path / "back").samples())
    assert [(s.image_id, s.image_key) for s in back[:3]] == [(i.image_id, k) for i, k in pairs[:3]]
    assert Corpus(tmp_path / "back").manifest["n_images"] == 2


def test_a_image_whose_path_ends_as_another_sets_is_found(tmp_path: Path) -> None:
    both = [sample(4, "vqa", "rsicd/00001"), sample(5, "vqa", "skyeye/rsicd/00001")]
    export(tmp_path / "out", {"raw": corpus(tmp_path / "c", both)}, [])
    manifest = import_release(tmp_path / "out", tmp_path / "back")
    assert (manifest["n_samples"], manifest["n_rejects"]) == (2, 0)
    assert {s.image_key: s.image_id for s in Corpus(tmp_path / "back").samples()} == {
        s.image_key: s.image_id for s in both
    }


def test_what_cannot_be_written_is_told(tmp_path: Path) -> None:
    tiny = sample(5, "grounding", "s/1", question="Locate: it", answer="x", box=(8.0, 16.0, 8.01, 32.0))
    marked = sample(6, "vqa", "s/2", question="What is <image>?")
    made = corpus(tmp_path / "c", [SAMPLES[0], tiny, marked, TESTED[0]])
    told = export(tmp_path / "r", {"raw": made}, [])
    assert told.files == {"GeoZero-Raw.json": 1}
    assert {"box_collapsed": 1, "image_mark": 1, "split": 1}.items() <= told.lost.items() and set(told.lost) <= set(
        LOST
    )


def test_large_sets_are_cut_into_shards(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(exporting, "BYTES_PER_TAR", 1)
    made = corpus(tmp_path / "c", SAMPLES[:2])
    export(tmp_path / "r", {"raw": made}, [])
    assert sorted(p.name for p in (tmp_path / "r" / "images").iterdir()) == ["rsvqa_hr-0000.tar", "rsvqa_hr-0001.tar"]
    assert import_release(tmp_path / "r", tmp_path / "back")["n_samples"] == 2


def authors_release(root: Path) -> None:
    """Items as the authors write them, with their noise; only `[vqa]` is known, the other tags are `assumed`."""

    def item(content: str, answer: str, image: str) -> dict[str, Any]:
        turns = [{"role": "user", "content": content}, {"role": "assistant", "content": answer}]
        return {"messages": turns, "images": [image]}

    said = f"<image>\n[vqa] {BUILDING}"
    noise = f"<image>\n[vqa] {AREA} Give a response of yes or no."
    items = [
        item(said, "no", "RSVQA-HR/8766.png"),
        item(noise, "1934m2", "RSVQA-HR/8766.png"),
        item("<image>\n[refer] the dam", "[250, 500, 750, 1000]", "DIOR-RSVG/00002.jpg"),
        item("<image>\nTell me more.", "No.", "RSVQA-HR/8766.png"),
        item(said, "no", "RSVQA-HR/8766.png"),
        item(said, "no", "RSVQA-HR/gone.png"),
        {"messages": [], "images": []},
    ]
    make_sources.write(root / "GeoZero-Raw.json", json.dumps(items))
    system = {"role": "system", "content": SYSTEM_PROMPT}
    hard = {"messages": [system, items[0]["messages"][0]], "images": ["RSVQA-HR/8766.png"]}
    make_sources.write(
        root / "GeoZero-Hard.json", json.dumps([hard | {"solution": "<answer> no </answer>\n", "task_type": ["vqa"]}])
    )
    for name, number, kind in (("RSVQA-HR/8766.png", 1, "PNG"), ("DIOR-RSVG/00002.jpg", 2, "JPEG")):
        data = make_sources.encoded(make_sources.make_image(number, (64, 32)), kind)
        place = root / "images" / f"{name.partition('/')[0]}-0000.tar"
        place.parent.mkdir(exist_ok=True)
        loose = root.parent / "loose"
        make_sources.write(loose, data)
        with tarfile.open(place, "w") as tar:
            tar.add(loose, name)


def test_the_authors_own_release(tmp_path: Path) -> None:
    authors_release(tmp_path / "GeoZero_Train")
    with pytest.raises(InputError, match="several lists: GeoZero-Hard"):
        import_release(tmp_path / "GeoZero_Train", tmp_path / "c")
    import_release(tmp_path, tmp_path / "c", file="GeoZero-Raw.json")
    found = list(Corpus(tmp_path / "c").samples())
    assert [(s.image_key, s.task, s.split, s.question, s.answer) for s in found] == [
        ("released/RSVQA-HR/8766", "vqa", "train", BUILDING, "no"),
        ("released/DIOR-RSVG/00002", "grounding", "train", "the dam", "[16, 16, 48, 32]"),
    ]
    reasons = [r["reason"] for r in Corpus(tmp_path / "c").rejects()]
    assert sorted(reasons) == [
        "answer_contradicts",
        "dialogue_not_a_task",
        "duplicate_id",
        "image_missing",
        "task_unknown",
    ]
    import_release(tmp_path, tmp_path / "h", file="GeoZero-Hard.json")
    assert [(s.answer, s.task) for s in Corpus(tmp_path / "h").samples()] == [("no", "vqa")]
    kept = import_release(
        tmp_path, tmp_path / "c", file="GeoZero-Raw.json", checks=with_checks(["contradictions=keep"])
    )
    assert kept["n_samples"] == 3 and kept["notes"]["mended"] == {"answer_contradicts": 1}


def test_bad_input_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="nothing to export"):
        export(tmp_path / "r", {}, [])
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.tex").write_text("")
    made = corpus(tmp_path / "c", TESTED)
    with pytest.raises(InputError, match="the output exists and is something else"):
        export(tmp_path / "mine", {"raw": made}, [])
    with pytest.raises(InputError, match="hold no samples to write"):
        export(tmp_path / "r", {"raw": made}, [])
    assert not (tmp_path / "r").exists() and (tmp_path / "mine" / "thesis.tex").exists()
    with pytest.raises(InputError, match=r"no GeoZero-Raw\.json"):
        import_release(tmp_path / "mine", tmp_path / "back", file="GeoZero-Raw.json")
    make_sources.write(tmp_path / "cut" / "GeoZero-Raw.json", '[{"messages": ')
    with pytest.raises(InputError, match="malformed annotation file"):
        import_release(tmp_path / "cut", tmp_path / "back")
    make_sources.write(
        tmp_path / "eval" / "mine.json", json.dumps([{"conversations": [{"from": "human", "value": "q"}]}])
    )
    with pytest.raises(InputError, match="1 rejected as dialogue_not_a_task"):
        import_release(tmp_path / "eval", tmp_path / "back")
    assert not (tmp_path / "back").exists()
