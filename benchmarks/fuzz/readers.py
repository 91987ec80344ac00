"""Every reader of what strangers write: seeds that it reads well, and a function that reads them as the commands do."""

from __future__ import annotations

import contextlib
import io
import json
import re
import sys
import tarfile
import tempfile
import zipfile
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.fuzz.guard import ROOT
from benchmarks.fuzz.mutations import Files
from geozero.common.errors import BadRecord, InputError

sys.path[:0] = [str(ROOT / "tests"), str(ROOT / "tests/support")]  # the fixtures are the seeds

REFUSALS: tuple[type[Exception], ...] = (InputError, BadRecord)
BIG = 8_000_000  # bytes that a bomb unpacks to
TURNED = b"Exif\0\0MM\0*\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0\x06\0\0\0\0\0\0"  # an orientation
KINDS: list[tuple[str, str, dict[str, Any]]] = [  # of images: mode, format, options of Pillow
    ("RGB", "JPEG", {}), ("L", "JPEG", {"progressive": True}), ("CMYK", "JPEG", {}), ("RGB", "JPEG", {"exif": TURNED}),
    ("RGB", "PNG", {}), ("P", "PNG", {}), ("I;16", "PNG", {}), ("RGBA", "PNG", {}), ("1", "PNG", {}), ("P", "GIF", {}),
    ("RGB", "BMP", {}), ("RGB", "WEBP", {}), ("RGB", "TIFF", {}), ("RGB", "TIFF", {"compression": "tiff_lzw"}),
    ("RGB", "TIFF", {"compression": "jpeg"}), ("I;16", "TIFF", {}), ("F", "TIFF", {}),
    ("RGB", "TIFF", {"tiffinfo": {270: "x" * 99, 305: "y"}}), ("RGB", "JPEG2000", {}), ("RGB", "PPM", {}),
]  # fmt: skip


@dataclass(frozen=True)
class Reader:
    """One reader.

    Attributes:
        read: takes the directory that holds the input, and a directory to write to.
        seeds: sound inputs.
        weight: how often it gets an input, beside the others.
        refusals: what it may raise besides `InputError` and `BadRecord`.
        links: whether links are among the changes. Not where following one is right: the user named the file, or DVC or
            the hub's cache made the link.
        anywhere: the input is the user's own list of files, which may lie anywhere.
    """

    name: str
    read: Callable[[Path, Path], object]
    seeds: list[Files] = field(repr=False)
    weight: float = 1.0
    refusals: tuple[type[Exception], ...] = REFUSALS
    links: bool = False
    anywhere: bool = False


def all_readers() -> list[Reader]:
    """All of them, in an order that stays."""
    makers = [_images, _sources, _corpora, _answers, _records, _texts, _settings, _checkpoints, _servers, _scenes]
    return [reader for make in makers for reader in make()]


def files_of(place: Path) -> Files:
    """The files below a directory by their names there."""
    return {p.relative_to(place).as_posix(): p.read_bytes() for p in sorted(place.rglob("*")) if p.is_file()}


def written(make: Callable[[Path], object]) -> Files:
    """The files that a function writes into a directory."""
    with tempfile.TemporaryDirectory() as place:
        make(Path(place))
        return files_of(Path(place))


def _image_seeds() -> list[bytes]:
    from fixtures.make_sources import make_image

    found = []
    image = make_image(1, (40, 32))
    for mode, kind, options in KINDS:
        converted = image.convert("L").convert("I;16") if mode == "I;16" else image.convert(mode)
        buffer = io.BytesIO()
        with contextlib.suppress(OSError, KeyError, ValueError):  # a kind that this Pillow does not write
            converted.save(buffer, kind, **options)
            found.append(buffer.getvalue())
    return found


