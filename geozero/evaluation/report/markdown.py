"""The score tables as Markdown, for a README or an issue."""

from __future__ import annotations

from collections.abc import Sequence

from geozero.evaluation.report.cells import Cell
from geozero.evaluation.report.details import Difference, Thoughts
from geozero.evaluation.report.names import NONE
from geozero.evaluation.report.overview import Overview
from geozero.evaluation.report.scores import Row, World

ARROWS = {"up": " ▲", "down": " ▼", "": ""}


def scores_markdown(
    worlds: Sequence[World],
    overviews: Sequence[Overview] = (),
    differences: Sequence[Difference] = (),
    thoughts: Sequence[Thoughts] = (),
) -> str:
    """Models × benchmarks, then one table a world and split, the paired differences, and what thinking does.

    Scores in percent with their 95 % intervals, beside chance and majority.
    """
    lines = ["# Scores", "", "In percent unless the metric is a count or a length; 95 % intervals in brackets."]
    lines += ["▲ ▼: the paired interval of the difference to the model before it in the same mode excludes 0.", ""]
    for o in overviews:
        head = ["model", *(f"{b.name}, {b.metric}, n = {b.n}" for b in o.benchmarks)]
        rows = [[_name(line.kind, line.label), *map(_cell, line.cells)] for line in o.lines]
        lines += _table(o.title, head, rows, 1)
    for world in worlds:
        for table in world.tables:
            columns = (f"{m}, {o}" if o else m for m, o in table.columns)
            head = ["task", "part", "metric", "n", "chance", "majority", *columns]
            rows = [_cells(group.title, row) for group in table.groups for row in (*group.rows, *group.details)]
            lines += _table(f"{world.title}: {table.title}", head, rows, 3)
    if differences:
        head = ["where", "part", "first", "second", "metric", "scores", "difference", "95 % interval", "p", "n"]
        rows = [_difference(d) for d in differences]
        lines += _table("Differences on the same questions, second minus first", head, rows, 6)
    if thoughts:
        head = ["where", "model", "n", "with a thought", "words (median)", "distinct-2", "names its answer", "metric"]
        head += ["without the thought", "gain by thinking"]
        lines += _table("Reasoning", head, [_thoughts(t) for t in thoughts], 2)
    return "\n".join(lines)


def _table(title: str, head: Sequence[str], rows: Sequence[Sequence[str]], n_names: int) -> list[str]:
    """Title, head and rows; the first `n_names` columns are names, the others numbers."""
    rule = _line(["---"] * n_names + ["--:"] * (len(head) - n_names), escape=False)
    return [f"## {_safe(title)}", "", _line(head), rule, *map(_line, rows), ""]


def _difference(d: Difference) -> list[str]:
    names = [d.place, d.part, d.first, d.second, d.metric]
    return [*names, d.values, d.difference + ARROWS[d.mark], d.interval, d.p_value, d.n]


def _thoughts(t: Thoughts) -> list[str]:
    counts = [t.place, t.who, t.n, t.share, t.words, t.distinct, t.agreement]
    return [*counts, t.metric, t.without, t.gain + ARROWS[t.mark]]


def _name(kind: str, label: str) -> str:
    return f"{label} (published)" if kind == "reference" else label


def _cells(title: str, row: Row) -> list[str]:
    part = row.label if row.kind == "detail" else "all"
    return [title, part, row.metric, row.n, row.chance, row.majority, *map(_cell, row.cells)]


def _cell(cell: Cell | None) -> str:
    if cell is None:
        return NONE
    return cell.text + ARROWS[cell.mark] + (f" [{cell.interval}]" if cell.interval else "")


def _line(cells: Sequence[str], escape: bool = True) -> str:
    return "| " + " | ".join(_safe(c) if escape else c for c in cells) + " |"


def _safe(text: str) -> str:
    """Text that stays in its cell and is no markup."""
    return " ".join(text.split()).replace("\\", "\\\\").replace("|", "\\|").replace("<", "&lt;").replace("`", "'")
