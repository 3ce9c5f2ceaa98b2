"""The summary in formats to work with: CSV, Parquet and LaTeX."""

from __future__ import annotations

import base64
import io
import re
from dataclasses import dataclass

import pandas as pd

from smoothness.report.displays import Table

_LATEX = {
    "\\": r"\textbackslash{}", "&": r"\&", "%": r"\%", "$": r"\$", "#": r"\#", "_": r"\_", "{": r"\{", "}": r"\}",
    "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "<": r"\textless{}", ">": r"\textgreater{}",
    "|": r"\textbar{}", "±": r"$\pm$", "−": "$-$", "–": "--", "ε": r"$\varepsilon$", "÷": r"$\div$", "≥": r"$\geq$",
    "≤": r"$\leq$", "∞": r"$\infty$", "√": r"$\surd$", "→": r"$\to$", "·": r"$\cdot$", "“": "``", "”": "''",
    "[": "{[}", "*": "{*}",  # after a line break these would be its options
}  # fmt: skip


@dataclass(frozen=True)
class Download:
    """A file: its name, what it is, and its bytes."""

    name: str
    title: str
    kind: str
    data: bytes

    @property
    def uri(self) -> str:
        """The file as a data URI."""
        return f"data:{self.kind};base64,{base64.b64encode(self.data).decode('ascii')}"


def render_csv(results: pd.DataFrame) -> str:
    """The summary table as CSV, with text that a spreadsheet would run as a formula made harmless."""
    safe = results.copy()
    for name in safe.columns:
        safe[name] = [harmless(value) if isinstance(value, str) else value for value in safe[name]]
    return str(safe.to_csv(index=False, lineterminator="\n"))


def harmless(text: str) -> str:
    """Text with an apostrophe before it when it starts like a formula (CWE-1236).

    >>> harmless("=cmd()"), harmless("relu")
    ("'=cmd()", 'relu')
    """
    return f"'{text}" if text[:1] in ("=", "+", "-", "@", "\t", "\r", "\n") else text


def render_parquet(frame: pd.DataFrame) -> bytes:
    """A frame as Parquet."""
    buffer = io.BytesIO()
    frame.to_parquet(buffer, index=False, compression="zstd")
    return buffer.getvalue()


def escape_latex(text: str) -> str:
    r"""Plain text for LaTeX: nothing in it is a command.

    >>> escape_latex(r"50 % of \input{relu_6}")
    '50 \\% of \\textbackslash{}input\\{relu\\_6\\}'
    """
    return re.sub(r"\s+", " ", "".join(_LATEX.get(c, c if c.isprintable() else " ") for c in text))


def render_latex(table: Table) -> str:
    """A table in LaTeX with booktabs rules."""
    left = [i < table.heads or i in table.prose for i in range(len(table.columns))]
    lines = [" & ".join(escape_latex(cell.text) for cell in row) + r" \\" for row in table.rows]
    head = " & ".join(map(escape_latex, table.columns)) + r" \\"
    return "\n".join(
        [
            "% needs \\usepackage{booktabs}",
            r"\begin{table}",
            rf"\caption{{{escape_latex(table.caption)}}}",
            rf"\begin{{tabular}}{{{''.join('l' if flag else 'r' for flag in left)}}}",
            r"\toprule",
            head,
            r"\midrule",
            *lines,
            r"\bottomrule",
            r"\end{tabular}",
            r"\end{table}",
            "",
        ]
    )