def _images() -> Iterator[Reader]:
    seeds = [{"image": data} for data in _image_seeds()]

    def store(place: Path, out: Path) -> None:
        from geozero.corpus import images

        data = images.read_file(place / "image") if (place / "image").is_file() else b""
        for read in (images.store, images.decode, images.size_of, lambda d: images.shrunk(d, 100)):
            with contextlib.suppress(BadRecord):
                read(data)
        images.plain_size(data)

    def show(place: Path, out: Path) -> None:
        from geozero.corpus.image_file import read_image

        for file in place.iterdir():
            with contextlib.suppress(*REFUSALS):
                read_image(file)

    yield Reader("image", store, seeds, 30)
    yield Reader(
        "image-file", show, [{f"image{suffix}": seed["image"]} for seed in seeds for suffix in ("", ".tif")], 10
    )


def packed(files: Files) -> list[Files]:
    """A tree as archives: sound ones, and some with members that no one should unpack."""
    found = []
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in files.items():
            archive.writestr(name, data)
        archive.writestr("../evil.jpg", b"x")
        archive.writestr("/tmp/evil.jpg", b"x")
    found.append({"set.zip": buffer.getvalue()})
    bomb = io.BytesIO()
    with zipfile.ZipFile(bomb, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in files.items():
            archive.writestr(name, data if not name.endswith(".json") else data + b" " * BIG)
        archive.writestr("bomb.jpg", bytes(BIG))
    found.append({"set.zip": bomb.getvalue()})
    for mode, suffix in (("w", ".tar"), ("w:gz", ".tar.gz")):
        buffer = io.BytesIO()
        with tarfile.open(fileobj=buffer, mode=mode) as tar:  # type: ignore[call-overload]
            for name, data in files.items():
                member = tarfile.TarInfo(name)
                member.size = len(data)
                tar.addfile(member, io.BytesIO(data))
            for number, kind in enumerate((tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE, tarfile.CHRTYPE)):
                member = tarfile.TarInfo(f"../evil{number}.jpg" if number % 2 else f"evil{number}.jpg")
                member.type, member.linkname = kind, "/etc/passwd"
                tar.addfile(member)
        found.append({f"set{suffix}": buffer.getvalue()})
    return found


def _sources() -> Iterator[Reader]:
    from fixtures import make_caption_sets, make_own_data, make_question_sets, make_scene_sets, make_sources

    makers: dict[str, Callable[[Path], None]] = {
        **make_scene_sets.SETS, **make_caption_sets.SETS, **make_question_sets.SETS, **make_own_data.SETS,
        **{name: getattr(make_sources, name) for name in ("aid", "rsvqa_lr", "rsicd", "dior_rsvg")},
    }  # fmt: skip
    for name, make in makers.items():
        tree = written(make)
        yield Reader(f"source-{name}", _ingest(name), [tree, tree, tree, *packed(tree)], 1.2, links=True)
    for name, rows in _hub_rows().items():
        yield Reader(
            f"parquet-{name}", _ingest(name), [{"data/train-00000-of-00001.parquet": _parquet(rows)}], 1.5, links=True
        )
    tables = {
        "list.csv": b'image,question,answer,split\na.png,"What, here?",yes,train\na.png,How many?,3,test\n',
        "list.jsonl": b'{"image": "a.png", "question": "What?", "answer": "yes"}\n' * 2,
        "list.tsv": b"image\tcaption\na.png\tA road.\na.png\tA house.\n",
        "metadata.csv": b"file_name,text\na.png,A road beside a house.\n",
        "metadata.jsonl": b'{"file_name": "a.png", "text": "A road."}\n',
    }
    image = _image_seeds()[4]
    for source in ("questions", "captions_json"):
        seeds = [{name: data, "a.png": image} for name, data in tables.items()]
        yield Reader(f"table-{source}", _ingest(source), seeds, 3, links=True)


def _ingest(name: str) -> Callable[[Path, Path], object]:
    def read(place: Path, out: Path) -> None:
        from geozero.curation.ingest.ingest import ingest

        ingest(name, place, out / "corpus")

    return read


def _hub_rows() -> dict[str, list[dict[str, Any]]]:
    """Rows in the layout of the Hugging Face hub."""
    image = {"bytes": _image_seeds()[0], "path": "a.jpg"}
    return {
        "class_folders": [{"image": image, "label": n % 2} for n in range(4)],
        "captions_json": [{"image": image, "captions": ["A road.", f"Houses {n}."]} for n in range(3)],
        "questions": [{"image": image, "question": f"How many {n}?", "answer": str(n)} for n in range(3)],
    }


def _parquet(rows: list[dict[str, Any]]) -> bytes:
    import pyarrow as pa
    import pyarrow.parquet as pq

    table = pa.Table.from_pylist(rows)
    if "label" in table.column_names:
        features = {
            "info": {
                "features": {"label": {"names": ["farm", "port"], "_type": "ClassLabel"}, "image": {"_type": "Image"}}
            }
        }
        table = table.replace_schema_metadata({"huggingface": json.dumps(features)})
    buffer = io.BytesIO()
    pq.write_table(table, buffer)
    return buffer.getvalue()


def _corpora() -> Iterator[Reader]:
    from build_world import corpus, pair

    def read(place: Path, out: Path) -> None:
        from geozero.corpus.store import Corpus

        found = Corpus(place / "corpus")
        list(found.samples())
        found.rejects()
        for row in found.image_rows():
            with contextlib.suppress(BadRecord):
                found.image_bytes(row["image_id"])
        found.verify()

    def release(place: Path, out: Path) -> None:
        from geozero.curation.release.importing import import_release

        import_release(place, out / "corpus")

    def hub(place: Path, out: Path) -> None:
        from geozero.curation.release.hub_parquet import import_hub

        import_hub(place, out / "corpus")

    made = written(lambda p: corpus(p / "corpus", *(pair(n, f"s/{n}") for n in range(3))))
    yield Reader("corpus", read, [made], 8)
    with tempfile.TemporaryDirectory() as scratch:
        from geozero.curation.release.exporting import export
        from geozero.curation.release.hub_parquet import export_hub

        place = Path(scratch)
        corpus(place / "corpus", *(pair(n, f"s/{n}") for n in range(3)))
        export_hub(place / "hub", {"raw": place / "corpus"}, [])
        export(place / "release", {"raw": place / "corpus"}, [])
        yield Reader("hub", hub, [files_of(place / "hub")], 3, links=True)
        yield Reader("release", release, [files_of(place / "release")], 4, links=True)


def _answers() -> Iterator[Reader]:
    from geozero.difficulty.answer_store import ANSWER_SCHEMA, AnswerWriter, Fingerprint, pass_rates, set_current

    def make(place: Path) -> None:
        fingerprint = Fingerprint("m", "p", 1.0, 1.0, 8, 7, 100, 100, "norm1000")
        empty = {f.name: None for f in ANSWER_SCHEMA}
        rows = [
            empty
            | {
                "id": f"{n}",
                "rollout": k,
                "text": "yes",
                "answer": "yes",
                "success": True,
                "reward": 1.0,
                "finish_reason": "stop",
                "n_tokens": 1,
                "model": "m",
                "prompt_hash": "h",
            }
            for n in range(3)
            for k in range(2)
        ]
        AnswerWriter(place, fingerprint).write(rows)
        set_current(place, [fingerprint], 2)

    yield Reader("answers", lambda place, out: pass_rates(place), [written(make)], 6)


def _records() -> Iterator[Reader]:
    golden = {
        path.stem.removesuffix("_records"): path for path in sorted((ROOT / "tests/golden").glob("*_records.json"))
    }
    for task, path in golden.items():
        rows = json.loads(path.read_text())[:12]
        seeds = [{"records.json": json.dumps(rows[n : n + 4]).encode()} for n in (0, 4, 8)]
        yield Reader(f"records-{task}", _evaluate(task), seeds, 3, anywhere=True)

    def items(place: Path, out: Path) -> None:
        from geozero.inference.eval_json import read_items

        for task in golden:
            for item in read_items(place / "items.json", task):
                with contextlib.suppress(BadRecord):
                    _ = item.question, item.messages(True)

    rows = [
        {"image": "a.png", "question": "What?", "answer": "yes", "id": 1},
        {"images": ["a.png"], "messages": [{"role": "user", "content": "x"}], "label": [1, 2, 3, 4]},
    ]
    yield Reader("eval-json", items, [{"items.json": json.dumps(rows).encode()}], 20)

    def page(place: Path, out: Path) -> None:
        from geozero.evaluation.report.schema import read_inputs

        read_inputs(place)

    from fake_report import write as fake_report

    yield Reader("report", page, [{n: d for n, d in written(fake_report).items() if n.endswith(".json")}], 4)


def _evaluate(task: str) -> Callable[[Path, Path], object]:
    def read(place: Path, out: Path) -> None:
        from geozero.evaluation.evaluate import evaluate

        for protocol in ("strict", "official"):
            with contextlib.suppress(InputError):
                evaluate(task, protocol, place / "records.json", out / f"{protocol}.json", resamples=2)

    return read


def _texts() -> Iterator[Reader]:
    """What a model may write, read as answers, numbers, boxes and thoughts."""
    from geozero.tasks import box_text, boxes, numbers, text

    functions: list[Callable[[str], object]] = [
        *(
            getattr(text, name)
            for name in ("is_well_formed", "tagged_answer", "thought", "has_thought", "scored_answer")
        ),
        *(getattr(text, name) for name in ("extract_answer", "normalise", "closed_reading", "unwrapped", "words")),
        *(getattr(numbers, name) for name in ("quantity", "spelled_out", "says_none", "number_of", "count_of")),
        *(getattr(box_text, name) for name in ("parse_box", "parse_box_list", "read_box_text")),
        *(
            lambda t: text.same_answer(t, "three"),
            lambda t: boxes.parse_boxes([t]),
            lambda t: boxes.published_boxes([t]),
        ),
    ]

    def read(place: Path, out: Path) -> None:
        for file in place.iterdir():
            if file.is_file():
                completion = file.read_bytes().decode(errors="surrogateescape")
                for function in functions:
                    function(completion)

    seeds = [
        *("I look at the roof. <answer>yes</answer>", "<answer>[12, 34, 56.5, 78]</answer>", "**Answer:** B) airport"),
        *("There are 1,234 houses; about three dozen.", "{<12><34><56><78>|<90>}", "x1=1, y1=2, x2=3, y2=4", "½ of ٣"),
        *("<|box_start|>(1,2),(3,4)<|box_end|>", "between 0 and 10", "The answer is: none."),
        '```json\n[{"bbox_2d": [1, 2, 3, 4], "label": "ship"}]\n```',
    ]
    yield Reader("completion", read, [{"completion": seed.encode()} for seed in seeds], 120)


def _settings() -> Iterator[Reader]:
    from geozero import params

    texts = [path.read_bytes() for path in [ROOT / "params.yaml", *sorted((ROOT / "profiles").glob("*.yaml"))[:3]]]
    yield Reader(
        "params", lambda place, out: params.load(place / "params.yaml"), [{"params.yaml": text} for text in texts], 10
    )

    def lineage(place: Path, out: Path) -> None:
        from geozero.tracking import lineage

        lineage.hashes(place)

    lock = b"schema: '2.0'\nstages:\n  raw:\n    cmd: x\n    outs:\n    - {path: data/raw, md5: 1f2e.dir}\n"
    yield Reader("dvc-lock", lineage, [{"dvc.lock": lock}], 10)


def _checkpoints() -> Iterator[Reader]:
    from weights import write_weights

    tiny = ROOT / "models/tiny-qwen3-vl"
    files = {
        p.name: p.read_bytes()
        for p in sorted(tiny.iterdir())
        if p.suffix != ".safetensors" and p.name != "tokenizer.json"
    }
    files |= written(lambda place: write_weights(place / "model.safetensors"))
    files["tokenizer.json"] = b'{"added_tokens": [], "model": {"type": "BPE", "vocab": {}, "merges": []}}'
    index = {"metadata": {}, "weight_map": {"w": "model.safetensors"}}
    files["model.safetensors.index.json"] = json.dumps(index).encode()

    def read(place: Path, out: Path) -> None:
        from geozero.engines import checkpoint, families

        path = checkpoint.resolve(place)
        checkpoint.check_tokenizer(path)
        checkpoint.content_hash(path)
        families.default_boxes(path)
        families.limits_at(path, 16384)
        checkpoint.special_tokens(path)
        checkpoint.positions(path)

    yield Reader("checkpoint", read, [files], 12)

    def template(place: Path, out: Path) -> None:
        from transformers.utils.chat_template_utils import render_jinja_template

        from geozero.engines import trust

        if not (place / "chat_template.jinja").is_file():
            return
        text = (place / "chat_template.jinja").read_text(errors="replace")
        chat = [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "What?"}]}]
        trust.rendered(
            lambda: str(render_jinja_template([chat], chat_template=text, add_generation_prompt=True)[0][0]), place
        )

    yield Reader("chat-template", template, [{"chat_template.jinja": files["chat_template.jinja"]}], 4)


