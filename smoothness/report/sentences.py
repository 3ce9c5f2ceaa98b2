"""The example gallery of studies on text: sentences with the changed words marked; chosen by rule, not by eye."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

RULE = (
    "Chosen by rule: the first six correctly classified test sentences of each network of the first seed, as the "
    "study's first attack on words left them. Words taken out are struck through, words put in are underlined."
)
_SHOWN = 40  # tokens at most


@dataclass(frozen=True)
class Part:
    """A run of tokens: kept, taken out ("del") or put in ("ins")."""

    text: str
    kind: str


@dataclass(frozen=True)
class Sentence:
    """One sentence in parts, and the result in words."""

    parts: tuple[Part, ...]
    result: str
    fooled: bool


@dataclass(frozen=True)
class SentenceWall:
    """The sentences of one setting, a row for each activation."""

    title: str
    rows: tuple[tuple[str, tuple[Sentence, ...]], ...]


def sentence_pages(
    cells: Sequence[Mapping[str, Any]], examples: Mapping[str, Mapping[str, Tensor]]
) -> list[SentenceWall]:
    """Sentences of the first seed, setting by setting.

    Args:
        cells: facts of the cells, with "cell", "activation", "setting", "seed" and "classes", their names.
        examples: cell label -> tensors of `smoothness.study.gallery.changed_sentences`.
    """
    found: dict[str, dict[str, tuple[int, tuple[Sentence, ...]]]] = {}
    for facts in cells:
        tensors = examples.get(str(facts["cell"]), {})
        if "sentences" not in tensors:
            continue
        rows = found.setdefault(str(facts["setting"]), {})
        activation, seed = str(facts["activation"]), int(str(facts["seed"]))
        if activation not in rows or seed < rows[activation][0]:
            rows[activation] = seed, tuple(_sentences(tensors, facts["classes"]))
    return [
        SentenceWall(setting, tuple((activation, sentences) for activation, (_, sentences) in rows.items()))
        for setting, rows in found.items()
    ]


def _sentences(tensors: Mapping[str, Tensor], classes: Sequence[str]) -> list[Sentence]:
    stored = json.loads(bytes(tensors["sentences"].to(torch.uint8).tolist()).decode())
    found = []
    for pairs, label, after in zip(
        stored, tensors["labels"].tolist(), tensors["adversarial_predictions"].tolist(), strict=True
    ):
        name = str(classes[label]) if label < len(classes) else f"class {label}"
        other = str(classes[after]) if after < len(classes) else f"class {after}"
        result = f"{name} → {other}" if after != label else f"{name}: held"
        found.append(Sentence(parts(pairs), result, after != label))
    return found


def parts(pairs: Sequence[Sequence[str]]) -> tuple[Part, ...]:
    """Pairs of a token before and after, in runs of one kind; long sentences end in an ellipsis.

    >>> [(part.kind, part.text) for part in parts([("a", "a"), ("good", "nice"), ("film", "film")])]
    [('', 'a'), ('del', 'good'), ('ins', 'nice'), ('', 'film')]
    """
    runs: list[tuple[str, list[str]]] = []
    for before, after in pairs[:_SHOWN]:
        kinds = [("", before)] if before == after else [("del", str(before)), ("ins", str(after))]
        for kind, token in kinds:
            if token and runs and runs[-1][0] == kind:
                runs[-1][1].append(str(token))
            elif token:
                runs.append((kind, [str(token)]))
    if len(pairs) > _SHOWN:
        if runs[-1][0]:
            runs.append(("", []))
        runs[-1][1].append("…")
    return tuple(Part(" ".join(tokens), kind) for kind, tokens in runs)
