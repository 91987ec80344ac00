"""The answer store: every sampled answer once, chunk by chunk, resumable and fillable by many workers at once.

Layout: `STORE/<fingerprint>/answers-<shard>-<unique>.parquet` and `_fingerprint.json`; `STORE/_current.json` names
the fingerprint of each fold that the last sampling used. Readers of Parquet pass over names that begin with `_`, so
each directory, and the store as a whole, is one table to pandas, DuckDB or Spark. A fingerprint covers the model's
bytes, the form of the prompt, the sampling parameters and the limits of the image, but neither how many answers
nor which samples: both can grow. An answer's key is (id, rollout); its `prompt_hash` must be the sample's of today,
else it counts as not there.
"""

from __future__ import annotations

import dataclasses
import json
import time
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from geozero import tasks
from geozero.common.atomic import replacing, write_json
from geozero.common.errors import InputError
from geozero.corpus.sample import Sample, digest
from geozero.difficulty.answer_files import (
    ANSWER_SCHEMA,
    FAILED,
    FINISH,
    Bools,
    Ints,
    Reader,
    answer_files,
    chunks,
    rollouts_stored,
)
from geozero.tasks.boxes import CONVENTIONS, Convention
from geozero.tasks.numbers import says_none
from geozero.tasks.text import closed_reading, read_answer

CURRENT = "_current.json"
FINGERPRINT = "_fingerprint.json"
ABANDONED_SECONDS = 3600.0  # a chunk is written in well under a second
MOST_ROLLOUTS = 1024  # that a sample may have
LONGEST_KEY = 64  # characters of a fingerprint


@dataclass(frozen=True, slots=True)
class Fingerprint:
    """What answers depend on; equal fingerprints share a directory."""

    model: str  # content hash of weights, configuration and tokenizer
    prompt: str  # hash of the chat form around a question
    temperature: float
    top_p: float
    max_tokens: int
    seed: int
    max_pixels: int
    max_length: int
    boxes: str  # the model's coordinate convention: it decides rewards
    min_pixels: int | None = None  # None: four tokens, as in all stores before it could be another
    server_model: str | None = None  # what a server calls the model that was taken for `model`; None: it is that one

    @property
    def values(self) -> dict[str, Any]:
        """What is set, by name."""
        return {name: value for name, value in dataclasses.asdict(self).items() if value is not None}

    @property
    def key(self) -> str:
        """Name of the directory."""
        return digest(json.dumps(self.values, sort_keys=True).encode())[:20]


def prompt_form() -> str:
    """Hash of what stands around a question in direct mode."""
    probe = Sample("", "", "", "train", "", "", "{question}", "")
    return digest(json.dumps(tasks.messages(probe, "direct")).encode())


def prompt_hash(sample: Sample) -> str:
    """Hash of what a model reads of this sample in direct mode: its turns and its image."""
    return digest(json.dumps([tasks.messages(sample, "direct"), sample.image_id]).encode())


class AnswerWriter:
    """Writes chunks into the directory of one fingerprint; each chunk appears whole or not at all."""

    def __init__(self, store: Path, fingerprint: Fingerprint, shard: str = "0of1") -> None:
        self.path, self.shard, self.fingerprint = store / fingerprint.key, shard, fingerprint
        self.path.mkdir(parents=True, exist_ok=True)
        for left in self.path.glob(".answers-*.part-*"):  # of a worker that was killed while it wrote
            if time.time() - left.stat().st_mtime > ABANDONED_SECONDS:
                left.unlink(missing_ok=True)

    def write(self, rows: Sequence[dict[str, Any]]) -> Path:
        """Write one chunk of rows in the columns of `ANSWER_SCHEMA`."""
        name = f"answers-{self.shard}-{uuid.uuid4().hex[:16]}.parquet"
        with replacing(self.path / name) as temporary:
            pq.write_table(pa.Table.from_pylist(list(rows), schema=ANSWER_SCHEMA), temporary, compression="zstd")
        return self.path / name


@dataclass(frozen=True, slots=True)
class Answers:
    """Answers of N samples as arrays [N, K]; where `present` is False the others say nothing.

    Attributes:
        present: whether the answer is stored.
        success: 1, 0, or −1 where unknown.
        reward: R_a.
        finish: index into `FINISH`.
        meaning: hash of what the answer says (`meaning`); equal ones agree; 0 for no answer.
    """

    present: npt.NDArray[np.bool_]
    success: npt.NDArray[np.int8]
    reward: npt.NDArray[np.float32]
    finish: npt.NDArray[np.int8]
    meaning: npt.NDArray[np.int64]

    @classmethod
    def empty(cls, n: int, k: int) -> Answers:
        return cls(
            np.zeros((n, k), bool),
            np.full((n, k), -1, np.int8),
            np.zeros((n, k), np.float32),
            np.zeros((n, k), np.int8),
            np.zeros((n, k), np.int64),
        )

    @property
    def asked(self) -> npt.NDArray[np.bool_]:
        """Answers that a model really gave."""
        given: npt.NDArray[np.bool_] = self.present & (self.finish != FAILED)
        return given

    def alike(self, closed: npt.NDArray[np.bool_]) -> npt.NDArray[np.bool_]:
        """Whether the first 1 … K answers of a closed question all agree [N, K]; False for other questions [N]."""
        same = (self.meaning == self.meaning[:, :1]) & (self.meaning != 0) & self.asked
        found: npt.NDArray[np.bool_] = np.logical_and.accumulate(same, axis=1) & closed[:, None]
        return found

    def distinct(self) -> npt.NDArray[np.int64]:
        """How many different answers each sample has [N]; no answer counts as one of its own kind."""
        found = np.sort(np.where(self.asked, self.meaning, np.int64(np.iinfo(np.int64).min)), axis=1)
        changes = (found[:, 1:] != found[:, :-1]).sum(axis=1) + 1
        result: npt.NDArray[np.int64] = changes - (~self.asked).any(axis=1)
        return result


