"""A corpus as ms-swift rows whose pixels stay in the corpus: read lazily, one image at a time, in any loader worker.

A row names its image as `geozero-image:<corpus directory>#<image_id>`; `install` teaches ms-swift's templates to
read that. Nothing is copied per question and no directory of loose files is made.
"""

from __future__ import annotations

import functools
import inspect
import json
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from geozero.common.atomic import replacing, write_text
from geozero.common.errors import BadRecord, InputError
from geozero.corpus.images import decode
from geozero.corpus.sample import Sample, Split, stable_unit
from geozero.corpus.store import Corpus
from geozero.tasks import get, messages, validate
from geozero.tasks.boxes import Convention
from geozero.tasks.text import Mode

SCHEME = "geozero-image:"
MEDIA_TAGS = ("<image>", "<video>", "<audio>")  # ms-swift counts them in the text: one too many costs the whole run


@dataclass(frozen=True, slots=True)
class Replay:
    """A completion of the base model's own, to be taught again so that SFT does not wear its format out.

    Attributes:
        messages: the chat turns it answered, `<image>` where the image stands.
        image: `image_uri` of the image.
        text: what it wrote.
    """

    messages: Sequence[dict[str, str]]
    image: str
    text: str


@dataclass(slots=True)
class Rows:
    """What `swift_rows` wrote: the number of rows and why samples were left out, by reason."""

    n: int = 0
    rejected: Counter[str] = field(default_factory=Counter)


def image_uri(corpus: Path, image_id: str) -> str:
    """The name under which `read_image` finds an image of a corpus, from any working directory."""
    return f"{SCHEME}{corpus.resolve()}#{image_id}"


def read_image(uri: str) -> bytes:
    """The encoded image behind an `image_uri`.

    Raises:
        InputError: not such a name, or the corpus or the image is not there.
    """
    path, _, image_id = uri.removeprefix(SCHEME).rpartition("#")
    if not uri.startswith(SCHEME) or not path or not image_id:
        raise InputError(f"not an image of a corpus: '{uri[:200]}'", hint=f"{SCHEME}<corpus>#<image_id>")
    try:
        return _open_corpus(path).image_bytes(image_id)
    except KeyError:
        raise InputError(f"no image {image_id}", path, "make the rows again from this corpus") from None


@functools.cache
def _open_corpus(path: str) -> Corpus:
    return Corpus(path)  # its image index reopens the shards in a forked worker


def swift_rows(
    corpus: Corpus,
    mode: Mode,
    boxes: Convention,
    out: Path,
    *,
    split: Split | None = "train",
    keep: Callable[[Sample], bool] | None = None,
    choose: Callable[[Iterable[Sample]], Iterable[Sample]] | None = None,
    replay: Sequence[Replay] = (),
    replay_share: float = 0.0,
    special_tokens: Collection[str] = (),
) -> Rows:
    """Write a corpus's samples as one JSON line each, streamed, under a temporary name first.

    `direct` mode makes SFT rows (question and target); `tagged` mode makes RL rows (system prompt and question, the
    sample itself in the column `sample` for the rewards).

    Args:
        keep: which samples; None: all of the split.
        choose: takes those and gives the ones to write, in their order.
        replay: completions to mix into SFT rows until they make up `replay_share` of all rows.
        special_tokens: of the model's tokenizer; a sample whose texts contain one is rejected.

    Raises:
        InputError: no sample is left (in tagged mode one whose own answer earns nothing is rejected), or a share is
            wanted and there is nothing to replay.
    """
    if not 0 <= replay_share < 1:
        raise InputError(f"replay_share {replay_share} is not in [0, 1)")
    if replay_share and not replay:
        raise InputError("replay_share is set, and there is nothing to replay", hint="set sft.replay_share to 0")
    rows = Rows()
    samples = (s for s in corpus.samples(split=split) if keep is None or keep(s))
    with replacing(out) as temporary, temporary.open("w") as file:
        for sample in samples if choose is None else choose(samples):
            try:
                row = _row(corpus.path, sample, mode, boxes, special_tokens)
            except BadRecord as bad:
                rows.rejected[bad.reason] += 1
                continue
            file.write(json.dumps(row, ensure_ascii=False) + "\n")
            rows.n += 1
        if rows.n == 0:
            left_out = ", ".join(f"{n} {reason}" for reason, n in rows.rejected.most_common())
            raise InputError(
                "no sample to train on" + (f": {left_out}" if left_out else ""),
                str(corpus.path),
                f"it needs samples of split '{split}' whose own answers are right",
            )
        for row in _replayed(replay, round(rows.n * replay_share / (1 - replay_share))):
            file.write(json.dumps(row, ensure_ascii=False) + "\n")
            rows.n += 1
    return rows


