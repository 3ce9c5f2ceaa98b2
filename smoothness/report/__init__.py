"""Reports: from a run's frame to figures, tables, HTML, Markdown and CSV."""

from smoothness.report.write import write_report

__all__ = ["write_report"]
