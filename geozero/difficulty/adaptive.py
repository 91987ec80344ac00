"""When a sample needs no further answers: an optimal stopping rule with a bound on changed decisions (our choice).

What is decided is where a sample may go: Instruct (p ≥ easy), Hard (p ≤ hard) or neither, as all K answers would have
it. A sample's K answers are exchangeable, so if t of all K succeed, s successes among the first n have the
hypergeometric probability C(n,s)·C(K−n,t−s)/C(K,t). How often each t occurs is estimated, for each kind of question
(task, source, question type), from the pilot: a share of the samples, by stable hash, that always gets all K answers.
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
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import comb
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from geozero import params
from geozero.corpus import write_json
from geozero.difficulty.store import Answers
from geozero.errors import InputError
from geozero.sample import Sample, digest, stable_unit

MOST_ANSWERS = 64  # the tables grow with K³
EASY, LEARNABLE, UNSOLVED, NEITHER = range(4)
LEARNABLE_FOR_UNSOLVED = 0.05  # what mistaking these two costs: both may go to Hard, learnable ones come first
# A kind's frequencies are its pilot's counts, mixed with a beta-binomial that is fitted to them and to a few samples'
# worth of the level above: weights in samples, chosen on the demo's store (docs/experiments.md).
WEIGHT_OF_PARENT = 5.0
WEIGHT_OF_SHAPE = 40.0
# The beta-binomials that are averaged by their likelihood: mean success rates, and a + b of the beta distribution.
MEANS = (0.002, 0.005, 0.01, 0.02, *np.linspace(0.03, 0.97, 22).tolist(), 0.98, 0.99, 0.995)
CONCENTRATIONS = tuple(np.geomspace(0.2, 60.0, 16).tolist())
PARTS = 5  # of the pilot, for `Rule.checked`
BISECTIONS = 20
HIGHEST_PRICE = (
    0.1  # of an answer, in wrong decisions: where the bound is far, a doubtful sample is asked on all the same
)

Floats = npt.NDArray[np.float64]
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


def decided(rules: Sequence[Rule], folds: Ints, kinds: npt.NDArray[np.str_], answers: Answers, closed: Bools) -> Bools:
    """Which samples need no further answer [N]: their fold's rule says so, or a request of theirs failed.

    Args:
        rules: one a fold.
        folds: of each sample [N].
        kinds: of each sample [N].
        answers: what is stored.
        closed: which questions are closed [N].
    """
    n, right = answers.present.sum(axis=1), ((answers.success == 1) & answers.asked).sum(axis=1)
    alike = answers.alike(closed)
    # the first n answers are there, without a gap
    whole = answers.present.cumsum(axis=1)[np.arange(len(n)), np.maximum(n, 1) - 1] == n
    done = np.asarray((answers.present & ~answers.asked).any(axis=1), bool)
    for row in np.flatnonzero(~done & whole & (n > 0)).tolist():
        count = int(n[row])
        done[row] = rules[folds[row]].decided(
            str(kinds[row]), count, int(right[row]), bool(alike[row, min(count, alike.shape[1]) - 1])
        )
    return done


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


def decision(successes: int, n: int, easy: float, hard: float) -> int:
    """Where a sample with this pass rate may go; the order of the questions is that of `bands.measure`."""
    rate = successes / n
    if rate >= easy:
        return EASY
    if rate == 0:
        return UNSOLVED
    return LEARNABLE if rate <= hard else NEITHER


def save(directory: Path, rule: Rule) -> Rule:
    """Freeze a rule in a fingerprint's directory; where another worker was quicker, its rule is returned."""
    directory.mkdir(parents=True, exist_ok=True)
    path = directory / file_name(rule.key)
    mine = path.with_name(f".{path.name}.{os.getpid()}")
    write_json(mine, _to_json(rule))
    try:
        os.link(mine, path)  # unlike a rename it fails where the file exists
    except FileExistsError:
        pass
    finally:
        mine.unlink()
    return load(directory, rule.key) or rule


def load(directory: Path, key: str) -> Rule | None:
    """The frozen rule of that name; None where there is none yet.

    Raises:
        InputError: unreadable.
    """
    path = directory / file_name(key)
    if not path.is_file():
        return None
    try:
        value = json.loads(path.read_text())
        return Rule(
            int(value["k"]),
            float(value["easy"]),
            float(value["hard"]),
            params.Adaptive(**value["settings"]),
            {kind: frozenset((int(n), int(s)) for n, s in pairs) for kind, pairs in value["stops"].items()},
            {kind: tuple(map(float, shares)) for kind, shares in value["frequencies"].items()},
            {name: float(v) for name, v in value["checked"].items()},
        )
    except (ValueError, KeyError, TypeError, AttributeError):
        raise InputError("unreadable stopping rule", str(path), "delete it and sample again") from None


def file_name(key: str) -> str:
    return f"_adaptive-{key}.json"  # see `store` for the `_`


