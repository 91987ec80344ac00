"""A corpus as ms-swift rows whose pixels stay in the corpus: read lazily, one image at a time, in any loader worker.

A row names its image as `geozero-image:<corpus directory>#<image_id>`, which ms-swift's templates read after `install`.
Nothing is copied per question and no directory of loose files is made.
"""

from __future__ import annotations

import functools
import inspect
import itertools
import json
import mmap
import random
from array import array
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from geozero.common.atomic import replacing, write_text
from geozero.common.errors import BadRecord, InputError
from geozero.corpus.images import STORED_PIXELS, decode
from geozero.corpus.sample import Sample, stable_unit
from geozero.corpus.store import Corpus
from geozero.engines.checkpoint import special_tokens
from geozero.engines.families import limits_at
from geozero.engines.families.base import ImageLimits
from geozero.params import Model
from geozero.tasks import get, messages, validate
from geozero.tasks.boxes import Convention
from geozero.tasks.text import Mode

CHARACTERS_PER_TOKEN = 4
SCHEME = "geozero-image:"
MEDIA_TAGS = ("<image>", "<video>", "<audio>")  # ms-swift counts them in the text: one too many costs the whole run


@dataclass(frozen=True, slots=True)
class Replay:
    """A completion of the base model's own, trained on again so that SFT does not wear its format out.

    Attributes:
        messages: the prompt, `<image>` in the place of the image.
        image: `image_uri` of the image.
        text: the completion.
    """

    messages: Sequence[dict[str, str]]
    image: str
    text: str


@dataclass(slots=True)
class Rows:
    """What `swift_rows` wrote.

    Attributes:
        rejected: why samples were left out, by reason.
        lengths: of the rows, in tokens: image tokens, and text at `CHARACTERS_PER_TOKEN`.
    """

    n: int = 0
    rejected: Counter[str] = field(default_factory=Counter)
    lengths: array[int] = field(default_factory=lambda: array("L"))

    def useful_share(self, micro: int, world: int) -> float:
        """Share of the tokens of all forward passes that are not padding, in the order of the rows.

        Args:
            micro: rows per forward pass; ms-swift deals consecutive rows to the `world` devices in turn.
        """
        padded = 0
        for start in range(0, len(self.lengths), micro * world):
            rows = self.lengths[start : start + micro * world]
            padded += sum(max(own) * len(own) for own in (rows[rank::world] for rank in range(world)) if own)
        return sum(self.lengths) / max(1, padded)


