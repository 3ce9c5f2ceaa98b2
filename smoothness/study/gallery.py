"""A few attacked examples of each network, chosen by a fixed rule: what the report's gallery shows."""

from __future__ import annotations

import json
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from smoothness._state import probing
from smoothness.data import Dataset
from smoothness.measurement import Measurement

COUNT = 6
RADIUS = 8 / 255


def gallery_radius(epsilons: Sequence[float]) -> float:
    """The study's radius nearest 8/255, the smaller of equals."""
    return min(epsilons, key=lambda epsilon: (abs(epsilon - RADIUS), epsilon))


def attacked_examples(
    model: nn.Module, data: Dataset, x: Tensor, y: Tensor, attacks: Sequence[Measurement], epsilon: float
) -> dict[str, Tensor]:
    """The first six correctly classified examples, each as the first attack left it that fools it, else the last.

    Args:
        model: the network.
        data: what the examples are of; only images, in a valid range, are shown.
        x: the sample that was attacked.
        y: its labels.
        attacks: what `AttackSuccess` gave for each attack of the study, in its order, at one radius.
        epsilon: that radius.

    Returns:
        inputs, adversarial (float32), labels, predictions, adversarial_predictions, fooled, attack (its place among
        those given), epsilon; empty where there is nothing to show.
    """
    if not attacks or data.bounds is None or x.ndim != 4 or x.shape[1] not in (1, 3):
        return {}
    with probing(model), torch.no_grad():
        predictions = model(x).argmax(dim=1)
        rows = (predictions == y).nonzero().flatten()[:COUNT]
        if not len(rows):
            return {}
        fooled = torch.stack([found.values[rows, 0, 0] == 1 for found in attacks])
        attack = torch.where(fooled.any(dim=0), fooled.int().argmax(dim=0), len(attacks) - 1)
        tried = [attacks[int(k)].details["inputs"][row] for k, row in zip(attack, rows, strict=True)]
        adversarial = torch.stack(tried)
        after = model(adversarial.to(x)).argmax(dim=1)
    return {
        "inputs": x[rows].float(),
        "adversarial": adversarial.float(),
        "labels": y[rows],
        "predictions": predictions[rows],
        "adversarial_predictions": after,
        "fooled": fooled.any(dim=0),
        "attack": attack,
        "epsilon": torch.tensor(epsilon, dtype=torch.float64),
    }


def changed_sentences(model: nn.Module, x: Tensor, y: Tensor, measured: Sequence[Measurement]) -> dict[str, Tensor]:
    """The first six correctly classified sentences, as the first attack on words left them.

    Args:
        model: the network.
        x: embedded sentences (n, length, d).
        y: their labels.
        measured: what the analyzers gave; those with details["edits"] are attacks on words, over the first examples.

    Returns:
        sentences (the bytes of a JSON list: for each, pairs of a token before and after), labels, predictions after
        the attack; empty where no words were attacked.
    """
    found = next((one for one in measured if "edits" in one.details), None)
    if found is None:
        return {}
    rows = [k for k, status in enumerate(found.details["status"]) if status in ("fooled", "survived")][:COUNT]
    if not rows:
        return {}
    stored = json.dumps([found.details["edits"][k] for k in rows]).encode()
    with probing(model), torch.no_grad():
        after = model(found.details["inputs"][rows].to(x)).argmax(dim=1)
    return {
        "sentences": torch.frombuffer(bytearray(stored), dtype=torch.uint8),
        "labels": y[rows],
        "adversarial_predictions": after.cpu(),
    }
