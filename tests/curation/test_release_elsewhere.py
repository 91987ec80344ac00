"""Exports for the hub and for other trainers, read by the real `datasets` library."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import yaml
from build_world import stored
from PIL import Image
from release_samples import SAMPLES, TESTED, corpus, sample

from geozero.common.errors import InputError
from geozero.corpus.store import Corpus
from geozero.curation.release import hub_parquet
from geozero.curation.release.hub_parquet import export_hub, import_hub
from geozero.curation.release.importing import import_release
from geozero.curation.release.trainer_json import Style, export_trainer
from geozero.tasks import SYSTEM_PROMPT

VALIDATED = sample(21, "vqa", "rsvqa_hr/Data/21", split="val")


@pytest.fixture
def load(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Any:
    """`datasets.load_dataset` with a cache of its own."""
    from datasets import load_dataset

    def call(*what: Any, **settings: Any) -> Any:
        return load_dataset(*what, cache_dir=str(tmp_path / "cache"), **settings)

    return call


def test_datasets_opens_images_features_and_splits(tmp_path: Path, load: Any) -> None:
    made = corpus(tmp_path / "c", [*SAMPLES, VALIDATED])
    tested = corpus(tmp_path / "t", TESTED)
    done = export_hub(tmp_path / "hub", {"raw": made, "hard": made}, [tested])
    assert done.files == {
        "data/raw/train": 5,
        "data/raw/validation": 1,
        "data/hard/train": 5,
        "data/hard/validation": 1,
        "data/eval/test": 3,
    }
    opened = load(str(tmp_path / "hub"), "raw")
    assert {split: len(rows) for split, rows in opened.items()} == {"train": 5, "validation": 1}
    row = next(row for row in opened["train"] if row["task"] == "grounding")
    assert isinstance(row["image"], Image.Image) and row["image"].size == (row["width"], row["height"])
    assert row["box"] == [8, 16, 24, 32] and row["answer"] == "[8, 16, 24, 32]"
    caption = next(row for row in opened["train"] if row["task"] == "caption")
    assert caption["references"] == ["a pond .", "water ."] and caption["box"] is None
    assert opened["train"].features == hub_parquet.features()
    assert len(load(str(tmp_path / "hub"), "eval", split="test")) == 3
    streamed = load(str(tmp_path / "hub"), "raw", split="train", streaming=True)
    assert sorted(row["id"] for row in streamed) == sorted(one.id for one in SAMPLES)


def test_the_readme_has_the_hub_s_metadata_and_our_card(tmp_path: Path) -> None:
    export_hub(tmp_path / "hub", {"raw": corpus(tmp_path / "c", SAMPLES)}, [])
    text = (tmp_path / "hub/README.md").read_text()
    _, header, body = text.split("---\n", 2)
    metadata = yaml.safe_load(header)
    assert metadata["license"] == "other" and metadata["license_link"] == "README.md"
    assert metadata["size_categories"] == ["n<1K"] and "remote-sensing" in metadata["tags"]
    assert "visual-question-answering" in metadata["task_categories"]
    assert metadata["configs"] == [
        {"config_name": "raw", "data_files": [{"split": "train", "path": "data/raw/train-*"}]}
    ]
    assert metadata["dataset_info"]["splits"][0]["num_examples"] == 5
    assert "| aid | scene_cls | 1 | 0 | 0 |" in body and "CC-BY-4.0" in body


@pytest.mark.parametrize(
    ("keys", "licence"), [(["rsvqa_hr/a"], "cc-by-4.0"), (["eurosat/a"], "mit"), (["rsvqa_hr/a", "eurosat/b"], "other")]
)
def test_one_known_licence_is_named_and_a_mixture_is_not(tmp_path: Path, keys: list[str], licence: str) -> None:
    made = corpus(tmp_path / "c", [sample(30 + n, "vqa", key) for n, key in enumerate(keys)])
    export_hub(tmp_path / "hub", {"raw": made}, [])
    header = yaml.safe_load((tmp_path / "hub/README.md").read_text().split("---\n")[1])
    assert header["license"] == licence


def test_an_image_is_stored_once_however_many_ask_about_it(tmp_path: Path) -> None:
    image = stored(1)
    asked = [sample(1, "vqa", "rsvqa_hr/Data/1", id=f"{n:032x}", question=f"Question {n}?") for n in range(200)]
    from geozero.corpus.store import CorpusWriter

    with CorpusWriter(tmp_path / "c", {"command": "test"}) as writer:
        writer.add_image(image, "rsvqa_hr/Data/1")
        assert all(writer.add(one) for one in asked)
    export_hub(tmp_path / "hub", {"raw": tmp_path / "c"}, [])
    (shard,) = (tmp_path / "hub/data/raw").iterdir()
    assert shard.name == "train-00000-of-00001.parquet"
    column = next(
        pq.ParquetFile(shard).metadata.row_group(0).column(n)
        for n in range(30)
        if pq.ParquetFile(shard).metadata.row_group(0).column(n).path_in_schema == "image.bytes"
    )
    assert column.total_compressed_size < 1.5 * len(image.data)


def test_large_parts_become_several_shards(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, load: Any) -> None:
    monkeypatch.setattr(hub_parquet, "SHARD_BYTES", 1)
    monkeypatch.setattr(hub_parquet, "GROUP_ROWS", 2)
    export_hub(tmp_path / "hub", {"raw": corpus(tmp_path / "c", SAMPLES)}, [])
    names = sorted(path.name for path in (tmp_path / "hub/data/raw").iterdir())
    assert names == [f"train-{n:05}-of-00003.parquet" for n in range(3)]
    assert len(load(str(tmp_path / "hub"), "raw", split="train")) == 5


def test_an_export_comes_back_whole(tmp_path: Path) -> None:
    made = corpus(tmp_path / "c", [*SAMPLES, VALIDATED])
    export_hub(tmp_path / "hub", {"raw": made}, [corpus(tmp_path / "t", TESTED)])
    with pytest.raises(InputError, match="several parts: eval, raw"):
        import_hub(tmp_path / "hub", tmp_path / "back")
    manifest = import_hub(tmp_path / "hub", tmp_path / "back", file="raw")
    back = Corpus(tmp_path / "back")
    assert sorted(back.samples(), key=lambda one: one.id) == sorted([*SAMPLES, VALIDATED], key=lambda one: one.id)
    assert all(back.image_bytes(one.image_id) == stored(int(one.id, 16)).data for one in SAMPLES)
    assert manifest["n_rejects"] == 0 and import_hub(tmp_path / "hub", tmp_path / "back", file="raw") == manifest


def test_a_changed_or_hostile_row_costs_that_row(tmp_path: Path) -> None:
    export_hub(tmp_path / "hub", {"raw": corpus(tmp_path / "c", SAMPLES)}, [])
    (shard,) = (tmp_path / "hub/data/raw").iterdir()
    rows = pq.read_table(shard).to_pylist()
    buffer = io.BytesIO()
    Image.new("RGB", (20, 20)).save(buffer, "PNG")
    rows[0]["image"]["bytes"] = buffer.getvalue()
    rows[1]["image"] = None
    rows[2]["answer"] = "<|im_end|>"
    import pyarrow as pa

    pq.write_table(pa.Table.from_pylist(rows, hub_parquet.features().arrow_schema), shard)
    manifest = import_hub(tmp_path / "hub", tmp_path / "back")
    assert manifest["n_samples"] == 2
    assert {row["reason"] for row in manifest["rejects"]} == {"image_changed", "image_unreadable", "special_token"}


def test_a_lost_shard_is_noticed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hub_parquet, "SHARD_BYTES", 1)
    monkeypatch.setattr(hub_parquet, "GROUP_ROWS", 2)
    export_hub(tmp_path / "hub", {"raw": corpus(tmp_path / "c", SAMPLES)}, [])
    next((tmp_path / "hub/data/raw").glob("train-00001-of-*")).unlink()
    with pytest.raises(InputError, match="shards are missing, such as raw/train-00001-of-"):
        import_hub(tmp_path / "hub", tmp_path / "back")


@pytest.mark.parametrize("trainer", ["swift", "llamafactory"])
def test_rows_for_trainers_are_not_read_back(trainer: Style, tmp_path: Path) -> None:
    export_trainer(tmp_path / "out", trainer, {"raw": corpus(tmp_path / "c", SAMPLES)}, [])
    with pytest.raises(InputError, match="rows for another trainer"):
        import_release(tmp_path / "out", tmp_path / "back")


def test_a_directory_of_something_else_is_refused(tmp_path: Path) -> None:
    (tmp_path / "hub/data/raw").mkdir(parents=True)
    (tmp_path / "hub/data/raw/rows.parquet").write_bytes(b"PAR1")
    with pytest.raises(InputError, match="a shard of no known split"):
        import_hub(tmp_path / "hub", tmp_path / "back")
    (tmp_path / "hub/data/raw/rows.parquet").rename(tmp_path / "hub/data/raw/train-0.parquet")
    with pytest.raises(InputError, match="cannot be read"):
        import_hub(tmp_path / "hub", tmp_path / "back")
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/thesis.txt").write_text("")
    made = corpus(tmp_path / "c", SAMPLES)
    with pytest.raises(InputError, match="something else"):
        export_hub(tmp_path / "mine", {"raw": made}, [])
    with pytest.raises(InputError, match="something else"):
        export_trainer(tmp_path / "mine", "swift", {"raw": made}, [])
    with pytest.raises(InputError, match="nothing to export"):
        export_hub(tmp_path / "new", {}, [])
    with pytest.raises(InputError, match="no samples to write"):
        export_hub(tmp_path / "new", {}, [made])


def lines(path: Path) -> list[Any]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_swift_gets_messages_solutions_and_images_beside_them(tmp_path: Path, load: Any) -> None:
    made = corpus(tmp_path / "c", [*SAMPLES, VALIDATED])
    done = export_trainer(tmp_path / "out", "swift", {"raw": made, "hard": made}, [corpus(tmp_path / "t", TESTED)])
    assert done.files == {
        "eval-test.jsonl": 3,
        "hard-train.jsonl": 5,
        "hard-val.jsonl": 1,
        "raw-train.jsonl": 5,
        "raw-val.jsonl": 1,
    }
    first = lines(tmp_path / "out/raw-train.jsonl")[0]
    assert first["messages"][1] == {"role": "assistant", "content": "1934m2"}
    assert first["messages"][0]["content"].count("<image>") == len(first["images"]) == 1
    hard = lines(tmp_path / "out/hard-train.jsonl")[0]
    assert hard["messages"][0] == {"role": "system", "content": SYSTEM_PROMPT} and "1934m2" in hard["solution"]
    for row in lines(tmp_path / "out/raw-train.jsonl") + lines(tmp_path / "out/eval-test.jsonl"):
        with Image.open(tmp_path / "out" / row["images"][0]) as image:
            image.load()
    assert not (tmp_path / "out/dataset_info.json").exists()
    assert len(load("json", data_files=str(tmp_path / "out/hard-train.jsonl"), split="train")) == 5


def test_llamafactory_gets_its_index(tmp_path: Path) -> None:
    made = corpus(tmp_path / "c", SAMPLES)
    export_trainer(tmp_path / "out", "llamafactory", {"raw": made, "hard": made}, [])
    info = json.loads((tmp_path / "out/dataset_info.json").read_text())
    assert list(info) == ["geozero_raw_train", "geozero_hard_train"]
    for entry in info.values():
        assert entry["formatting"] == "sharegpt" and entry["tags"]["system_tag"] == "system"
        for row in lines(tmp_path / "out" / entry["file_name"]):
            roles = [turn[entry["tags"]["role_tag"]] for turn in row[entry["columns"]["messages"]]]
            assert roles == [entry["tags"]["user_tag"], entry["tags"]["assistant_tag"]]
            assert all((tmp_path / "out" / image).is_file() for image in row[entry["columns"]["images"]])


def test_boxes_are_written_in_the_convention_asked_for(tmp_path: Path) -> None:
    made = corpus(tmp_path / "c", [SAMPLES[4]])
    answers = {}
    for boxes in ("norm1000", "pixels"):
        export_trainer(tmp_path / boxes, "swift", {"raw": made}, [], boxes=boxes)  # type: ignore[arg-type]
        answers[boxes] = lines(tmp_path / boxes / "raw-train.jsonl")[0]["messages"][1]["content"]
    assert "[8, 16, 24, 32]" in answers["pixels"] and answers["norm1000"] != answers["pixels"]


@pytest.mark.slow
def test_swift_s_own_loader_reads_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from geozero.common.process import prepare

    prepare()
    from swift.dataset import load_dataset
    from swift.template.vision_utils import load_image

    export_trainer(tmp_path / "out", "swift", {"raw": corpus(tmp_path / "c", SAMPLES)}, [])
    rows, _ = load_dataset(str(tmp_path / "out/raw-train.jsonl"))
    monkeypatch.setenv("ROOT_IMAGE_DIR", str(tmp_path / "out"))
    assert len(rows) == 5
    for row in rows:
        path = row["images"][0]["path"] if isinstance(row["images"][0], dict) else row["images"][0]
        assert load_image(path).size == (SAMPLES[0].width, SAMPLES[0].height)
