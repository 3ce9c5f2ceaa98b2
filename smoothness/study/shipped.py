"""Studies by name: those beside the package in a checkout, or inside an installed wheel."""

from __future__ import annotations

from pathlib import Path

from smoothness._checks import check_choice
from smoothness.study.config import ConfigError

_HERE = Path(__file__).parent
FOLDERS = (_HERE / "studies", _HERE.parent.parent / "studies")  # in the wheel; in a checkout


def list_studies() -> list[str]:
    """Names that `smoothness run` knows.

    >>> "activation-ablation" in list_studies()
    True
    """
    return sorted(_shipped())


def find_study(name_or_path: str) -> Path:
    """The study file of a shipped name, or the path itself when it names a TOML file.

    Raises:
        ConfigError: no such file; an unknown name (the nearest ones are listed).
    """
    path = Path(name_or_path)
    if path.suffix == ".toml":
        if not path.is_file():
            raise ConfigError(f"{path}: no such study file")
        return path
    shipped = _shipped()
    try:
        return shipped[check_choice("study", name_or_path, shipped)]
    except ValueError as error:
        raise ConfigError(f"{error}, or give the path of a .toml file") from None


def _shipped() -> dict[str, Path]:
    return {path.stem: path for folder in reversed(FOLDERS) if folder.is_dir() for path in folder.glob("*.toml")}
