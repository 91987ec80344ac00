"""The score tables for a paper: LaTeX with booktabs, a file to `\\input`."""

from __future__ import annotations

from collections.abc import Sequence

from geozero.evaluation.report.cells import Cell
from geozero.evaluation.report.overview import Overview
from geozero.evaluation.report.scores import Table, World

HEAD = """% Made by `geozero report`; needs \\usepackage{booktabs}.
% Scores in percent unless the metric is a count or a length, 95 % bootstrap intervals in small print. $\\uparrow$ and
% $\\downarrow$: the paired 95 % interval of the difference to the model before it in the same mode excludes 0.
"""
MARKS = {"up": "$\\uparrow$", "down": "$\\downarrow$", "": ""}
MIDRULE = "\\midrule"
_SPECIAL = {
    "\\": "\\textbackslash{}",
    "{": "\\{",
    "}": "\\}",
    "$": "\\$",
    "&": "\\&",
    "#": "\\#",
    "%": "\\%",
    "_": "\\_",
    "^": "\\textasciicircum{}",
    "~": "\\textasciitilde{}",
    "<": "\\textless{}",
    ">": "\\textgreater{}",
    "|": "\\textbar{}",
    '"': "''",
    "²": "\\textsuperscript{2}",
    "–": "--",
    "−": "$-$",
    "→": "$\\to$",
}


def scores_latex(overviews: Sequence[Overview], worlds: Sequence[World]) -> str:
    """One table a protocol (models × benchmarks), then one a world and split with every metric."""
    tables = [_overview(o) for o in overviews]
    tables += [_split(world, table) for world in worlds for table in world.tables]
    return "\n\n".join([HEAD.rstrip(), *tables]) + "\n"


def escape(text: str) -> str:
    """Text that LaTeX sets as it stands, on one line."""
    kept = "".join(c if c.isprintable() else " " for c in text)  # a control character stops the compiler
    return "".join(_SPECIAL.get(c, c) for c in " ".join(kept.split()))


def _overview(o: Overview) -> str:
    head = ["Model", *(f"{b.name} ({b.metric})" for b in o.benchmarks)]
    rows = [_row([line.label], line.cells) for line in o.lines]
    guesses = sum(line.kind == "guess" for line in o.lines)
    published = sum(line.kind == "reference" for line in o.lines)
    for at in sorted({guesses, guesses + published} - {0, len(rows)}, reverse=True):
        rows.insert(at, MIDRULE)
    sizes = ", ".join(f"{b.name} {b.n}" for b in o.benchmarks)
    return _table("l" + "r" * len(o.benchmarks), head, rows, f"{o.title}. Records: {sizes}.")


def _split(world: World, table: Table) -> str:
    head = ["Task", "Metric", "n", "Chance", "Majority", *(f"{m}, {o}" if o else m for m, o in table.columns)]
    rows: list[str] = []
    for group in table.groups:
        rows += [MIDRULE] if rows else []
        for i, row in enumerate(group.rows):
            labels = [group.title if i == 0 else "", row.label, row.n, row.chance, row.majority]
            rows.append(_row(labels, row.cells))
    return _table("ll" + "r" * (len(head) - 2), head, rows, f"{world.title}: {table.title}")


def _row(labels: Sequence[str], cells: Sequence[Cell | None]) -> str:
    return " & ".join([*map(escape, labels), *map(_cell, cells)]) + " \\\\"


def _cell(cell: Cell | None) -> str:
    if cell is None:
        return "--"
    value = f"\\textbf{{{escape(cell.text)}}}" if cell.best else escape(cell.text)
    inside = f" {{\\scriptsize [{escape(cell.interval)}]}}" if cell.interval else ""
    return f"{value}{MARKS[cell.mark]}{inside}"


def _table(columns: str, head: Sequence[str], rows: Sequence[str], caption: str) -> str:
    lines = [
        "\\begin{table}[t]",
        "\\centering\\small",
        f"\\caption{{{escape(caption)}}}",
        f"\\begin{{tabular}}{{@{{}}{columns}@{{}}}}",
        "\\toprule",
        _row(head, []),
        MIDRULE,
        *rows,
        "\\bottomrule",
        "\\end{tabular}",
        "\\end{table}",
    ]
    return "\n".join(lines)