@dataclass(frozen=True)
class Readable:
    """What a model can read.

    Attributes:
        special_tokens: of its tokenizer; as text they would be encoded as what they are.
        limits: of its images; None: any size.
    """

    special_tokens: Collection[str] = ()
    limits: ImageLimits | None = None

    @classmethod
    def by(cls, base: Path, model: Model) -> Readable:
        """What a base model can read, with a profile's limits."""
        return cls(special_tokens(base), limits_at(base, model.max_pixels, model.min_pixels))

    def fault(self, sample: Sample) -> str:
        """Why the sample cannot be encoded: the reason of a reject, or "" if it can."""
        if any(tag in sample.question for tag in MEDIA_TAGS):
            return "media_tag_in_question"
        texts = (sample.answer, *sample.references)
        if any(tag in text for text in texts for tag in MEDIA_TAGS):
            return "media_tag_in_answer"
        if any(token in text for text in (sample.question, *texts) for token in self.special_tokens):
            return "special_token"
        try:
            if self.limits is not None:
                self.limits.check(sample.width, sample.height)
        except BadRecord as bad:
            return bad.reason
        return ""

    def image_tokens(self, sample: Sample) -> int:
        """Tokens that the sample's image takes; 0 where the model's limits are not known."""
        return 0 if self.limits is None else self.limits.tokens_at(sample.width, sample.height)


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
    choose: Callable[[Iterable[Sample]], Iterable[Sample]] = iter,
    replay: Sequence[Replay] = (),
    replay_share: float = 0.0,
    readable: Readable | None = None,
    sort_steps_of: int | None = None,
    seed: int = 0,
) -> Rows:
    """Write a corpus's training samples as one JSON line each, streamed, under a temporary name first.

    `direct` mode makes SFT rows (question and target); `tagged` mode makes RL rows (system prompt and question, the
    sample itself in the column `sample` for the rewards).

    Args:
        choose: takes the samples and gives those to write, in their order.
        replay: completions to mix into SFT rows until they make up `replay_share` of all rows.
        readable: what the model can read; other samples are rejected.
        sort_steps_of: rows per step, if rows are to be shuffled by `seed` and each step's sorted by length.

    Raises:
        InputError: no sample is left (in tagged mode one whose own answer earns nothing is rejected), or there is
            nothing to replay.
    """
    if not 0 <= replay_share < 1:
        raise InputError(f"replay_share {replay_share} is not in [0, 1)")
    if replay_share and not replay:
        raise InputError("replay_share is set, and there is nothing to replay", hint="set sft.replay_share to 0")
    rows, known = Rows(), readable or Readable()
    with replacing(out) as temporary, temporary.open("w") as file:
        for sample in choose(corpus.samples(split="train")):
            try:
                file.write(_row(corpus.path, sample, mode, boxes, readable))
                rows.n += 1
                text = len(sample.question) + len(sample.answer)
                rows.lengths.append(known.image_tokens(sample) + text // CHARACTERS_PER_TOKEN)
            except BadRecord as bad:
                rows.rejected[bad.reason] += 1
        if rows.n == 0:
            rejected = ", ".join(f"{n} {reason}" for reason, n in rows.rejected.most_common())
            what = f"no sample to train on{': ' if rejected else ''}{rejected}"
            raise InputError(what, str(corpus.path), "it needs training samples whose own answers are right")
        longest_image = 0 if known.limits is None else known.limits.tokens_at(1 << 20, 1 << 20)
        n_replayed = round(rows.n * replay_share / (1 - replay_share))
        order = sorted(replay, key=lambda r: stable_unit(r.image + r.text, salt="replay"))
        for one in itertools.islice(itertools.cycle(order), n_replayed):
            turns = [*one.messages, {"role": "assistant", "content": one.text}]
            file.write(_json_line({"messages": turns, "images": [one.image]}))
            text = sum(len(turn["content"]) for turn in turns)
            rows.lengths.append(longest_image + text // CHARACTERS_PER_TOKEN)  # its image's size is not known here
        file.flush()
        rows.n += n_replayed
        if sort_steps_of is not None:
            _reorder(temporary, rows, _sorted_steps(rows.lengths, sort_steps_of, seed))
    return rows


def _sorted_steps(lengths: Sequence[int], per_step: int, seed: int) -> list[int]:
    """Row numbers shuffled by `seed`, each step's then sorted by length: which rows a step has does not change."""
    order = random.Random(seed).sample(range(len(lengths)), len(lengths))
    steps = (order[start : start + per_step] for start in range(0, len(order), per_step))
    return [row for step in steps for row in sorted(step, key=lambda row: (lengths[row], row))]


def _reorder(file: Path, rows: Rows, order: Sequence[int]) -> None:
    """Rewrite a file of rows, not empty, in another order."""
    with file.open("rb") as lines:
        starts = [0, *itertools.accumulate(map(len, lines))]
        old = mmap.mmap(lines.fileno(), 0, access=mmap.ACCESS_READ)  # of the file that is unlinked below
    file.unlink()
    with file.open("wb") as lines:
        lines.writelines(old[starts[row] : starts[row + 1]] for row in order)
    old.close()
    rows.lengths = array("L", (rows.lengths[row] for row in order))


def prompt_rows(
    corpora: Sequence[Corpus], boxes: Convention, out: Path, n: int, readable: Readable | None = None
) -> int:
    """Write `n` validation questions of several corpora as rows in tagged mode; returns how many there are.

    They are chosen by the stable hash of their ids, so that every run is validated on the same ones.

    Raises:
        InputError: there is none.
    """
    return _write_questions(_questions(corpora, readable)[:n], boxes, out)


def probe_rows(
    corpora: Sequence[Corpus], boxes: Convention, out: Path, n: int, readable: Readable | None = None
) -> int:
    """As `prompt_rows`, but the tasks in turn: a few questions of every kind to look at."""
    n_of_task: Counter[str] = Counter()
    turns = []
    for question in _questions(corpora, readable):
        task = question[1].task
        turns.append((n_of_task[task], task, question))
        n_of_task[task] += 1
    turns.sort(key=lambda turn: turn[:2])
    return _write_questions([question for _, _, question in turns[:n]], boxes, out)


def _questions(corpora: Sequence[Corpus], readable: Readable | None) -> list[tuple[Corpus, Sample]]:
    """All validation questions, in the order of their stable hash."""
    samples = ((corpus, sample) for corpus in corpora for sample in corpus.samples(split="val"))
    found = [(corpus, sample) for corpus, sample in samples if not (readable or Readable()).fault(sample)]
    if not found:
        hint = "or set a2grpo.keep to last and a2grpo.probes to 0"
        raise InputError("no validation sample", ", ".join(str(c.path) for c in corpora), hint)
    return sorted(found, key=lambda entry: stable_unit(entry[1].id, salt="val"))


def _write_questions(questions: Sequence[tuple[Corpus, Sample]], boxes: Convention, out: Path) -> int:
    write_text(out, "".join(_row(corpus.path, sample, "tagged", boxes) for corpus, sample in questions))
    return len(questions)


def _row(corpus: Path, sample: Sample, mode: Mode, boxes: Convention, readable: Readable | None = None) -> str:
    if reason := (readable or Readable()).fault(sample):
        raise BadRecord(reason, sample.id)
    validate(sample)  # what built the corpus has done so; what changed it by hand may not have
    task = get(sample.task)
    target = task.target(sample, boxes)
    if mode == "tagged" and task.answer_reward(target, sample, boxes) <= 0:  # its groups would all be zero-std
        raise BadRecord("unusable_solution", sample.id)
    turns = messages(sample, mode)
    row: dict[str, Any] = {"messages": turns, "images": [image_uri(corpus, sample.image_id)]}
    if mode == "direct":
        turns.append({"role": "assistant", "content": target})
    else:
        row["sample"] = sample.to_json()
    return _json_line(row)


def _json_line(row: dict[str, Any]) -> str:
    return json.dumps(row, ensure_ascii=False) + "\n"


def install() -> None:
    """Let the templates of ms-swift in this process (and in workers forked from it) read `image_uri` names.

    Raises:
        InputError: the installed ms-swift loads images in another way than this was written for.
    """
    from swift.template import Template

    original = Template._load_image
    if original is _load_image:
        return
    if list(inspect.signature(original).parameters) != ["image", "load_images"]:
        raise InputError("ms-swift loads images in another way than expected", hint="install the pinned ms-swift 4.6.0")
    _originals.append(original)
    Template._load_image = staticmethod(_load_image)


_originals: list[Callable[[Any, bool], Any]] = []


def _load_image(image: Any, load_images: bool) -> Any:
    """Takes the place of ms-swift's `Template._load_image`: our names become RGB images, the rest goes its way."""
    name = image.get("path") if isinstance(image, dict) else image
    if isinstance(name, str) and name.startswith(SCHEME):
        return decode(read_image(name), STORED_PIXELS)
    return _originals[0](image, load_images)
