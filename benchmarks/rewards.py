"""Time the rewards of A²GRPO: `python -m benchmarks.rewards [--completions N]`. Goal: 10,000 in 5 s on one core.

Completions of all four tasks in groups of eight, thoughts of 10 to 120 words, one in ten without a well-formed answer,
scored as the trainer does: both reward functions, the shapes, distinct trigrams. CPU seconds, the best of three runs.
"""

from __future__ import annotations

import argparse
import json
import random
import sys
import time
from typing import Any

from geozero.corpus.sample import Sample
from geozero.params import A2grpo
from geozero.tasks.boxes import Convention
from geozero.tasks.text import is_well_formed, thought, words
from geozero.training.grpo import rewards

GROUP, REPEAT, GOAL_SECONDS, GOAL_COMPLETIONS = 8, 3, 5.0, 10_000
SETTINGS = A2grpo(steps=1)
BOXES: Convention = "norm1000"
WORDS = """
    the image shows a large airport with two long runways and several planes parked near the terminal while roads
    lead to green fields in the north east where small buildings stand close to a river under thin white clouds
""".split()  # noqa: SIM905
REFERENCES = 5


def sample_of(number: int, rng: random.Random) -> Sample:
    """One of the four tasks in turn."""
    task = ("scene_cls", "vqa", "caption", "grounding")[number % 4]
    common: dict[str, Any] = {
        "id": f"s{number}",
        "task": task,
        "source": "bench",
        "split": "train",
        "image_id": f"i{number}",
        "image_key": f"k{number}",
        "question": "What is there?",
        "width": 800,
        "height": 800,
    }
    if task == "grounding":
        x, y = rng.randrange(600), rng.randrange(600)
        box = (float(x), float(y), float(x + 20 + rng.randrange(150)), float(y + 20 + rng.randrange(150)))
        return Sample(**common, answer=str(list(box)), box=box)
    if task == "caption":
        texts = tuple(" ".join(rng.choices(WORDS, k=rng.randrange(8, 20))) for _ in range(REFERENCES))
        return Sample(**common, answer=texts[0], references=texts)
    return Sample(
        **common, answer=rng.choice(("airport", "river")) if task == "scene_cls" else rng.choice(("yes", "no"))
    )


def completion_of(sample: Sample, rng: random.Random) -> str:
    """A thought and an answer that is right half the time."""
    thought = " ".join(rng.choices(WORDS, k=rng.randrange(10, 120)))
    if sample.box is not None:
        answer = str([round(v / 800 * 1000) + rng.randrange(-30, 30) for v in sample.box])
    elif sample.task == "caption":
        answer = " ".join(rng.choices(WORDS, k=rng.randrange(6, 20)))
    else:
        answer = sample.answer if rng.random() < 0.5 else "something else"
    return f"{thought} {answer}" if rng.random() < 0.1 else f"{thought} <answer>{answer}</answer>"


def measure(n: int) -> float:
    """CPU seconds for `n` completions, the quickest of three runs."""
    rng = random.Random(7)
    samples = [sample_of(i, rng) for i in range(n // GROUP)]
    completions = [completion_of(s, rng) for s in samples for _ in range(GROUP)]
    columns = [s.to_json() for s in samples for _ in range(GROUP)]
    best = float("inf")
    for _ in range(REPEAT):
        rewards._answer_rewards.cache_clear()
        start = time.process_time()
        rewards.answer_rewards(completions, columns, BOXES)
        rewards.thinking_rewards(completions, columns, SETTINGS, BOXES)
        for completion in completions:
            is_well_formed(completion), len(words(thought(completion)))
        rewards.distinct(completions)
        best = min(best, time.process_time() - start)
    return best


def main() -> int:
    """Print one line of JSON; 1 where the goal is missed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--completions", type=int, default=GOAL_COMPLETIONS)
    n = parser.parse_args().completions
    seconds = measure(n)
    reached = seconds / n * GOAL_COMPLETIONS <= GOAL_SECONDS
    print(json.dumps({"completions": n, "cpu_seconds": round(seconds, 3), "goal": GOAL_SECONDS, "reached": reached}))
    return 0 if reached else 1


if __name__ == "__main__":
    sys.exit(main())
