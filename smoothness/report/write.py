"""Write a report: index.html, report.md with its figures, the summary as CSV, Parquet and LaTeX, the frame."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from smoothness.consistency import Check, check_frame, check_twins
from smoothness.report.downloads import render_parquet
from smoothness.report.page import Page, build_page
from smoothness.report.render import MARK, render_html, render_markdown
from smoothness.study import Run, load_run


def write_report(run_folder: str | Path, out_folder: str | Path) -> Path:
    """Write the report of a run: the same run gives the same bytes.

    Args:
        run_folder: folder of a run, finished or not; unfinished cells are named at the top.
        out_folder: created if needed. Files of an earlier report are replaced, other files are left alone.

    Returns:
        Path of `index.html`, one self-contained page. Beside it: `report.md`, `figures/`, the summary as
        `results.csv`, `.parquet` and `.tex`, and every row as `frame.parquet`.

    Raises:
        FileNotFoundError: no run in `run_folder`.
        FileExistsError: a file of the same name that is not from a report stands in `out_folder`.
        OSError: `out_folder` cannot be written.
        ValueError: a run without any valid measurement.
    """
    run = load_run(run_folder)
    return write_page(run, [*check_frame(run.frame, run.config.threat.norm), check_twins(run.cells)], out_folder)


def write_page(run: Run, checks: Sequence[Check], out_folder: str | Path) -> Path:
    """Write the report of a run that is already loaded, with the outcome of its hard invariants."""
    folder = Path(out_folder)
    _check_folder(folder)
    page = build_page(run, checks)
    contents = _contents(page) | {"frame.parquet": render_parquet(run.frame)}
    for name in contents:
        _check_foreign(folder, name)
    try:
        for name, data in contents.items():
            _write_atomically(folder / name, data)
    except OSError as error:
        raise OSError(
            error.errno, f"cannot write the report to {folder}: {error.strerror}; choose another folder"
        ) from error
    return folder / "index.html"


def _contents(page: Page) -> dict[str, bytes]:
    """Names and bytes of all files; the marked page first, so that an interrupted report is still ours."""
    contents = {"index.html": render_html(page).encode(), "report.md": render_markdown(page).encode()}
    contents |= {f"figures/{plate.slug}.svg": plate.wide for plate in page.plates}
    for film in page.films:
        for k, frame in enumerate(film.frames, start=1):
            contents |= {f"figures/{film.slug}-{k}-{picture.name}.png": picture.png for picture in frame.pictures}
    return contents | {download.name: download.data for download in page.downloads}


def _check_folder(folder: Path) -> None:
    if folder.exists() and not folder.is_dir():
        raise NotADirectoryError(f"the report needs a folder, got the file {folder}; choose another place")


def _check_foreign(folder: Path, name: str) -> None:
    """Refuse to replace a file unless an earlier report stands in the folder."""
    if not (folder / name).exists():
        return
    index = folder / "index.html"
    if not index.is_file() or MARK.encode() not in index.read_bytes()[:4096]:
        raise FileExistsError(f"{folder / name} is not from a report and would be replaced; choose another folder")


def _write_atomically(path: Path, data: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        temporary.write_bytes(data)
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
