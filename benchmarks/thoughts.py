"""What of a thought goes with a right answer: `python -m benchmarks.thoughts RUN [RUN …] [--from 1 --to 25]`.

RUN is a directory `a2grpo-…`, or an arm's of the ablation; read is what RL wrote down of its completions. Within each
group whose answer rewards differ, the correlation between R_a and a feature of the thought; then the mean over groups
with its 95 % interval, by the kind of question. A thinking score can only help answers where something that it rewards
goes with them.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections import defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from geozero.corpus.store import Corpus
from geozero.tasks.text import thought, words
from geozero.training.grpo import objective
from geozero.training.grpo.thinking_scores import jaccard, ngrams
from geozero.training.stage_spec import STAGE

LONG = 4  # letters: shorter words of a question name nothing


def main() -> int:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", type=Path, nargs="+")
    parser.add_argument("--from", type=int, default=1, dest="first", help="step")
    parser.add_argument("--to", type=int, default=10**9, dest="last", help="step")
    given = parser.parse_args()
    found: dict[tuple[str, str], list[float]] = defaultdict(list)
    seen: dict[str, list[bool]] = defaultdict(list)
    for run in given.runs:
        stage = json.loads((run / STAGE).read_text())
        settings = stage["settings"]
        kinds = {sample.question: sample.question_type or sample.task for sample in Corpus(stage["corpus"]).samples()}
        for question, completions, rewards in groups(run, settings["group_size"], given.first, given.last):
            kind = kinds[question]
            seen[kind].append(max(rewards) > min(rewards))
            if max(rewards) > min(rewards):
                for name, values in features(question, completions, settings).items():
                    if max(values) > min(values):
                        found[kind, name].append(float(np.corrcoef(values, rewards)[0, 1]))
    for kind, mixed in sorted(seen.items()):
        print(f"{kind}\tgroups\t{len(mixed)}\twith a signal\t{sum(mixed) / len(mixed):.2f}")
    for (kind, name), values in sorted(found.items()):
        half = 1.96 * float(np.std(values)) / len(values) ** 0.5
        print(f"{kind}\t{name}\t{np.mean(values):+.3f} ± {half:.3f}\tn = {len(values)}")
    return 0


def groups(run: Path, size: int, first: int, last: int) -> Iterator[tuple[str, list[str], list[float]]]:
    """(question, completions, answer rewards) of every group that was sampled in these steps."""
    for line in (run / "completions.jsonl").open():
        row: dict[str, list[Any]] = json.loads(line)
        if not first <= int(row["step"][0]) <= last:
            continue
        for start in range(0, len(row["prompt"]), size):
            question = row["prompt"][start].rpartition("<image>")[2].partition("<|im_end|>")[0]
            part = slice(start, start + size)
            yield question.strip(), row["completion"][part], [float(value) for value in row["AnswerReward"][part]]


def features(question: str, completions: Sequence[str], settings: dict[str, Any]) -> dict[str, list[float]]:
    """By name, one value a completion: words, S_t, likeness to the group's other thoughts, words of the question."""
    thoughts = [thought(text) for text in completions]
    grams = [frozenset(ngrams(words(text))) for text in thoughts]
    asked = {_stem(word) for word in words(question.splitlines()[0]) if len(word) >= LONG}
    return {
        "words": [float(len(words(text))) for text in thoughts],
        "S_t": objective.thinking_scores(
            thoughts,
            settings["thought_words"],
            settings["thought_words_max"],
            form=settings.get("thinking_score", "product"),
            question=question,
        ),
        "like the others": [
            float(np.mean([jaccard(one, other) for j, other in enumerate(grams) if j != i]))
            for i, one in enumerate(grams)
        ],
        "names what is asked": [
            len(asked & {_stem(word) for word in words(text)}) / len(asked or "-") for text in thoughts
        ],
    }


def _stem(word: str) -> str:
    return word.rstrip("s")


if __name__ == "__main__":
    sys.exit(main())
