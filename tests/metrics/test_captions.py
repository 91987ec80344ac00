"""Caption metrics beside slow and plain ones: nltk, rouge, sacrebleu, and CIDEr written out by its formula."""

from __future__ import annotations

import json
import math
import random
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from paths import NLTK_DATA
from typer.testing import CliRunner

from geozero.cli.app import app
from geozero.metrics.captions import (
    MAX_STEPS,
    bleu,
    bleu_columns,
    meteor,
    ngram_statistics,
    rouge,
    rouge_l_beta,
)
from geozero.tasks.caption import texts_of

WORDS = ["a", "the", "of", "many", "boats", "boat", "docked", "harbor", "harbour", "large", "big"]
WORDS += ["building", "buildings", "is", "are", "in", "near", "river"]


def corpus(n: int, seed: int, blanks: bool = True) -> tuple[list[list[str]], list[list[list[str]]]]:
    rng = random.Random(seed)

    def sentence(low: int) -> list[str]:
        return [rng.choice(WORDS) for _ in range(rng.randint(low, 12))]

    low = 0 if blanks else 1
    references = [[sentence(low) for _ in range(rng.randint(1, 4))] for _ in range(n)]
    return [sentence(low) for _ in range(n)], [[*group, sentence(1)] for group in references]


def grams(tokens: list[str], order: int) -> Counter[tuple[str, ...]]:
    return Counter(tuple(tokens[i : i + order]) for i in range(len(tokens) - order + 1))


def plain_cider(hypotheses: list[list[str]], references: list[list[list[str]]], clipped: bool) -> list[float]:
    """CIDEr by its formula, one record after the other."""
    n = len(hypotheses)
    frequency: Counter[tuple[str, ...]] = Counter()
    for group in references:
        frequency.update({g for reference in group for k in range(1, 5) for g in grams(reference, k)})

    def vector(tokens: list[str], order: int) -> dict[tuple[str, ...], float]:
        return {g: c * (math.log(n) - math.log(max(1, frequency[g]))) for g, c in grams(tokens, order).items()}

    scores = []
    for hypothesis, group in zip(hypotheses, references, strict=True):
        total = 0.0
        for reference in group:
            difference = max(0, len(hypothesis) - 1) - max(0, len(reference) - 1)
            penalty = math.exp(-(difference**2) / (2 * 6.0**2)) if clipped else 1.0
            for order in range(1, 5):
                h, r = vector(hypothesis, order), vector(reference, order)
                norm = math.sqrt(sum(v * v for v in h.values())) * math.sqrt(sum(v * v for v in r.values()))
                dot = sum((min(h[g], r[g]) if clipped else h[g]) * r[g] for g in h.keys() & r.keys())
                total += penalty * dot / norm if norm else 0.0
        scores.append(10 * total / 4 / len(group))
    return scores


@pytest.mark.parametrize("seed", range(3))
def test_cider_is_its_formula(seed: int) -> None:
    hypotheses, references = corpus(30, seed)
    statistics = ngram_statistics(hypotheses, references)
    assert statistics.cider_d == pytest.approx(plain_cider(hypotheses, references, True), abs=1e-12)
    assert statistics.cider == pytest.approx(plain_cider(hypotheses, references, False), abs=1e-12)


@pytest.mark.parametrize("n", [1, 2, 25])
def test_smoothed_bleu_is_nltks(n: int) -> None:
    from nltk.translate.bleu_score import SmoothingFunction, corpus_bleu

    for seed in range(5):
        hypotheses, references = corpus(n, seed)
        ours = bleu(bleu_columns(ngram_statistics(hypotheses, references)).sum(axis=0), True)
        for order in range(1, 5):
            weights = tuple(1 / order if k < order else 0 for k in range(4))
            theirs = corpus_bleu(references, hypotheses, weights, SmoothingFunction().method1)
            assert float(ours[order - 1]) == pytest.approx(theirs, abs=1e-12)


