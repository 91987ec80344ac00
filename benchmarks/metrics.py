"""Time our metrics beside the published rules on public peers: `python -m benchmarks.metrics [--captions N] …`.

The peers are nltk's `corpus_bleu` and `meteor_score`, the package rouge and pycocoevalcap's `Cider` (the last only
where it is installed, it is no dependency), called once a metric as the published script calls them; boxes, VQA and
classes have no library, so their peer is the plain loop that the published rules describe. Values are compared, too.
Times are CPU seconds of one core (everything here runs on one), so that a busy machine does not blur them.
"""

from __future__ import annotations

import argparse
import gc
import json
import random
import re
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from geozero.corpus.sample import TaskName
from geozero.evaluation.statistics import intervals
from geozero.metrics.records import parse_records
from geozero.tasks import get
from geozero.tasks.boxes import smart_resize

GOLDEN = Path(__file__).parents[1] / "tests" / "golden"
NLTK_DATA = Path(__file__).parents[1] / "tests" / "nltk_data"
REFERENCES = 5
REPEAT = 3  # calls of which the quickest counts, where a call is short

_PUNCTUATION, _SPACE = re.compile(r"[^\w\s]"), re.compile(r"\s+")
_BLOCK, _NUMBER = re.compile(r"<answer>(.*?)</answer>", re.DOTALL), re.compile(r"[-+]?\d*\.?\d+")

Rows = list[dict[str, Any]]


def timed(run: Callable[[], Any], repeat: int = 1) -> tuple[float, Any]:
    """CPU seconds and result of the quickest of some calls; without the collector, as `timeit` has it, which would
    look through all the records of the other comparisons, too."""
    best, result = float("inf"), None
    for _ in range(repeat):
        gc.collect()
        gc.disable()
        start = time.process_time()
        result = run()
        best = min(best, time.process_time() - start)
        gc.enable()
    return best, result


def plain(text: str) -> str:
    """The published normalisation, without any cache."""
    return _SPACE.sub(" ", _PUNCTUATION.sub("", text.strip().lower()))


def answer(text: str) -> str:
    """The published extraction by regular expression."""
    blocks = [block.strip() for block in _BLOCK.findall(text)]
    return next(filter(None, blocks), "") if blocks else text.strip()


def caption_rows(n: int, rng: random.Random) -> Rows:
    """Captions in the words of the golden records, five references each."""
    golden = json.loads((GOLDEN / "caption_records.json").read_text())
    sentences = [text for row in golden for text in row["label"] if plain(text)]
    return [
        {
            "raw_output": f"<answer>{rng.choice(sentences)}</answer>",
            "label": rng.sample(sentences, REFERENCES),
            "image_path": f"{i}.png",
        }
        for i in range(n)
    ]


def box_rows(n: int, rng: random.Random) -> Rows:
    """Boxes in images of a few sizes, predictions near the truth."""
    rows = []
    for i in range(n):
        width, height = rng.choice([(512, 512), (600, 600), (800, 800), (1024, 768)])
        x1, y1 = rng.randrange(width - 60), rng.randrange(height - 60)
        box = [x1, y1, x1 + rng.randint(8, 59), y1 + rng.randint(8, 59)]
        near = [v + rng.randint(-6, 6) for v in box]
        rows.append(
            {"raw_output": f"<answer>{near}</answer>", "label": str(box), "image_path": f"{i}.png"}
            | {"width": width, "height": height}
        )
    return rows


def closed_rows(n: int, rng: random.Random) -> Rows:
    """Closed answers with the noise of real ones."""
    words = ["yes", "no", "Yes.", "dense residential", "Airport", "3", "between 10 and 100", "rural", "an urban area"]
    return [
        {
            "raw_output": f"<answer>{rng.choice(words)}</answer>",
            "label": rng.choice(words),
            "image_path": f"{i // 4}.png",
        }
        for i in range(n)
    ]


def peer_captions(rows: Rows) -> dict[str, float]:
    """BLEU, ROUGE and, where installed, CIDEr of the published rules."""
    from nltk.translate.bleu_score import SmoothingFunction, corpus_bleu
    from rouge import Rouge

    hypotheses = [plain(answer(row["raw_output"])) for row in rows]
    references = [[plain(text) for text in row["label"]] for row in rows]
    tokens = [[text.split() for text in group] for group in references]
    result: dict[str, float] = {}
    for order in range(1, 5):
        weights = tuple(1 / order if k < order else 0 for k in range(4))
        result[f"BLEU-{order}"] = corpus_bleu(
            tokens, [h.split() for h in hypotheses], weights, SmoothingFunction().method1
        )
    try:
        from pycocoevalcap.cider.cider import Cider
    except ImportError:
        print("pycocoevalcap is not installed: the peer's time is without CIDEr")
    else:
        result["CIDEr"] = Cider().compute_score(
            dict(enumerate(references)), {i: [h] for i, h in enumerate(hypotheses)}
        )[0]
    rouge, best = Rouge(), []
    for hypothesis, group in zip(hypotheses, references, strict=True):
        scores = [rouge.get_scores(hypothesis, text)[0] for text in group]
        best.append([max(s[name]["f"] for s in scores) for name in ("rouge-1", "rouge-l")])
    result["ROUGE-1"], result["ROUGE-L"] = np.mean(best, axis=0).tolist()
    return result


