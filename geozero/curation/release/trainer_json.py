"""JSON lines as other trainers read them, images as files beside them.

    raw-train.jsonl     {"messages": [{"role": "user", "content": "<image>\\n[vqa] …"}, {"role": "assistant", …}],
                         "images": ["images/SET/….png"]}
    hard-train.jsonl    for ms-swift: system and user turn, and `solution`, which a reward function gets
    dataset_info.json   for LLaMA-Factory: give this directory as `dataset_dir`, a key of it as `dataset`

For ms-swift set ROOT_IMAGE_DIR to this directory. LLaMA-Factory knows no rewards, so hard samples are written there as
the others are.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Literal

from geozero.common.atomic import write_json
from geozero.common.errors import InputError
from geozero.common.own_files import replacing_own
from geozero.common.progress import Progress
from geozero.corpus.sample import Split
from geozero.corpus.store import Corpus
from geozero.curation.release.exporting import (
    EVAL,
    IMAGES,
    WHAT,
    Exported,
    ImagePaths,
    JsonLines,
    Kind,
    LooseImages,
    training_item,
)
from geozero.tasks.boxes import Convention

Style = Literal["llamafactory", "swift"]
INFO = "dataset_info.json"
_SHAREGPT = {  # LLaMA-Factory's name of this form of messages
    "formatting": "sharegpt",
    "columns": {"messages": "messages", "images": "images"},
    "tags": {
        "role_tag": "role",
        "content_tag": "content",
        "user_tag": "user",
        "assistant_tag": "assistant",
        "system_tag": "system",
    },
}


def export_trainer(
    out: Path,
    style: Style,
    train: Mapping[Kind, Path],
    evals: list[Path],
    boxes: Convention = "norm1000",
    split: Split = "test",
) -> Exported:
    """Write corpora as one file per part and split; an older export at `out` is replaced as a whole.

    Args:
        boxes: what coordinates in answers mean.
        split: of the corpora to evaluate on; of the others all splits are written.

    Raises:
        InputError: nothing to write, an unreadable corpus, something else than an older export at `out`.
    """
    if not train and not evals:
        raise InputError("nothing to export", hint=WHAT)
    parts: list[tuple[str, Kind, Corpus]] = [(kind, kind, Corpus(path)) for kind, path in train.items()]
    parts += [(EVAL, "raw", Corpus(path)) for path in evals]
    lost: Counter[str] = Counter()
    with replacing_own(out) as place, Progress(f"export {out.name}") as progress, ExitStack() as stack:
        place.mkdir()
        paths = ImagePaths(LooseImages(place / IMAGES).add)
        files: dict[str, JsonLines] = {}
        for name, kind, corpus in parts:
            only = split if name == EVAL else None
            paths.store(corpus, only, progress)
            form: Kind = "raw" if style == "llamafactory" else kind
            for sample in corpus.samples(only):
                item = training_item(form, sample, f"{IMAGES}/{paths.of(sample)}", boxes, lost)
                if item is not None:
                    file = f"{name}-{sample.split}.jsonl"
                    if file not in files:
                        files[file] = stack.enter_context(JsonLines(place / file))
                    files[file].add(item)
        if not files:
            raise InputError("the corpora hold no samples to write", hint=f"any samples, or {split} ones for --eval")
        if style == "llamafactory":
            info: dict[str, Any] = {
                f"geozero_{file.removesuffix('.jsonl').replace('-', '_')}": {"file_name": file} | _SHAREGPT
                for file in files
            }
            write_json(place / INFO, info)
    return Exported(
        {name: file.count for name, file in sorted(files.items())},
        len(paths),
        {what: n for what, n in sorted(lost.items()) if n},
    )
