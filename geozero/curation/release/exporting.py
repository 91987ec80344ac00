"""Write the authors' release formats: GeoZero-Raw, -Instruct and -Hard as JSON with tar shards; the evaluation JSON.

    GeoZero-Raw.json, GeoZero-Instruct.json   [{"messages": [{"role": "user", "content": "<image>\\n[vqa] …"},
                                                {"role": "assistant", "content": "no"}], "images": ["SET/….png"]}]
    GeoZero-Hard.json                         [{"messages": [system, user], "images": […],
                                                "solution": "<answer> 1934m2 </answer>\\n", "task_type": ["vqa"]}]
    images/SET-0000.tar                       members `SET/….png`
    eval/SOURCE_TASK.json                     [{"conversations": [human, gpt], "images": […], "refs": […]}], and the
                                              images as files beside it, so that `geozero infer` reads it as it is

Known from the release: the keys, `[vqa]`, and that member names begin with the set. Ours: the other tags, 0–1000 for
boxes in training answers, and our name of the source as `SET`. `id`, `question_type`, `width` and `height` in the
evaluation JSON are additions that the published script ignores.
"""

from __future__ import annotations

import io
import json
import tarfile
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Literal

from geozero import tasks
from geozero.common.errors import InputError
from geozero.common.own_files import replacing_own
from geozero.common.progress import Progress
from geozero.corpus.sample import Sample, Split
from geozero.corpus.store import Corpus
from geozero.sources.readers.archive_members import clean_name
from geozero.tasks import SYSTEM_PROMPT
from geozero.tasks.boxes import Convention, is_degenerate, to_model

Kind = Literal["raw", "instruct", "hard"]
FILES: dict[Kind, str] = {
    "raw": "GeoZero-Raw.json",
    "instruct": "GeoZero-Instruct.json",
    "hard": "GeoZero-Hard.json",
}
IMAGES, EVAL = "images", "eval"
IMAGE_MARK = "<image>"
WHAT = "give --raw, --instruct, --hard or --eval"
BYTES_PER_TAR = 1 << 30  # [ours]
_PNG = b"\x89PNG"
LOST = {  # what the format cannot hold → why
    "id": "the training format has no ids; they are derived again from image, question and answer",
    "split": "the training format holds only train; other samples are left out",
    "references": "one sentence per sample in the training format; the first is kept",
    "question_type": "no field in the training format",
    "classes": "no field; the question still lists them",
    "box": "boxes are rounded to whole units of the convention: at most half a unit per coordinate",
    "box_collapsed": "so small that it vanishes by rounding; left out",
    "image_mark": "the question contains <image>, which would call for a second image; left out",
    "not_evaluated": "only the chosen split is written to the evaluation JSON",
}


@dataclass(frozen=True, slots=True)
class Exported:
    """File → number of items, how many images lie beside them, and what was lost: a key of `LOST` → samples."""

    files: dict[str, int]
    images: int
    lost: dict[str, int]

    def lines(self) -> Iterator[str]:
        """The report, one line per item."""
        yield from (f"{name}\t{n} items" for name, n in self.files.items())
        yield f"images\t{self.images}"
        yield from (f"lost\t{what}\t{n} samples\t{LOST[what]}" for what, n in self.lost.items())


def export(
    out: Path,
    train: Mapping[Kind, Path],
    evals: list[Path],
    boxes: Convention = "norm1000",
    split: Split = "test",
) -> Exported:
    """Write corpora in the authors' formats; an older export at `out` is replaced as a whole.

    Args:
        train: which corpus becomes which of the three training files.
        evals: corpora whose `split` becomes evaluation JSON, one file per source and task.
        boxes: what coordinates in training answers mean; in the evaluation JSON they are pixels, as published.

    Raises:
        InputError: nothing to write, an unreadable corpus, something else than an older export at `out`.
    """
    if not train and not evals:
        raise InputError("nothing to export", hint=WHAT)
    training = {kind: Corpus(path) for kind, path in train.items()}
    evaluated = [Corpus(path) for path in evals]
    lost: Counter[str] = Counter()
    files: dict[str, int] = {}
    with replacing_own(out) as place, Progress(f"export {out.name}") as progress:
        place.mkdir()
        with _Tars(place / IMAGES) as tars:
            paths = ImagePaths(tars.add)
            for corpus in training.values():
                paths.store(corpus, "train", progress)
        for kind, corpus in training.items():
            items = (_train_item(kind, s, paths, boxes, lost) for s in corpus.samples())
            files[FILES[kind]] = _write_list(place / FILES[kind], items)
        loose = ImagePaths(LooseImages(place / EVAL).add)
        for corpus in evaluated:
            loose.store(corpus, split, progress)
        for (source, task), n in _evaluation(place / EVAL, evaluated, split, loose, lost).items():
            files[f"{EVAL}/{source}_{task}.json"] = n
        if not sum(files.values()):
            raise InputError("the corpora hold no samples to write", hint=f"train samples, or {split} ones for --eval")
    return Exported(files, len(paths) + len(loose), {what: n for what, n in sorted(lost.items()) if n})


