"""What does the model say on clean inputs, and by how much?"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn

from smoothness._checks import check_class_outputs, check_count, check_inputs, check_labels
from smoothness._model_calls import call_model, check_model
from smoothness._state import model_device, probing
from smoothness.measurement import Measurement


class PredictionMeasurements(NamedTuple):
    """Both readings of `CleanPredictions`, values (n,).

    Attributes:
        correct: 1 where the model's class is the label, else 0.
        margin: f_y - max over j ≠ y of f_j, in logits; negative where the model is wrong.
    """

    correct: Measurement
    margin: Measurement


@dataclass(frozen=True)
class CleanPredictions:
    """Correctness and margin of every example: what other quantities are divided by.

    Scaling the logits by c scales Jacobians, Lipschitz constants and jumps by c and leaves the
    vulnerability alone; divided by the margin they can be compared across models.

    Args:
        batch_size: examples at once; all by default.

    Raises:
        TypeError, ValueError: inputs, labels or outputs that do not fit.

    >>> model = nn.Identity()
    >>> found = CleanPredictions()(model, torch.tensor([[3.0, 1.0], [0.0, 2.0]]), torch.tensor([0, 0]))
    >>> found.correct.values.tolist(), found.margin.values.tolist()
    ([1.0, 0.0], [2.0, -2.0])
    """

    batch_size: int | None = None

    def __post_init__(self) -> None:
        if self.batch_size is not None:
            check_count("batch_size", self.batch_size)

    def __call__(self, model: nn.Module, inputs: Tensor, labels: Tensor) -> PredictionMeasurements:
        """Measure every input against its label."""
        check_model(model)
        check_inputs(inputs)
        device = model_device(model)
        labels = check_labels(labels, len(inputs)).to(device)
        parts = []
        size = self.batch_size or len(inputs)
        with probing(model), torch.no_grad():
            for start in range(0, len(inputs), size):
                y = labels[start : start + size]
                outputs = call_model(model, inputs[start : start + size].to(device))
                parts.append(check_class_outputs(outputs, len(y), y))
        outputs = torch.cat(parts)
        own = outputs.gather(1, labels.unsqueeze(1)).squeeze(1)
        others = outputs.scatter(1, labels.unsqueeze(1), -torch.inf).amax(dim=1)
        valid = outputs.isfinite().all(dim=1)
        reason = tuple("" if ok else "the model's output is NaN or infinite" for ok in valid.tolist())
        settings = {"analyzer": "CleanPredictions", **asdict(self)}
        correct = (outputs.argmax(dim=1) == labels).to(outputs.dtype)
        return PredictionMeasurements(
            Measurement("correct", correct, "1", "exact", {}, settings, valid, {"reason": reason}),
            Measurement("margin", own - others, "logit", "exact", {}, settings, valid, {"reason": reason}),
        )
