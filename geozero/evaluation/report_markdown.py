"""The score tables as Markdown, for a README or an issue."""

from __future__ import annotations

from collections.abc import Sequence

from geozero.evaluation.report_scores import NONE, Row, World


def scores_markdown(worlds: Sequence[World]) -> str:
    """One table a world and split; scores in percent with their 95 % intervals, beside chance and majority."""
    lines = ["# Scores", "", "In percent unless the metric is a count or a length; 95 % intervals in brackets.", ""]
    for world in worlds:
        for table in world.tables:
            lines += [f"## {_safe(world.title)}: {_safe(table.title)}", ""]
            columns = ["task", "part", "metric", "n", "chance", "majority", *(f"{m}, {o}" for m, o in table.columns)]
            lines += [_line(columns), _line(["---"] * 3 + ["--:"] * (len(columns) - 3), escape=False)]
            for group in table.groups:
                lines += [_line(_cells(group.title, row)) for row in (*group.rows, *group.details)]
            lines.append("")
    return "\n".join(lines)


def _cells(title: str, row: Row) -> list[str]:
    part = row.label if row.kind == "detail" else "all"
    scores = [NONE if c is None else f"{c.text} [{c.interval}]" if c.interval else c.text for c in row.cells]
    return [title, part, row.metric, row.n, row.chance, row.majority, *scores]


def _line(cells: Sequence[str], escape: bool = True) -> str:
    return "| " + " | ".join(_safe(c) if escape else c for c in cells) + " |"


def _safe(text: str) -> str:
    """Text that stays in its cell and is no markup."""
    return " ".join(text.split()).replace("\\", "\\\\").replace("|", "\\|").replace("<", "&lt;").replace("`", "'")