def answered(
    directory: Path,
    ids: pa.Array,
    prompts: pa.Array,
    k: int,
    members: Bools | None = None,
    *,
    failed: bool = True,
) -> Bools:
    """Which of the answers 0 … k−1 of these samples a directory holds [N, k]. Arguments as in `load`.

    Args:
        failed: count those that failed, too.
    """
    reader = Reader(directory, ids, prompts, k, members)
    for _ in reader.rows([]):
        pass
    return reader.present if failed else reader.given


def load(
    directory: Path,
    ids: pa.Array,
    prompts: pa.Array | None,
    k: int,
    members: Bools | None = None,
    into: Answers | None = None,
    scores: Scores | None = None,
) -> Answers:
    """The answers of these samples; of a repeated (id, rollout) one counts (`answer_files`), memory does not grow with
    the texts.

    Args:
        directory: one fingerprint's directory.
        ids: the samples' ids [N].
        prompts: today's prompt hashes [N]; answers to other prompts are passed over. None takes all.
        k: answers a sample; higher rollouts are passed over.
        members: which samples may have their answers here [N] (cross-fitting); None: all.
        into: arrays to fill further; None starts anew.
        scores: how the answers are scored today; None: rewards and successes as they were when it was sampled.
    """
    answers = Answers.empty(len(ids), k) if into is None else into
    columns = ["text", "success", "reward", "score_key"]
    for rows, rollouts, table, finish in Reader(directory, ids, prompts, k, members).rows(columns):
        answers.present[rows, rollouts] = True
        answers.finish[rows, rollouts] = finish
        answers.meaning[rows, rollouts] = np.where(finish == FAILED, 0, _meanings(table["text"]))
        if scores is None:
            answers.reward[rows, rollouts] = np.asarray(table["reward"])
            answers.success[rows, rollouts] = np.asarray(pc.fill_null(table["success"].cast(pa.int8()), -1))
        else:
            rewards = scores.rewards(rows, rollouts, table, finish)
            answers.reward[rows, rollouts] = rewards
            answers.success[rows, rollouts] = np.where(finish == FAILED, -1, scores.successes(rows, rewards))
    return answers


class Scores(Protocol):
    """How answers are scored today."""

    def rewards(
        self, rows: Ints, rollouts: Ints, table: pa.Table, finish: npt.NDArray[np.int8]
    ) -> npt.NDArray[np.float64]:
        """Rewards of these rows of a store; anything for what failed."""
        ...

    def successes(self, rows: Ints, rewards: npt.NDArray[np.float64]) -> npt.NDArray[np.int8]:
        """1, 0, or −1 where unknown."""
        ...


def pass_rates(store: Path) -> pa.Table:
    """Per sample over all that is stored under the current fingerprints: id, n (answers given), n_success, p,
    mean_reward, distinct. For captions `n_success` and `p` are null: their threshold is known at selection only.
    Rewards and successes are those of when it was sampled; `select` writes today's into `pass_rates.parquet`.
    """
    tables = []
    for key in current(store)["fingerprints"]:
        directory = store / str(key)
        seen = pa.array([], pa.string())
        for table in chunks(directory, ["id"]):
            seen = pc.unique(pa.chunked_array([seen, *table["id"].chunks]))
        answers = load(directory, seen, None, max(1, rollouts_stored(directory)))
        tables.append(summarise(answers, seen))
    return pa.concat_tables(tables)


def summarise(answers: Answers, ids: pa.Array) -> pa.Table:
    """The columns of `pass_rates` for these answers."""
    asked = answers.asked
    n = asked.sum(axis=1)
    known = (asked & (answers.success >= 0)).sum(axis=1)
    right = (asked & (answers.success == 1)).sum(axis=1)
    open_ended = (known < n) | (n == 0)
    with np.errstate(invalid="ignore", divide="ignore"):
        rate, mean = right / n, np.where(asked, answers.reward, 0).sum(axis=1, dtype=np.float64) / n
    return pa.table(
        {
            "id": ids,
            "n": pa.array(n, pa.int32()),
            "n_success": pa.array(right, pa.int32(), mask=open_ended),
            "p": pa.array(rate, pa.float64(), mask=open_ended),
            "mean_reward": pa.array(mean, pa.float64(), mask=n == 0),
            "distinct": pa.array(answers.distinct(), pa.int32()),
        }
    )