def _to_json(rule: Rule) -> dict[str, Any]:
    return {
        "k": rule.k,
        "easy": rule.easy,
        "hard": rule.hard,
        "settings": rule.settings.model_dump(),
        "stops": {kind: sorted(pairs) for kind, pairs in sorted(rule.stops.items())},
        "frequencies": {kind: list(shares) for kind, shares in sorted(rule.frequencies.items())},
        "checked": dict(rule.checked),
    }


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
    frequencies = _frequencies(kinds, totals, k)
    weights: dict[str, int] = {}
    for kind, n in everyone.items():
        name = next((name for name in _levels(kind) if name in frequencies), None)
        if name is not None:
            weights[name] = weights.get(name, 0) + n
    tables = {name: _Table(np.array(frequencies[name]), thresholds, settings) for name in frequencies}
    total = max(1, sum(everyone.values()))

    def changed(price: float) -> float:
        return sum(n * tables[name].expected(tables[name].stops(price)) for name, n in weights.items()) / total

    low, high = 0.0, HIGHEST_PRICE
    for _ in range(BISECTIONS):
        middle = (low + high) / 2
        low, high = (middle, high) if changed(middle) <= settings.error else (low, middle)
    stops = {name: tables[name].pairs(tables[name].stops(low)) for name in frequencies}
    return Rule(k, thresholds.easy, thresholds.hard, settings, stops, frequencies, {})


def _frequencies(kinds: npt.NDArray[np.str_], totals: Ints, k: int) -> dict[str, tuple[float, ...]]:
    """Shares of t = 0 … k at each level: task, source, kind."""
    levels = np.array([_levels(kind)[::-1] for kind in kinds.tolist()], str).reshape(-1, 3)
    shapes = _beta_binomials(k)
    found: dict[str, tuple[float, ...]] = {}
    for level in range(3):
        for name in sorted(set(levels[:, level].tolist())):
            rows = levels[:, level] == name
            counts = np.bincount(totals[rows], minlength=k + 1).astype(float)
            above = WEIGHT_OF_PARENT * np.array(found[str(levels[rows][0, level - 1])]) if level else 0.0
            fits = np.log(shapes) @ (counts + above)
            likely = np.exp(fits - fits.max())
            mixed = counts + WEIGHT_OF_SHAPE * (likely / likely.sum()) @ shapes
            found[name] = tuple(float(v) for v in mixed / mixed.sum())
    return found


def _beta_binomials(k: int) -> Floats:
    """Probabilities of t = 0 … k under each of the grid's beta-binomial distributions [grid, k + 1]."""
    from scipy.special import betaln, comb

    t = np.arange(k + 1)
    grid = [(mean * total, (1 - mean) * total) for mean in MEANS for total in CONCENTRATIONS]
    rows = [np.exp(betaln(t + a, k - t + b) - betaln(a, b)) * comb(k, t) for a, b in grid]
    return np.maximum(np.array(rows, np.float64), 1e-300)


class _Table:
    """The dynamic program of one kind."""

    def __init__(self, frequencies: Floats, thresholds: params.Select, settings: params.Adaptive) -> None:
        self.k, self.first, self.frequencies = len(frequencies) - 1, settings.first, frequencies
        k, t = self.k, np.arange(self.k + 1)
        final = [decision(int(v), k, thresholds.easy, thresholds.hard) for v in t]
        self.up = np.zeros((k + 1, k + 1, k + 1))  # probability that the next answer succeeds, given t  [n, s, t]
        self.posterior = np.zeros((k + 1, k + 1, k + 1))
        self.wrong = np.zeros((k + 1, k + 1))  # expected cost of deciding at (n, s)
        self.cost = np.zeros((k + 1, k + 1, k + 1))
        for n in range(k + 1):
            for s in range(n + 1):
                ways = np.array([comb(n, s) * comb(k - n, v - s) / comb(k, v) if v >= s else 0.0 for v in t])
                joint = ways * frequencies
                self.posterior[n, s] = joint / joint.sum() if joint.sum() > 0 else 1 / (k + 1)
                if n < k:
                    self.up[n, s] = np.clip((t - s) / (k - n), 0, 1)
                if n:
                    now = decision(s, n, thresholds.easy, thresholds.hard)
                    self.cost[n, s] = [_cost(now, then) for then in final]
                    self.wrong[n, s] = float(self.posterior[n, s] @ self.cost[n, s])

    def stops(self, price: float) -> Bools:
        """Where it is best to stop [n, s] if an answer costs `price`."""
        k = self.k
        stop = np.zeros((k + 1, k + 1), bool)
        stop[k] = True
        value = np.zeros(k + 1)
        for n in range(k - 1, -1, -1):
            s = np.arange(n + 1)
            up = (self.posterior[n, : n + 1] * self.up[n, : n + 1]).sum(axis=1)
            ask = price + up * value[s + 1] + (1 - up) * value[s]
            if n >= max(1, self.first):
                stop[n, : n + 1] = self.wrong[n, : n + 1] <= ask
                ask = np.minimum(ask, self.wrong[n, : n + 1])
            value = ask
        return stop

    def expected(self, stop: Bools) -> float:
        """Probability that a sample that follows `stop` is decided otherwise than by all its answers."""
        reach = self.frequencies[None, :].copy()  # [s, t] at n = 0
        cost = 0.0
        for n in range(self.k):
            s = np.arange(n + 1)
            ends = stop[n, : n + 1]
            cost += float((reach[ends] * (self.cost[n, s[ends]] == 1)).sum())
            on = np.where(ends[:, None], 0.0, reach)
            up = self.up[n, : n + 1]
            reach = np.zeros((n + 2, self.k + 1))
            reach[1:] += on * up
            reach[:-1] += on * (1 - up)
        return cost

    def pairs(self, stop: Bools) -> frozenset[tuple[int, int]]:
        return frozenset((int(n), int(s)) for n, s in zip(*np.nonzero(stop), strict=True) if s <= n < self.k)


def _cost(now: int, then: int) -> float:
    if now == then:
        return 0.0
    return LEARNABLE_FOR_UNSOLVED if {now, then} == {LEARNABLE, UNSOLVED} else 1.0
