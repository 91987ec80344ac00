"""What is written beside the page: the score tables as Markdown and LaTeX, and the headline plots as SVG files."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from itertools import zip_longest
from pathlib import Path

from geozero.evaluation.report.scores import World
from geozero.evaluation.report.tables import NONE, Cell, Marked, Table

ARROWS = {"up": " ▲", "down": " ▼", "": ""}
LATEX_HEAD = """% Made by `geozero report`; needs \\usepackage{booktabs}.
% Scores in percent unless the metric is a count or a length, 95 % bootstrap intervals in small print. $\\uparrow$ and
% $\\downarrow$: the paired 95 % interval of the difference to the model before it in the same mode excludes 0.
"""
LATEX_ARROWS = {"up": "$\\uparrow$", "down": "$\\downarrow$", "": ""}
LATEX_SPECIAL = {
    "\\": "\\textbackslash{}",
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
} | {c: f"\\{c}" for c in "{}$&#%_"}
STYLE = (Path(__file__).parent / "page.css").read_text(encoding="utf-8")
_OPENING = re.compile(r"<svg\b[^>]*>")


# --- Markdown ---------------------------------------------------------------------------------------------


def scores_markdown(tables: Iterable[Table]) -> str:
    """The tables of the page, with the 95 % intervals of scores."""
    lines = ["# Scores", "", "In percent unless the metric is a count or a length; 95 % intervals in brackets."]
    lines += ["▲ ▼: the paired interval of the difference to the model before it in the same mode excludes 0.", ""]
    for table in tables:
        first = [table.group_head] if table.group_head else []
        head = [*first, *(", ".join(filter(None, column)) for column in table.head)]
        rule = "| " + " | ".join(["---"] * (1 + len(first)) + ["--:"] * (len(table.head) - 1)) + " |"
        lines += [f"## {_safe(table.title)}", "", _line(head), rule]
        for group in table.groups:
            for row in (*group.rows, *group.details):
                label = f"{row.label} ({row.note})" if row.note else row.label
                lines.append(_line([*(group.title for _ in first), label, *map(_cell, row.cells)]))
        lines.append("")
    return "\n".join(lines)


def _cell(cell: Cell | Marked | str | None) -> str:
    if cell is None or isinstance(cell, str):
        return cell or NONE
    interval = f" [{cell.interval}]" if isinstance(cell, Cell) and cell.interval else ""
    return cell.text + ARROWS[cell.mark] + interval


def _line(cells: Iterable[str]) -> str:
    return "| " + " | ".join(map(_safe, cells)) + " |"


def _safe(text: str) -> str:
    """Text that stays in its cell and is no markup."""
    return " ".join(text.split()).replace("\\", "\\\\").replace("|", "\\|").replace("<", "&lt;").replace("`", "'")


# --- LaTeX ------------------------------------------------------------------------------------------------


def scores_latex(tables: Iterable[Table]) -> str:
    """The same tables with booktabs, without the rows that the page folds away."""
    return "\n\n".join([LATEX_HEAD.rstrip(), *map(_latex_table, tables)]) + "\n"


def _latex_table(table: Table) -> str:
    head = [(table.group_head,), *table.head] if table.group_head else table.head
    columns = "l" * (1 + bool(table.group_head)) + "r" * (len(table.head) - 1)
    lines = ["\\begin{table}[t]", "\\centering\\small", f"\\caption{{{escape(table.title)}}}"]
    lines += [f"\\begin{{tabular}}{{@{{}}{columns}@{{}}}}", "\\toprule"]
    lines += [_latex_line(map(escape, names)) for names in zip_longest(*head, fillvalue="")]
    for group in table.groups:
        lines.append("\\midrule")
        for i, row in enumerate(group.rows):
            labels = ["" if i else group.title, row.label] if table.group_head else [row.label]
            lines.append(_latex_line([*map(escape, labels), *map(_latex_cell, row.cells)]))
    return "\n".join([*lines, "\\bottomrule", "\\end{tabular}", "\\end{table}"])


def _latex_line(cells: Iterable[str]) -> str:
    return " & ".join(cells) + " \\\\"


def _latex_cell(cell: Cell | Marked | str | None) -> str:
    if cell is None or isinstance(cell, str):
        return escape(cell or NONE)
    text = escape(cell.text) + LATEX_ARROWS[cell.mark]
    if not isinstance(cell, Cell):
        return text
    text = f"\\textbf{{{escape(cell.text)}}}{LATEX_ARROWS[cell.mark]}" if cell.best else text
    return f"{text} {{\\scriptsize [{escape(cell.interval)}]}}" if cell.interval else text


def escape(text: str) -> str:
    """Text that LaTeX sets as it stands, on one line."""
    kept = "".join(c if c.isprintable() else " " for c in text)  # a control character stops the compiler
    return "".join(LATEX_SPECIAL.get(c, c) for c in " ".join(kept.split()))


# --- plots ------------------------------------------------------------------------------------------------


def plot_files(worlds: Iterable[World]) -> Iterator[tuple[str, str]]:
    """File name and SVG of each headline figure; names are unique and plain."""
    names: set[str] = set()
    for world in worlds:
        for figure in world.headlines:
            words = f"{world.name} {figure.title} {figure.split}".lower()
            name = re.sub(r"[^a-z0-9]+", "-", words).strip("-") or "plot"
            while name in names:
                name += "-2"
            names.add(name)
            yield f"{name}.svg", standalone(str(figure.plot))


def standalone(svg: str) -> str:
    """A plot of the page as a file: name space, a white ground, and the page's light colours."""
    dark = STYLE.index("@media (prefers-color-scheme: dark)")
    light = STYLE[:dark] + STYLE[STYLE.index("\n}\n", dark) + 3 :]
    kept = (":root", "  --", "}", ".plot", ".base")
    style = "\n".join(line for line in light.splitlines() if line.startswith(kept))
    opening = _OPENING.match(svg)
    if opening is None:
        raise ValueError("no SVG")
    head = opening.group().replace("<svg ", '<svg xmlns="http://www.w3.org/2000/svg" ', 1)
    return f'{head}<style>{style}</style><rect width="100%" height="100%" fill="#fff"/>{svg[opening.end() :]}\n'