def _servers() -> Iterator[Reader]:
    import httpx

    from geozero.engines import openai_client

    def read(place: Path, out: Path) -> None:
        body = (place / "reply.json").read_bytes() if (place / "reply.json").is_file() else b""
        status = (
            int(re.sub(rb"\D", b"", (place / "status").read_bytes())[:3] or b"200")
            if (place / "status").is_file()
            else 200
        )
        transport = httpx.MockTransport(lambda request: httpx.Response(max(100, min(599, status)), content=body))
        server = openai_client.Server("http://server/v1", _served(), frozenset())
        with httpx.Client(transport=transport) as client:
            with contextlib.suppress(*refusals):
                openai_client.post(client, server, b"{}")
            with contextlib.suppress(*refusals):
                openai_client.connect(client, "http://server/v1", place)

    refusals = (*REFUSALS, openai_client.RequestRefused, openai_client.ServerFailed)
    choice = {
        "message": {"content": "yes"},
        "finish_reason": "stop",
        "logprobs": {"content": [{"token": "yes"}]},
        "token_ids": [1],
    }
    reply = {"choices": [choice], "usage": {"completion_tokens": 1, "prompt_tokens": 3}}
    models = {"data": [{"id": "m", "root": "/m", "max_model_len": 100}]}
    seeds = [
        {"reply.json": json.dumps(one).encode(), "status": status}
        for one in (reply, models)
        for status in (b"200", b"400", b"503")
    ]
    yield Reader("server", read, seeds, 12, refusals)


def _served() -> Any:
    from geozero.engines.serving.served_model import ServedModel

    return ServedModel.of({"id": "m", "root": "/m"})


def _scenes() -> Iterator[Reader]:
    from geozero.curation.tiling.tile import tile_scenes

    images = _image_seeds()
    boxes = {
        "images": [{"id": 1, "file_name": "a.png", "width": 40, "height": 32}],
        "annotations": [{"id": 1, "image_id": 1, "category_id": 1, "bbox": [1, 2, 10, 12], "area": 120, "iscrowd": 0}],
        "categories": [{"id": 1, "name": "ship"}],
    }
    seeds = [{"a.png": image, "boxes.json": json.dumps(boxes).encode()} for image in images]
    read = lambda place, out: tile_scenes([place / "a.png"], out / "tiles", place / "boxes.json", side=16)  # noqa: E731
    yield Reader("tile", read, seeds, 6)


def names(readers: Iterable[Reader]) -> list[str]:
    return [reader.name for reader in readers]
