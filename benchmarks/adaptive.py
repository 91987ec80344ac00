"""What adaptive sampling would have saved and changed on a store that is complete: `python -m benchmarks.adaptive`.

For each of several pilots (other stable hashes) the rule is learned on the pilot alone, then replayed on every other
sample's real answers in their order. Decisions are compared with full sampling: Instruct, Hard or neither (what the
bound speaks of), the finer bands (learnable apart from unsolved), and where `geozero select` puts the sample.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections import Counter
from pathlib import Path

import numpy as np

from geozero import params
from geozero.corpus.sample import stable_unit
from geozero.corpus.store import Corpus
from geozero.difficulty import answer_store
from geozero.difficulty.adaptive import stopping_rule
from geozero.difficulty.answer_store import Answers
from geozero.difficulty.selection.bands import choose, measure
from geozero.difficulty.selection.select import load_answers, load_candidates

DEMO_HARD_SIZE = 512  # the profile cpu-toy's


def main() -> None:
    """Print one line a pilot and one of means."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--corpus", type=Path, default=Path("data/geozero-raw"))
    parser.add_argument("--store", type=Path, default=Path("data/difficulty"))
    parser.add_argument("--pilots", type=int, default=20)
    parser.add_argument("--error", type=float, default=params.Adaptive().error)
    parser.add_argument("--first", type=int, default=params.Adaptive().first)
    parser.add_argument("--pilot", type=float, default=params.Adaptive().pilot)
    given, _ = parser.parse_known_args()
    if not (given.store / answer_store.CURRENT).is_file():
        print(f"no answer store at {given.store}: nothing to measure (run `make demo` first)")
        sys.exit(0)
    settings = params.Adaptive(error=given.error, first=given.first, pilot=given.pilot)
    thresholds = params.Select(hard_size=DEMO_HARD_SIZE)
    source, state = Corpus(given.corpus), answer_store.current(given.store)
    k, keys = int(state["k"]), [str(key) for key in state["fingerprints"]]
    candidates = load_candidates(source, len(keys))
    answers, _ = load_answers(given.store, given.corpus, candidates, state, thresholds)
    full = measure(answers, candidates, thresholds)
    chosen = choose(full.band, candidates, thresholds)
    ids, kinds = candidates.ids.to_pylist(), candidates.kinds.tolist()
    right, alike = answers.success == 1, answers.alike(candidates.closed)
    open_ended = candidates.tasks == "caption"
    everyone = Counter(kinds)
    print(f"{len(ids)} samples, K = {k}, {settings}, {given.pilots} pilots")
    rows = []
    for salt in range(given.pilots):
        start = time.perf_counter()
        pilot = np.array([stable_unit(i, f"pilot{salt or ''}") < settings.pilot for i in ids])
        learned, rest = np.flatnonzero(pilot & ~open_ended), np.flatnonzero(~pilot & ~open_ended)
        rule = stopping_rule.fit(
            [kinds[i] for i in learned], right[learned], alike[learned], everyone, k, thresholds, settings
        )
        seconds = time.perf_counter() - start
        used = np.full(len(ids), k)
        used[rest] = stopping_rule.replay(rule, [kinds[i] for i in rest], right[rest], alike[rest])[0]
        found = measure(cut(answers, used), candidates, thresholds)
        places = choose(found.band, candidates, thresholds)
        coarse = coarse_of(found.band) != coarse_of(full.band)
        moved = (places[0] != chosen[0]) | (places[1] != chosen[1])
        rows.append((1 - used.mean() / k, coarse.mean(), (found.band != full.band).mean(), moved.mean()))
        saved, changed, finer, went = rows[-1]
        checked = ", ".join(f"{name} {value:.3f}" for name, value in rule.checked.items())
        print(
            f"pilot {salt:2d} ({pilot.sum()}): saved {saved:.3f}, decisions changed {changed:.4f}, "
            f"bands {finer:.4f}, places {went:.4f}; held out: {checked}; {seconds:.1f} s"
        )
    mean, worst = np.mean(rows, axis=0), np.max(rows, axis=0)
    print(
        f"mean: saved {mean[0]:.3f} (least {min(r[0] for r in rows):.3f}), decisions changed {mean[1]:.4f} "
        f"(most {worst[1]:.4f}), bands {mean[2]:.4f} (most {worst[2]:.4f}), places {mean[3]:.4f} (most {worst[3]:.4f})"
    )


def cut(answers: Answers, used: np.ndarray[tuple[int], np.dtype[np.int64]]) -> Answers:
    """The same answers, of each sample only the first `used`."""
    kept = np.arange(answers.present.shape[1]) < used[:, None]
    return Answers(answers.present & kept, answers.success, answers.reward, answers.finish, answers.meaning)


def coarse_of(band: np.ndarray[tuple[int], np.dtype[np.str_]]) -> np.ndarray[tuple[int], np.dtype[np.str_]]:
    """easy, hard or neither."""
    return np.select([band == "easy", np.char.startswith(band, "hard")], ["easy", "hard"], "neither")


if __name__ == "__main__":
    main()
