"""A small corpus to train on, and one with samples that are broken on disk."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from geozero.common.atomic import write_json
from geozero.corpus.images import store
from geozero.corpus.sample import Sample, sample_id
from geozero.corpus.store import MANIFEST, Corpus, CorpusWriter, file_hash
from geozero.tasks import get

COLOURS = {"red": (200, 30, 30), "green": (30, 180, 30), "blue": (30, 30, 200), "grey": (128, 128, 128)}


def build_corpus(path: Path, n_images: int = 12, size: int = 48) -> Path:
    """A corpus of plain images with one square each, four questions (one a task) about every image."""
    rng = np.random.default_rng(0)
    with CorpusWriter(path, {"made_by": "test"}) as writer:
        for i in range(n_images):
            name = list(COLOURS)[i % len(COLOURS)]
            pixels = rng.integers(0, 40, (size, size, 3), dtype=np.uint8)
            x, y = (int(v) for v in rng.integers(2, size - 18, 2))
            pixels[y : y + 16, x : x + 16] = COLOURS[name]
            buffer = io.BytesIO()
            Image.fromarray(pixels).save(buffer, "PNG")
            image = store(buffer.getvalue())
            writer.add_image(image, f"squares/{name}/{i}")
            common = {
                "split": "train" if i % 6 else "val",
                "image_id": image.image_id,
                "image_key": f"squares/{name}/{i}",
                "width": size,
                "height": size,
            }
            box = (float(x), float(y), float(x + 16), float(y + 16))
            for task, text, answer, extra in (
                ("scene_cls", "", name, {"classes": tuple(COLOURS)}),
                ("vqa", "Is there a red square?", "yes" if name == "red" else "no", {"question_type": "presence"}),
                ("caption", "", f"a {name} square .", {"references": (f"a {name} square .", f"one {name} box .")}),
                ("grounding", f"the {name} square", str(list(box)), {"box": box}),
            ):
                identity = sample_id("squares", f"{task}-{i}")
                question = get(task).question(identity, text, extra.get("classes", ()))
                writer.add(Sample(identity, task, "squares", question=question, answer=answer, **extra, **common))
    return path


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Corpus:
    return Corpus(build_corpus(tmp_path_factory.mktemp("data") / "corpus"))


def break_by_hand(corpus: Path) -> Path:
    """Take the answers of all samples but the questions', as no writer would let one do; the manifest agrees."""
    (file,) = corpus.glob("samples-*.parquet")
    table = pq.read_table(file)
    broken = [row | {"answer": "", "references": []} if row["task"] != "vqa" else row for row in table.to_pylist()]
    pq.write_table(pa.Table.from_pylist(broken, schema=table.schema), file)
    manifest = Corpus(corpus).manifest
    manifest["shards"][file.name] = file_hash(file)
    write_json(corpus / MANIFEST, manifest)
    return corpus
