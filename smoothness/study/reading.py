"""From a study file to its settings at one scale, not yet validated."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any

from smoothness.models import ARCHITECTURES
from smoothness.study.fields import ConfigError

SCALES = ("quick", "full")
# The one setting elsewhere, for factors that do not vary.
_FIXED = {
    "gain": ("models.gain",),
    "width": tuple(f"models.{name}.width" for name in ARCHITECTURES),
    "depth": tuple(f"models.{name}.depth" for name in ARCHITECTURES),
    "normalisation": ("models.normalisation",),
    "data": ("data.name", "data.import", "data.options"),
    "subset": ("data.subset",),
    "epochs": ("training.epochs",),
}


def read_study(path: Path, scale: str) -> dict[str, Any]:
    """The file's settings with the scale's table laid over them.

    Raises:
        ConfigError: an unknown scale; a file that cannot be read or is not TOML.
    """
    if scale not in SCALES:
        raise ConfigError(f"scale must be one of {', '.join(SCALES)}, got {scale!r}")
    try:
        raw = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read ({error.strerror})") from None
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path}: not a text file in UTF-8 ({error.reason} at byte {error.start})") from None
    except RecursionError:
        raise ConfigError(f"{path}: nested too deeply; tables and lists hold at most a few levels") from None
    except ValueError as error:  # not TOML, or a number of thousands of digits
        raise ConfigError(f"{path}: not valid TOML ({error}); correct that place first") from None
    if not raw:
        raise ConfigError(f"{path}: is empty; start from one of the shipped studies (smoothness studies)")
    overlays = {name: raw.pop(name, {}) for name in SCALES}
    for name, overlay in overlays.items():
        if not isinstance(overlay, dict):
            raise ConfigError(f"{path}: {name}: must be a table of settings, got {overlay!r}")
        for settings in (raw, overlay):
            if "scale" in settings:
                raise ConfigError(f"{path}: scale: not a setting; choose it when running the study (--scale {scale})")
            if "allow_import" in settings:
                raise ConfigError(
                    f"{path}: allow_import: not a setting; whoever runs the study allows it (--allow-import PACKAGE)"
                )
    try:
        return _laid_over(raw, overlays[scale])
    except RecursionError:
        raise ConfigError(f"{path}: nested too deeply; tables hold at most a few levels") from None


def given_twice(settings: dict[str, Any]) -> list[str]:
    """Factors that have levels and a fixed setting as well."""
    factors = settings.get("factors")
    return [
        f"factors.{factor}: {key} fixes what this varies; keep one of the two"
        for factor, keys in _FIXED.items()
        if isinstance(factors, dict) and factor in factors
        for key in keys
        if _holds(settings, key.split("."))
    ]


def _holds(table: Any, parts: list[str]) -> bool:
    for part in parts:
        if not isinstance(table, dict) or part not in table:
            return False
        table = table[part]
    return True


def _laid_over(base: dict[str, Any], overlay: dict[str, Any]) -> dict[str, Any]:
    merged = dict(base)
    for key, value in overlay.items():
        below = merged.get(key)
        merged[key] = _laid_over(below, value) if isinstance(below, dict) and isinstance(value, dict) else value
    return merged
