"""Text from data in files that other programs run: LaTeX and spreadsheets."""

from __future__ import annotations

import re

import pandas as pd

_LATEX = {
    "\\": r"\textbackslash{}", "&": r"\&", "%": r"\%", "$": r"\$", "#": r"\#", "_": r"\_", "{": r"\{", "}": r"\}",
    "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "<": r"\textless{}", ">": r"\textgreater{}",
    "|": r"\textbar{}", "±": r"$\pm$", "−": "$-$", "–": "--", "ε": r"$\varepsilon$", "÷": r"$\div$", "≥": r"$\geq$",
    "≤": r"$\leq$", "∞": r"$\infty$", "√": r"$\surd$", "→": r"$\to$", "·": r"$\cdot$", "“": "``", "”": "''",
    "[": "{[}", "*": "{*}",  # after a line break these would be its options
}  # fmt: skip


def escape_latex(text: str) -> str:
    r"""Plain text for LaTeX: nothing in it is a command.

    >>> escape_latex(r"50 % of \input{relu_6}")
    '50 \\% of \\textbackslash{}input\\{relu\\_6\\}'
    """
    return re.sub(r"\s+", " ", "".join(_LATEX.get(c, c if c.isprintable() else " ") for c in text))


def harmless(text: str) -> str:
    """Text with an apostrophe before it when it starts like a formula (CWE-1236).

    >>> harmless("=cmd()"), harmless("relu")
    ("'=cmd()", 'relu')
    """
    return f"'{text}" if text[:1] in ("=", "+", "-", "@", "\t", "\r", "\n") else text


def render_csv(table: pd.DataFrame) -> str:
    """A table as CSV, every digit kept, with text that a spreadsheet would run as a formula made harmless."""
    safe = table.copy()
    for name in safe.columns:
        safe[name] = [harmless(value) if isinstance(value, str) else value for value in safe[name]]
    return str(safe.to_csv(index=False, lineterminator="\n"))
