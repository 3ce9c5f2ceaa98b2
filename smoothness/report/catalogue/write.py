"""Write the catalogue's page and its figures."""

from __future__ import annotations

from pathlib import Path

from smoothness.report.catalogue.page import MARK, families, render_figures, render_page, slug_of

PAGE = "README.md"


def write_catalogue(folder: str | Path) -> Path:
    """Write README.md and one SVG a family: the same catalogue gives the same bytes.

    Args:
        folder: created if needed. Files of an earlier catalogue are replaced, other files are left alone.

    Returns:
        Path of README.md.

    Raises:
        NotADirectoryError: the folder is a file.
        FileExistsError: a file of the same name that is not from a catalogue stands in the folder.
        OSError: the folder cannot be written.
    """
    folder = Path(folder)
    if folder.exists() and not folder.is_dir():
        raise NotADirectoryError(f"the catalogue needs a folder, got the file {folder}; choose another place")
    grouped = families()
    _check_foreign(folder, PAGE)
    for family in grouped:
        _check_foreign(folder, f"{slug_of(family)}.svg")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        # The marked page first, so that an interrupted catalogue is still ours.
        contents = {PAGE: render_page(grouped).encode()}
        contents |= {f"{slug}.svg": svg for slug, svg in render_figures(grouped).items()}
        for name, data in contents.items():
            (folder / name).write_bytes(data)
    except OSError as error:
        raise OSError(
            error.errno, f"cannot write the catalogue to {folder}: {error.strerror}; choose another folder"
        ) from error
    return folder / PAGE


def _check_foreign(folder: Path, name: str) -> None:
    """Refuse to replace a file unless an earlier catalogue stands in the folder."""
    if not (folder / name).exists():
        return
    page = folder / PAGE
    if not page.is_file() or not page.read_bytes().startswith(MARK.encode()):
        raise FileExistsError(f"{folder / name} is not from a catalogue and would be replaced; choose another folder")