def _train_item(
    kind: Kind, sample: Sample, paths: ImagePaths, boxes: Convention, lost: Counter[str]
) -> dict[str, Any] | None:
    """The item of a sample; None if it cannot be written."""
    if sample.split != "train":
        lost["split"] += 1
        return None
    return training_item(kind, sample, paths.of(sample), boxes, lost)


def training_item(
    kind: Kind, sample: Sample, image: str, boxes: Convention, lost: Counter[str]
) -> dict[str, Any] | None:
    """The item of a sample whose image lies at `image`, of whatever split; None if it cannot be written."""
    if IMAGE_MARK in sample.question:
        lost["image_mark"] += 1
        return None
    task = tasks.get(sample.task)
    if task.answers_are_boxes:
        rounded = [to_model(box, sample.width, sample.height, boxes) for box in task.true_boxes(sample)]
        if any(map(is_degenerate, rounded)):
            lost["box_collapsed"] += 1
            return None
        lost["box"] += bool(rounded)
    answer = sample.answer if task.many_references else task.target(sample, boxes)
    lost["id"] += 1
    lost.update({"references": int(len(sample.references) > 1), "classes": int(bool(sample.classes))})
    lost["question_type"] += sample.question_type is not None
    user = {"role": "user", "content": f"{IMAGE_MARK}\n{task.tag} {sample.question}"}
    images = [image]
    if kind == "hard":
        messages = [{"role": "system", "content": SYSTEM_PROMPT}, user]
        solution = f"<answer> {answer} </answer>\n"
        return {"messages": messages, "images": images, "solution": solution, "task_type": [task.tags[0]]}
    return {"messages": [user, {"role": "assistant", "content": answer}], "images": images}


def _eval_item(sample: Sample, paths: ImagePaths) -> dict[str, Any]:
    turns = [{"from": "human", "value": IMAGE_MARK + sample.question}, {"from": "gpt", "value": sample.answer}]
    item: dict[str, Any] = {"conversations": turns, "images": [paths.of(sample)]}
    if tasks.get(sample.task).many_references:
        item["refs"] = list(sample.references)
    item |= {"id": sample.id, "width": sample.width, "height": sample.height}
    return item | ({} if sample.question_type is None else {"question_type": sample.question_type})


def _evaluation(
    place: Path, corpora: list[Corpus], split: Split, paths: ImagePaths, lost: Counter[str]
) -> dict[tuple[str, str], int]:
    """Write one list per source and task. Returns the number of items in each."""
    with ExitStack() as stack:
        lists: dict[tuple[str, str], _List] = {}
        for corpus in corpora:
            for sample in corpus.samples():
                if sample.split != split or IMAGE_MARK in sample.question:
                    lost["not_evaluated" if sample.split != split else "image_mark"] += 1
                    continue
                lost["classes"] += bool(sample.classes)
                group = (sample.source, sample.task)
                if group not in lists:
                    place.mkdir(exist_ok=True)
                    lists[group] = stack.enter_context(_List(place / f"{sample.source}_{sample.task}.json"))
                lists[group].add(_eval_item(sample, paths))
        return {group: one.count for group, one in sorted(lists.items())}


