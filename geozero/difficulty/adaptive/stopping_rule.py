"""When a sample needs no further answers: an optimal stopping rule with a bound on changed decisions (our choice).

What is decided is where a sample may go: Instruct (p ≥ easy), Hard (p ≤ hard) or neither, as all K answers would have
it. A sample's K answers are exchangeable, so if t of all K succeed, s successes among the first n have the
hypergeometric probability C(n,s)·C(K−n,t−s)/C(K,t). How often each t occurs is estimated, for each kind of question
(task, source, question type), from the pilot: a share of the samples, by stable hash, that always gets all K answers.
A kind with fewer than `LEAST_PILOT` pilot samples takes the frequencies of its source, or else of its task: the program
would exploit the chance in many small estimates, and change more decisions than it expects.
With it a dynamic program from n = K back to n = 1 stops where deciding now is no worse than an answer's price plus what
follows (Wald's sequential Bayes decision with finite horizon). The price is the highest at which

    expected share of changed decisions, over all samples ≤ `error`.

That bound is an expectation under the estimated frequencies, not a promise for each sample; `Rule.checked` tells what
came of it on pilot samples that the estimate did not see. Learnable taken for unsolved, or the other way round, changes
no decision, but costs the dynamic program a little.

Never stopped early: the pilot; captions (what succeeds is known only when all are there); closed questions whose
answers are all wrong and all alike (a suspect label is called one only by K answers); kinds that the pilot lacks.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from geozero import params
from geozero.common.errors import InputError
from geozero.corpus.sample import Sample, digest, stable_unit
from geozero.difficulty.adaptive.optimal_stopping import LEARNABLE, NEITHER, UNSOLVED, Table, decision, frequencies
from geozero.difficulty.answer_store import Answers

MOST_ANSWERS = 64  # the tables grow with K³
PARTS = 5  # of the pilot, for `Rule.checked`
BISECTIONS = 20
# Of an answer, in wrong decisions: where the bound is far, a doubtful sample is asked on all the same.
HIGHEST_PRICE = 0.1
LEAST_PILOT = 200  # samples of the pilot that a kind must have for frequencies of its own; smaller ones are pooled
LEAST_FAILURES = 2  # of a sample's requests, after which it is given up if most of them failed

Bools = npt.NDArray[np.bool_]
Ints = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Rule:
    """A frozen stopping rule: every worker and the selection use the same one.

    Attributes:
        k: answers of a sample that is never decided early.
        easy, hard: the thresholds whose decisions it foresees.
        settings: as it was asked for.
        stops: kind → the (n, s) at which a sample of it is decided.
        frequencies: kind → estimated share of samples with t = 0 … k successes.
        checked: pilot samples, and the shares of answers saved and of decisions changed on them, each pilot sample
            judged by a rule that was estimated without it.
    """

    k: int
    easy: float
    hard: float
    settings: params.Adaptive
    stops: Mapping[str, frozenset[tuple[int, int]]]
    frequencies: Mapping[str, tuple[float, ...]]
    checked: Mapping[str, float]

    @property
    def key(self) -> str:
        return rule_key(self.k, self.easy, self.hard, self.settings)

    def decided(self, kind: str, n: int, successes: int, alike: bool) -> bool:
        """Whether a sample needs no further answer.

        Args:
            kind: `kind_of` the sample.
            n: answers that it has.
            successes: of these.
            alike: whether a closed question's answers so far all agree.
        """
        if n >= self.k:
            return True
        if successes == 0 and alike:
            return False
        found = next((self.stops[name] for name in _levels(kind) if name in self.stops), frozenset())
        return (n, successes) in found


def kind_of(sample: Sample) -> str:
    """What samples are alike in difficulty by: task, source, question type."""
    return "/".join((sample.task, sample.source, sample.question_type or ""))


def in_pilot(sample_id: str, share: float) -> bool:
    """Whether a sample always gets all its answers; by stable hash."""
    return stable_unit(sample_id, "pilot") < share


def rule_key(k: int, easy: float, hard: float, settings: params.Adaptive) -> str:
    """Names the rule that these settings ask for."""
    return digest(json.dumps([k, easy, hard, settings.model_dump()], sort_keys=True).encode())[:12]


def fit(
    kinds: Sequence[str],
    successes: Bools,
    alike: Bools,
    everyone: Mapping[str, int],
    k: int,
    thresholds: params.Select,
    settings: params.Adaptive,
) -> Rule:
    """Estimate the frequencies on the pilot and find the rule that keeps the bound with the fewest answers.

    Args:
        kinds: each pilot sample's kind [P]; captions left out.
        successes: which of its answers succeed, in their order [P, K].
        alike: whether the first 1 … K answers of a closed question all agree [P, K].
        everyone: kind → how many samples there are in all, captions and pilot included.
        k: K.
        thresholds: whose `easy` and `hard` decide.
        settings: bound, least answers and pilot share.

    Raises:
        InputError: K is too large for the tables.
    """
    if k > MOST_ANSWERS:
        raise InputError(f"adaptive sampling takes at most {MOST_ANSWERS} answers", "sampling.k", "or switch it off")
    names, right, same = np.array(kinds, str), successes.reshape(-1, k), alike.reshape(-1, k)
    rule = _fit(names, right.sum(axis=1), everyone, k, thresholds, settings)
    part = np.arange(len(names)) % PARTS
    used, changed = np.zeros(len(names)), np.zeros(len(names))
    for out in range(PARTS):
        left = part == out
        if not left.any() or left.all():
            continue
        other = _fit(names[~left], right[~left].sum(axis=1), everyone, k, thresholds, settings)
        used[left], changed[left] = replay(other, names[left].tolist(), right[left], same[left])[:2]
    shares = {"n": len(names), "saved": 1 - float(used.mean()) / k, "changed": float(changed.mean())}
    return dataclasses.replace(rule, checked={name: round(v, 6) for name, v in shares.items()} if len(names) else {})


def replay(rule: Rule, kinds: Sequence[str], right: Bools, alike: Bools) -> tuple[Ints, Bools, Bools]:
    """What the rule would have done to fully sampled samples.

    Returns:
        Answers used [P], whether the decision changed [P], whether the finer one did (learnable and unsolved).
    """
    used, changed = np.full(len(kinds), rule.k, np.int64), np.zeros(len(kinds), bool)
    finer = np.zeros(len(kinds), bool)
    sums = right.cumsum(axis=1)
    for row, kind in enumerate(kinds):
        for n in range(rule.settings.first, rule.k):
            s = int(sums[row, n - 1])
            if not rule.decided(kind, n, s, bool(alike[row, n - 1])):
                continue
            final = int(sums[row, -1])
            now, then = decision(s, n, rule.easy, rule.hard), decision(final, rule.k, rule.easy, rule.hard)
            if final == 0 and alike[row, -1]:
                then = NEITHER  # a suspect
            used[row], finer[row] = n, now != then
            changed[row] = now != then and {now, then} != {LEARNABLE, UNSOLVED}
            break
    return used, changed, finer


def never(thresholds: params.Select) -> Rule:
    """The rule that stops nowhere."""
    return Rule(MOST_ANSWERS, thresholds.easy, thresholds.hard, params.Adaptive(), {}, {}, {})


def decided(rules: Sequence[Rule], folds: Ints, kinds: npt.NDArray[Any], answers: Answers, closed: Bools) -> Bools:
    """Which samples need no further answer [N]: their fold's rule says so, or most of their requests fail.

    Args:
        rules: one a fold.
        folds: of each sample [N].
        kinds: of each sample [N].
        answers: what is stored.
        closed: which questions are closed [N].
    """
    n, right = answers.present.sum(axis=1), ((answers.success == 1) & answers.asked).sum(axis=1)
    given = answers.asked.sum(axis=1)
    alike = answers.alike(closed)
    # the first n answers are there, without a gap
    whole = answers.present.cumsum(axis=1)[np.arange(len(n)), np.maximum(n, 1) - 1] == n
    done = np.array([gives_up(a, b) for a, b in zip(given.tolist(), (n - given).tolist(), strict=True)], bool)
    for row in np.flatnonzero(~done & whole & (n > 0)).tolist():
        rule, count = rules[folds[row]], int(n[row])
        done[row] = count >= rule.k or (
            given[row] > 0
            and rule.decided(
                str(kinds[row]), int(given[row]), int(right[row]), bool(alike[row, min(count, alike.shape[1]) - 1])
            )
        )
    return done


def gives_up(given: int, failed: int) -> bool:
    """Whether a sample's requests fail so often that it is asked no further."""
    return failed >= LEAST_FAILURES and failed > given


