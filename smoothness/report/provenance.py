"""Where a report comes from and how it was made, without a trace of the machine or the person."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from smoothness.study import Run

_PATH = re.compile(r"(?<![^\s='\"(,])(?:~[\w.-]*[\\/]|file:/+|[A-Za-z]:[\\/]|/(?=\w))[^\s'\",)]*")


def scrub(text: str) -> str:
    """The text with the folders of absolute paths left out: they name machines and people.

    >>> scrub("--data /home/ann/fashion --epsilon 8/255")
    '--data …/fashion --epsilon 8/255'
    """
    return _PATH.sub(lambda match: "…/" + re.split(r"[\\/]", match[0].rstrip("\\/"))[-1].lstrip("~"), text)


def flatten(settings: Mapping[str, Any], prefix: str = "") -> list[tuple[str, str]]:
    """Nested settings as dotted names and short texts, in their own order."""
    rows: list[tuple[str, str]] = []
    for key, value in settings.items():
        name = f"{prefix}{key}"
        if isinstance(value, Mapping):
            rows += flatten(value, f"{name}.") or [(name, "none")]
        elif isinstance(value, list | tuple) and any(isinstance(item, Mapping) for item in value):
            rows += flatten({str(place + 1): item for place, item in enumerate(value)}, f"{name}.")
        else:
            rows.append((name, scrub(_text(value))))
    return rows


def _text(value: Any) -> str:
    if isinstance(value, list | tuple):
        return ", ".join(_text(item) for item in value) or "none"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.6g}"
    return "none" if value is None else str(value)


def provenance(run: Run) -> list[tuple[str, str]]:
    """Names and values: study, settings hash, versions, threads, initial weights."""
    cells = run.cells
    rows = [
        ("study", str(run.config.name)),
        ("scale", str(run.config.scale)),
        ("hash of the settings", str(run.config.key)),
        ("finished cells", f"{len(cells)} of {len(cells) + len(run.missing)}"),
        ("threads per cell", values_of(cell.get("threads") for cell in cells)),
    ]
    if any(cell.get("data_version") for cell in cells):
        rows.append(
            ("data", f"{', '.join(run.config.data_labels)}, version {values_of(c.get('data_version') for c in cells)}")
        )
    names = sorted({name for cell in cells for name in (cell.get("versions") or {})})
    for name in names:
        rows.append((name, values_of((cell.get("versions") or {}).get(name) for cell in cells)))
    twins = initial_weights(cells)
    if twins:
        rows.append(("initial weights, projections", twins))
    return [(name, scrub(value)) for name, value in rows]


def initial_weights(cells: Sequence[dict[str, Any]]) -> str:
    """The first projections of the initial weights of each architecture and seed, to tell runs apart.

    Whether twins agree in all of them is one of the hard invariants.
    """
    prints: dict[tuple[str, int], str] = {}
    for cell in cells:
        shown = ", ".join(f"{value:.5g}" for value in list(cell.get("initial_weights") or ())[:2])
        if shown:
            prints.setdefault((str(cell["architecture"]), int(cell["seed"])), shown)
    return "; ".join(f"{architecture} seed {seed}: {shown}" for (architecture, seed), shown in sorted(prints.items()))


def values_of(values: Iterable[Any]) -> str:
    """Distinct values in ascending order, as one short text.

    >>> values_of([10, 2, 2, None])
    '2, 10'
    """
    found = {_text(value): value for value in values if value is not None}
    numbers = sorted((text for text in found if isinstance(found[text], int | float)), key=lambda text: found[text])
    others = sorted(text for text in found if text not in numbers)
    return ", ".join([*numbers, *others]) or "not recorded"