@pytest.mark.parametrize("n", [1, 2, 25])
def test_plain_bleu_is_sacrebleus(n: int) -> None:
    peer = pytest.importorskip("sacrebleu.metrics").BLEU
    for seed in range(5):
        hypotheses, references = corpus(n, seed, blanks=False)
        ours = bleu(bleu_columns(ngram_statistics(hypotheses, references)).sum(axis=0), False)
        width = max(map(len, references))
        columns = [[" ".join(group[k]) if k < len(group) else None for group in references] for k in range(width)]
        for order in range(1, 5):
            metric = peer(tokenize="none", smooth_method="none", max_ngram_order=order)
            theirs = metric.corpus_score([" ".join(h) for h in hypotheses], columns).score / 100
            assert float(ours[order - 1]) == pytest.approx(theirs, abs=1e-12)


def test_bleu_of_many_sums_at_once_is_bleu_of_each() -> None:
    columns = bleu_columns(ngram_statistics(*corpus(12, 0)))
    sums = np.stack([columns[:6].sum(axis=0), columns[6:].sum(axis=0)])
    for together, first, second in zip(*(bleu(part, True) for part in (sums, sums[0], sums[1])), strict=True):
        assert together.tolist() == [float(first), float(second)]


def test_rouge_is_the_packages() -> None:
    from rouge import Rouge

    rng, package = random.Random(0), Rouge()
    for _ in range(400):
        hypothesis, reference = ([rng.choice(WORDS) for _ in range(rng.randint(1, 15))] for _ in range(2))
        theirs = package.get_scores(" ".join(hypothesis), " ".join(reference))[0]
        assert rouge(hypothesis, reference) == (theirs["rouge-1"]["f"], theirs["rouge-l"]["f"])


def test_rouge_gives_up_where_the_packages_recursion_ends() -> None:
    assert rouge(["x"] * MAX_STEPS, ["y"]) == (0.0, 0.0)
    assert rouge(["x"] * (MAX_STEPS + 1), ["y"]) is None
    assert rouge([f"x{i}" for i in range(3000)], ["y"]) is None
    # The path ends with the reference, so a long hypothesis that ends in it is no trouble.
    assert rouge(["x"] * 3000 + ["y"], ["y"]) is not None


def test_rouge_l_beta_takes_precision_and_recall_from_different_references() -> None:
    # Precision 2/2 from the second, recall 1/1 from the first reference.
    assert rouge_l_beta(["a", "b"], [["a"], ["a", "b", "c", "d"]]) == pytest.approx(1.0)
    assert rouge_l_beta(["a"], [["a", "b"]]) == pytest.approx((1 + 1.44) * 0.5 / (0.5 + 1.44))
    assert rouge_l_beta([], [["a"]]) == 0.0


def test_meteor_is_nltks(monkeypatch: pytest.MonkeyPatch) -> None:
    import nltk
    from nltk.translate.meteor_score import meteor_score

    monkeypatch.setattr(nltk.data, "path", [str(NLTK_DATA), *nltk.data.path])
    hypotheses, references = corpus(60, 3)
    theirs = [meteor_score(group, text) for text, group in zip(hypotheses, references, strict=True)]
    assert meteor(hypotheses, references).tolist() == theirs


def test_texts_of_a_label() -> None:
    assert texts_of("one") == ["one"]
    assert texts_of(["one", None, 3, "two"]) == ["one", "two"]
    assert texts_of(None) == texts_of({"a": 1}) == []


def test_the_command_line_names_what_is_missing_and_prints_no_number_for_it(tmp_path: Path, no_wordnet: None) -> None:
    records = tmp_path / "records.json"
    records.write_text(json.dumps([{"raw_output": "a big house", "label": ["a big house"]}] * 3))
    words = [
        "evaluate",
        "--task",
        "caption",
        "--protocol",
        "official",
        "--records",
        records,
        "--out",
        tmp_path / "s.json",
    ]
    done = CliRunner().invoke(app, list(map(str, words)))
    assert done.exit_code == 0, done.output
    lines = dict(line.split("\t") for line in done.stdout.splitlines())
    assert "METEOR" not in lines and "WordNet" in lines["missing METEOR"] and lines["n"] == "3"
