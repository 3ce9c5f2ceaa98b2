"""The summary in formats to work with: CSV, Parquet and LaTeX."""

from __future__ import annotations

import base64
import io
from dataclasses import dataclass

import pandas as pd

from smoothness.report.displays import Table
from smoothness.study.escaping import escape_latex


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


def render_parquet(frame: pd.DataFrame) -> bytes:
    """A frame as Parquet."""
    buffer = io.BytesIO()
    frame.to_parquet(buffer, index=False, compression="zstd")
    return buffer.getvalue()


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
