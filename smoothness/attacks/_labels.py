"""Models of which only the label counts, as models with scores."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class LabelModel(nn.Module):
    """Scores 1 for the label that a model gives and 0 for the others.

    Classes beyond the largest of the labels `y` share the last column. Outputs that are not finite give NaN.

    >>> class Labels(nn.Module):
    ...     def forward(self, x):
    ...         return x.argmax(dim=1)
    >>> LabelModel(Labels(), torch.tensor([0]))(torch.tensor([[0.0, 2.0, 1.0]]))
    tensor([[0., 1.]])
    """

    def __init__(self, model: nn.Module, y: Tensor) -> None:
        super().__init__()
        self.model = model
        self.others = int(y.max()) + 1 if isinstance(y, Tensor) and y.numel() else 1

    def forward(self, x: Tensor) -> Tensor:
        """(n, ...) -> (n, classes)."""
        outputs = self.model(x)
        labels, finite = _labels_of(outputs, len(x))
        scores = torch.zeros(len(x), self.others + 1, device=labels.device, dtype=x.dtype)
        scores.scatter_(1, labels.clamp(0, self.others).unsqueeze(1), 1.0)
        return scores if finite is None else scores.masked_fill(~finite.unsqueeze(1), torch.nan)


def _labels_of(outputs: object, count: int) -> tuple[Tensor, Tensor | None]:
    """Labels, and which are valid: None for all."""
    if not isinstance(outputs, Tensor):
        raise TypeError(
            f"the model must return integer labels (n,) or scores (n, classes), got {type(outputs).__name__}; "
            "wrap it in a module that returns the labels"
        )
    if outputs.ndim == 2 and outputs.shape[0] == count and outputs.shape[1] > 1:
        if outputs.is_floating_point():
            return outputs.argmax(dim=1), outputs.isfinite().all(dim=1)
        return outputs.long().argmax(dim=1), None
    if outputs.shape == (count,) and not outputs.is_floating_point() and not outputs.is_complex():
        return outputs.long(), None
    raise TypeError(
        f"the model must return integer labels ({count},) or scores ({count}, classes), got shape "
        f"{tuple(outputs.shape)} of {outputs.dtype}; wrap it in a module that returns the labels"
    )