def first_answers(directory: Path, ids: pa.Array) -> dict[str, str]:
    """What the first answer of each of these few samples says."""
    found: dict[str, str] = {}
    for name, rows in answers_to(directory, ids, MOST_ROLLOUTS).items():
        text = next((row["text"] for row in rows if row["given"]), "")
        found[name] = read_answer(text, "direct") or ""
    return found


def answers_to(directory: Path, ids: pa.Array, k: int) -> dict[str, list[dict[str, Any]]]:
    """Text, finish reason and whether the model gave it (`given`), of every answer of these few samples, in the order
    of the rollouts."""
    found: dict[str, list[tuple[int, dict[str, Any]]]] = {}
    for rows, rollouts, table, finish in Reader(directory, ids, None, k).rows(["text"]):
        values = zip(rows.tolist(), rollouts.tolist(), table.to_pylist(), (finish != FAILED).tolist(), strict=True)
        for row, rollout, value, is_given in values:
            kept = {"text": value["text"], "finish_reason": value["finish_reason"], "given": is_given}
            found.setdefault(ids[row].as_py(), []).append((rollout, kept))
    latest = {name: dict(values) for name, values in found.items()}
    return {name: [values[rollout] for rollout in sorted(values)] for name, values in latest.items()}


def is_current(store: Path, fingerprints: Sequence[Fingerprint], k: int, adaptive: str | None) -> bool:
    """Whether `set_current` with these arguments would change nothing."""
    if not (store / CURRENT).is_file():
        return False
    found = current(store)
    return [f.key for f in fingerprints] == found["fingerprints"] and (k, adaptive) == (
        found["k"],
        found.get("adaptive"),
    )


def set_current(store: Path, fingerprints: Sequence[Fingerprint], k: int, adaptive: str | None = None) -> None:
    """Say that these directories, one a fold, hold the answers of the last sampling, and how many a sample has; and in
    each what it stands for.

    Args:
        adaptive: key of the stopping rule by which a sample may have fewer than `k`; None: all have them.
    """
    value: dict[str, Any] = {"fingerprints": [f.key for f in fingerprints], "k": k}
    if adaptive is not None:
        value["adaptive"] = adaptive
    for fingerprint in fingerprints:
        path = store / fingerprint.key / FINGERPRINT
        if not path.is_file():
            path.parent.mkdir(parents=True, exist_ok=True)
            write_json(path, fingerprint.values)
    if not (store / CURRENT).is_file() or current(store) != value:
        store.mkdir(parents=True, exist_ok=True)
        write_json(store / CURRENT, value)


def current(store: Path) -> dict[str, Any]:
    """What `set_current` wrote.

    Raises:
        InputError: no store, or not readable.
    """
    path = store / CURRENT
    try:
        value: dict[str, Any] = json.loads(path.read_text())
        fingerprints, k = value["fingerprints"], value["k"]
    except OSError:
        raise InputError("no answer store here", str(store), "run `geozero sample` first") from None
    except (ValueError, KeyError, TypeError, RecursionError):
        raise InputError("unreadable answer store", str(path), "run `geozero sample` again") from None
    keys = fingerprints if isinstance(fingerprints, list) and all(map(_is_key, fingerprints)) else []
    if not keys or not isinstance(k, int) or k < 1:
        raise InputError("unreadable answer store", str(path), "run `geozero sample` again")
    return value


def _is_key(name: Any) -> bool:
    """Whether this names a directory of a store, and none elsewhere."""
    return isinstance(name, str) and name.isascii() and name.isalnum() and len(name) <= LONGEST_KEY


def convention(directory: Path) -> Convention:
    """What the coordinates in a directory's answers mean.

    Raises:
        InputError: it does not say.
    """
    path = directory / FINGERPRINT
    try:
        found = json.loads(path.read_text())["boxes"]
    except (OSError, ValueError, KeyError, TypeError):
        raise InputError("unreadable fingerprint", str(path), "run `geozero sample` again") from None
    return next(c for c in CONVENTIONS if c == found)


def _meanings(texts: pa.ChunkedArray) -> Ints:
    """A number for what each text says in direct mode, equal where `tasks.text` finds it equal; 0 for nothing."""
    encoded = texts.combine_chunks().dictionary_encode()
    said = (meaning(read_answer(text, "direct")) for text in encoded.dictionary.to_pylist())
    numbers = np.fromiter(said, np.int64, len(encoded.dictionary))
    found: Ints = numbers[np.asarray(encoded.indices)]
    return found


def meaning(answer: str | None) -> int:
    """A number for an answer, the same in this process for all that `tasks.text` finds equal (an answer without
    its unit, which equals several, stands for itself); 0 for none."""
    text = closed_reading(answer or "")
    text = "0" if says_none(text) else text
    return hash(text) if text else 0


__all__ = ["ANSWER_SCHEMA", "FINISH", "answer_files", "rollouts_stored"]