class ImagePaths:
    """Gives each image of a corpus the path `image_key.suffix` and stores it there once.

    An image with two keys is stored twice, so that no key is lost. Two images with one key get the start of their hash
    behind a `~`.
    """

    def __init__(self, write: Callable[[str, bytes], None]) -> None:
        self._write = write
        self._paths: dict[tuple[str, str], str] = {}
        self._taken: set[str] = set()

    def __len__(self) -> int:
        return len(self._taken)

    def store(self, corpus: Corpus, split: Split | None, progress: Progress) -> None:
        """Write the images of a split's samples, or of all."""
        keys: dict[str, set[str]] = defaultdict(set)
        for sample in corpus.samples(split):
            if (sample.image_id, sample.image_key) not in self._paths:
                keys[sample.image_id].add(sample.image_key)
        for row in corpus.image_rows():
            for key in sorted(keys.get(row["image_id"], ())):
                path = self._path(key, row)
                self._write(path, row["bytes"])
                self._paths[row["image_id"], key] = path
                progress.step(f"{len(self)} images")

    def of(self, sample: Sample) -> str:
        return self._paths[sample.image_id, sample.image_key]

    def _path(self, key: str, row: Mapping[str, Any]) -> str:
        suffix = ".png" if row["bytes"][:4] == _PNG else ".jpg"
        name = clean_name(key)
        if name is None or name != key or "/" not in key:
            name = f"images/{row['image_id']}"
        path = name + suffix
        if path in self._taken:
            path = f"{name}~{row['image_id'][:8]}{suffix}"
        self._taken.add(path)
        return path


class _Tars:
    """`SET-0000.tar`, `SET-0001.tar`, …, the set being the first part of a member's name. The same images give the
    same bytes."""

    def __init__(self, place: Path) -> None:
        self._place = place
        self._open: dict[str, tuple[tarfile.TarFile, IO[bytes]]] = {}
        self._count: Counter[str] = Counter()

    def __enter__(self) -> _Tars:
        return self

    def __exit__(self, *error: object) -> None:
        for group in list(self._open):
            self._close(group)

    def add(self, path: str, data: bytes) -> None:
        group = path.partition("/")[0]
        if group in self._open and self._open[group][1].tell() + len(data) > BYTES_PER_TAR:
            self._close(group)
        if group not in self._open:
            self._place.mkdir(exist_ok=True)
            file = (self._place / f"{group}-{self._count[group]:04}.tar").open("wb")
            self._count[group] += 1
            self._open[group] = tarfile.TarFile(fileobj=file, mode="w", format=tarfile.PAX_FORMAT), file
        tar = self._open[group][0]
        member = tarfile.TarInfo(path)
        member.size = len(data)
        tar.addfile(member, io.BytesIO(data))
        tar.members = []  # type: ignore[attr-defined]  # or it keeps every header

    def _close(self, group: str) -> None:
        tar, file = self._open.pop(group)
        tar.close()
        file.close()


class LooseImages:
    """Images as files."""

    def __init__(self, place: Path) -> None:
        self._place = place

    def add(self, path: str, data: bytes) -> None:
        (self._place / path).parent.mkdir(parents=True, exist_ok=True)
        (self._place / path).write_bytes(data)


class _List:
    """A JSON list that is written item by item, one per line."""

    def __init__(self, path: Path) -> None:
        self._path, self.count = path, 0

    def __enter__(self) -> _List:
        self._file = self._path.open("w", encoding="utf-8")
        self._file.write("[")
        return self

    def __exit__(self, *error: object) -> None:
        self._file.write("\n]\n")
        self._file.close()

    def add(self, item: dict[str, Any]) -> None:
        self._file.write(("," if self.count else "") + "\n" + json.dumps(item, ensure_ascii=False))
        self.count += 1


class JsonLines:
    """JSON objects, one per line."""

    def __init__(self, path: Path) -> None:
        self._path, self.count = path, 0

    def __enter__(self) -> JsonLines:
        self._file = self._path.open("w", encoding="utf-8")
        return self

    def __exit__(self, *error: object) -> None:
        self._file.close()

    def add(self, item: dict[str, Any]) -> None:
        self._file.write(json.dumps(item, ensure_ascii=False) + "\n")
        self.count += 1


def _write_list(path: Path, items: Iterator[dict[str, Any] | None]) -> int:
    with _List(path) as written:
        for item in items:
            if item is not None:
                written.add(item)
    return written.count