def peer_meteor(rows: Rows) -> dict[str, float]:
    """nltk's METEOR, best reference a record."""
    from nltk.translate.meteor_score import meteor_score

    values = []
    for row in rows:
        hypothesis = plain(answer(row["raw_output"])).split()
        values.append(max(meteor_score([plain(text).split()], hypothesis) for text in row["label"]))
    return {"METEOR": sum(values) / len(values)}


def load_wordnet() -> None:
    """Load the tests' WordNet before the clock starts; either side would pay for it."""
    import nltk
    from nltk.corpus import wordnet

    nltk.data.path.insert(0, str(NLTK_DATA))
    wordnet.ensure_loaded()


def peer_boxes(rows: Rows) -> dict[str, float]:
    """The published rule for boxes, one record after the other."""
    hits = counted = 0
    for row in rows:
        truth, pred = (_peer_numbers(text) for text in (row["label"], answer(row["raw_output"])))
        width, height = row["width"], row["height"]
        if len(truth) != 4:
            continue
        counted += 1
        if len(pred) != 4:
            continue
        new_width, new_height = smart_resize(width, height)
        scales = (width / new_width, height / new_height) * 2
        sides = (width, height) * 2
        a = [t / s for t, s in zip(truth, sides, strict=True)]
        b = [round(p * f) / s for p, f, s in zip(pred, scales, sides, strict=True)]
        x1, y1, x2, y2 = max(a[0], b[0]), max(a[1], b[1]), min(a[2], b[2]), min(a[3], b[3])
        if x1 < x2 and y1 < y2:
            overlap = (x2 - x1) * (y2 - y1)
            union = (a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - overlap
            hits += overlap / union >= 0.5
    return {"precision_percent": hits / counted * 100}


def _peer_numbers(text: str) -> list[float]:
    start, end = text.find("["), text.rfind("]")
    return [float(number) for number in _NUMBER.findall(text[start : end + 1])] if start >= 0 and end >= 0 else []


def peer_vqa(rows: Rows) -> dict[str, float]:
    """Equality or substring, one record after the other."""
    hits = []
    for row in rows:
        a, b = plain(answer(row["raw_output"])), plain(row["label"])
        hits.append(a == b or a in b or b in a)
    return {"accuracy_percent": float(np.mean(hits)) * 100}


def show(name: str, n: int, ours: float, peer: float, values: dict[str, float], metrics: dict[str, Any]) -> None:
    """One plain line: times, ratio, and the largest difference of the values."""
    difference = max((abs(values[key] - metrics[key]) for key in values), default=0.0)
    print(f"{name}: n={n} ours={ours:.3f}s peer={peer:.3f}s ratio={peer / ours:.1f} max_difference={difference:.1e}")


def compare_closed(task: TaskName, rows: Rows, peer_of: Callable[[Rows], dict[str, float]]) -> None:
    """Both protocols on one list of boxes or closed answers, reading the records included."""
    # the headline's rules alone, as the peer: beside them stand boxes in the other conventions
    ours, scores = timed(lambda: get(task).official(parse_records(rows), headline_only=True), REPEAT)
    peer, values = timed(lambda: peer_of(rows), REPEAT)
    show(f"{task} official", len(rows), ours, peer, values, scores.metrics())
    ours, scores = timed(lambda: get(task).strict(parse_records(rows)), REPEAT)
    print(f"{task} strict: n={len(rows)} ours={ours:.3f}s")
    seconds, _ = timed(lambda: intervals(scores.statistics, scores.finish))
    print(f"{task} strict, 1000 bootstrap resamples: n={len(rows)} ours={seconds:.3f}s")


CLOSED: tuple[tuple[TaskName, Callable[[int, random.Random], Rows], Callable[[Rows], dict[str, float]]], ...] = (
    ("grounding", box_rows, peer_boxes),
    ("vqa", closed_rows, peer_vqa),
)


def main(arguments: list[str] | None = None) -> None:
    """Run every comparison once and print a line each."""
    parser = argparse.ArgumentParser(description="Time the metrics beside the published rules.")
    parser.add_argument("--captions", type=int, default=10_000)
    parser.add_argument("--records", type=int, default=100_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--skip-meteor", action="store_true", help="the peer's METEOR takes most of the time")
    chosen = parser.parse_args(arguments)
    rng = random.Random(chosen.seed)

    rows = caption_rows(chosen.captions, rng)
    ours, scores = timed(lambda: get("caption").official(parse_records(rows), headline_only=True))
    peer, values = timed(lambda: peer_captions(rows))
    show("captions without METEOR", len(rows), ours, peer, values, scores.metrics())
    if not chosen.skip_meteor:
        load_wordnet()
        ours, scores = timed(lambda: get("caption").official(parse_records(rows)))
        seconds, meteor = timed(lambda: peer_meteor(rows))
        show("captions with METEOR", len(rows), ours, peer + seconds, values | meteor, scores.metrics())
    print(f"captions strict: n={len(rows)} ours={timed(lambda: get('caption').strict(parse_records(rows)))[0]:.3f}s")

    for task, make, peer_of in CLOSED:
        compare_closed(task, make(chosen.records, rng), peer_of)


if __name__ == "__main__":
    main()