def prompt_rows(
    corpora: Sequence[Corpus], boxes: Convention, out: Path, n: int, special_tokens: Collection[str] = ()
) -> int:
    """Write `n` validation questions of several corpora as rows in tagged mode and return how many there are.

    Chosen by the stable hash of their ids, so that every run is judged by the same ones.

    Raises:
        InputError: there is none.
    """
    return _write_questions(_questions(corpora, special_tokens)[:n], boxes, out)


def probe_rows(
    corpora: Sequence[Corpus], boxes: Convention, out: Path, n: int, special_tokens: Collection[str] = ()
) -> int:
    """As `prompt_rows`, but the tasks in turn: a few questions to look at, of every kind."""
    of_task: Counter[str] = Counter()
    ranked = []
    for corpus, sample in _questions(corpora, special_tokens):
        of_task[sample.task] += 1
        ranked.append((of_task[sample.task], sample.task, corpus, sample))
    ranked.sort(key=lambda entry: entry[:2])
    return _write_questions([(corpus, sample) for _, _, corpus, sample in ranked[:n]], boxes, out)


def _questions(corpora: Sequence[Corpus], special_tokens: Collection[str]) -> list[tuple[Corpus, Sample]]:
    """All validation questions, in the order of their stable hash."""
    found = [
        (corpus, s) for corpus in corpora for s in corpus.samples(split="val") if not _tokens_in(s, special_tokens)
    ]
    if not found:
        hint = "or set a2grpo.keep to last and a2grpo.probes to 0"
        raise InputError("no validation sample", ", ".join(str(c.path) for c in corpora), hint)
    return sorted(found, key=lambda entry: stable_unit(entry[1].id, salt="val"))


def _write_questions(questions: Sequence[tuple[Corpus, Sample]], boxes: Convention, out: Path) -> int:
    rows = [json.dumps(_row(corpus.path, s, "tagged", boxes), ensure_ascii=False) + "\n" for corpus, s in questions]
    write_text(out, "".join(rows))
    return len(rows)


def _tokens_in(sample: Sample, special_tokens: Collection[str]) -> str:
    """Why the sample's texts cannot be encoded as text: the reason of a reject, or "" if they can."""
    if any(tag in sample.question for tag in MEDIA_TAGS):
        return "media_tag_in_question"
    texts = (sample.answer, *sample.references)
    if any(tag in text for text in texts for tag in MEDIA_TAGS):
        return "media_tag_in_answer"
    return (
        "special_token" if any(token in text for text in (sample.question, *texts) for token in special_tokens) else ""
    )


def _row(
    corpus: Path, sample: Sample, mode: Mode, boxes: Convention, special_tokens: Collection[str] = ()
) -> dict[str, Any]:
    if reason := _tokens_in(sample, special_tokens):
        raise BadRecord(reason, sample.id)
    validate(sample)  # what built the corpus has done so; what changed it by hand may not have
    task = get(sample.task)
    target = task.target(sample, boxes)
    if mode == "tagged" and task.answer_reward(target, sample, boxes) <= 0:  # its groups could only be silent
        raise BadRecord("unusable_solution", sample.id)
    turns = messages(sample, mode)
    row: dict[str, Any] = {"messages": turns, "images": [image_uri(corpus, sample.image_id)]}
    if mode == "direct":
        turns.append({"role": "assistant", "content": target})
    else:
        row["sample"] = sample.to_json()
    return row


def _replayed(replay: Sequence[Replay], n: int) -> Iterator[dict[str, Any]]:
    order = sorted(replay, key=lambda r: stable_unit(r.image + r.text, salt="replay"))
    for i in range(n):
        chosen = order[i % len(order)]
        turns = [*chosen.messages, {"role": "assistant", "content": chosen.text}]
        yield {"messages": turns, "images": [chosen.image]}


def install() -> None:
    """Teach the templates of ms-swift in this process (and in workers forked from it) to read `image_uri` names.

    Raises:
        InputError: the installed ms-swift loads images in another way than this was written for.
    """
    from swift.template import Template

    original = Template.__dict__.get("_load_image")
    if getattr(original, "__func__", None) is _load_image:
        return
    if not isinstance(original, staticmethod) or list(inspect.signature(original.__func__).parameters) != [
        "image",
        "load_images",
    ]:
        raise InputError("ms-swift loads images in another way than expected", hint="install the pinned ms-swift 4.6.0")
    _originals.append(original.__func__)
    Template._load_image = staticmethod(_load_image)


_originals: list[Callable[[Any, bool], Any]] = []


def _load_image(image: Any, load_images: bool) -> Any:
    """Takes the place of ms-swift's `Template._load_image`: our names become RGB images, the rest goes its way."""
    name = image.get("path") if isinstance(image, dict) else image
    if isinstance(name, str) and name.startswith(SCHEME):
        return decode(read_image(name))
    return _originals[0](image, load_images)