def account(rules: Sequence[Rule], answers: int, full: int) -> dict[str, float]:
    """What adaptive sampling saved [0, 1]; and, on pilot samples judged by a rule that was learned without them, what
    it saves and how many decisions it changes.

    Args:
        rules: one a fold.
        answers: stored for all samples.
        full: what all K answers of every sample would have been.
    """
    checked = [rule.checked for rule in rules if rule.checked]
    total = sum(c["n"] for c in checked)
    shares = {
        f"pilot_{name}_share": sum(c["n"] * c[name] for c in checked) / total if total else 0.0
        for name in ("saved", "changed")
    }
    bound = rules[0].settings.error
    return {"answers": answers, "saved_share": 1 - answers / full, "error_bound": bound, "pilot": int(total), **shares}


def _levels(kind: str) -> tuple[str, str, str]:
    """A kind, its source, its task: where its frequencies are looked for, in this order."""
    task, source, _ = kind.split("/", 2)
    return kind, f"{task}/{source}", task


def _fit(
    kinds: npt.NDArray[np.str_],
    totals: Ints,
    everyone: Mapping[str, int],
    k: int,
    thresholds: params.Select,
    settings: params.Adaptive,
) -> Rule:
    levels = np.array([_levels(kind)[::-1] for kind in kinds.tolist()], str).reshape(-1, 3)
    names, counts = np.unique(levels, return_counts=True)
    large = set(names[counts >= LEAST_PILOT].tolist()) | set(levels[:, 0].tolist())
    shares = {name: found for name, found in frequencies(levels, totals, k).items() if name in large}
    weights: dict[str, int] = {}
    for kind, n in everyone.items():
        name = next((name for name in _levels(kind) if name in shares), None)
        if name is not None:
            weights[name] = weights.get(name, 0) + n
    tables = {name: Table(np.array(shares[name]), thresholds, settings) for name in shares}
    total = max(1, sum(everyone.values()))

    def changed(price: float) -> float:
        return sum(n * tables[name].expected(tables[name].stops(price)) for name, n in weights.items()) / total

    low, high = 0.0, HIGHEST_PRICE
    for _ in range(BISECTIONS):
        middle = (low + high) / 2
        low, high = (middle, high) if changed(middle) <= settings.error else (low, middle)
    stops = {name: tables[name].pairs(tables[name].stops(low)) for name in shares}
    return Rule(k, thresholds.easy, thresholds.hard, settings, stops, shares, {})
