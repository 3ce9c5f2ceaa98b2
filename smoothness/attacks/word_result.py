"""What attacks that change words return, and the questions they put to a model."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from smoothness._checks import check_class_outputs, check_labels
from smoothness._model_calls import call_model, check_model
from smoothness._state import model_device, probing
from smoothness.attacks.losses import margin_loss
from smoothness.attacks.result import STATUSES
from smoothness.measurement import Measurement
from smoothness.vocabulary import Vocabulary, words_of

Edit = tuple[str, str]  # a token before and after; "" where it was put in, or pushed out
Texts = Sequence[str] | Sequence[Sequence[str]] | Tensor
Sentences = Sequence[Sequence[str]]


@dataclass(frozen=True, eq=False)
class WordResult:
    """Changed sentences, each checked on the real forward pass.

    Attributes:
        edits: per sentence, every token before and after.
        inputs: (n, length, d) the changed sentences as the model read them.
        success: (n,) bool; the model misclassifies `inputs`. Clean errors count. A lower bound on vulnerability.
        words_changed: (n,) int64, words exchanged or put in; survivors hold the attempt of lowest margin.
        queries: (n,) int64, sentences sent through the model, the checks included.
        status: per sentence "clean_error", "fooled", "survived", "model_failure", or "left_out" where the attack
            does not apply.
    """

    edits: tuple[tuple[Edit, ...], ...]
    inputs: Tensor
    success: Tensor
    words_changed: Tensor
    queries: Tensor
    status: tuple[str, ...]

    @property
    def texts(self) -> tuple[str, ...]:
        """The changed sentences."""
        return tuple(" ".join(after for _, after in edits if after) for edits in self.edits)

    def measurements(self, name: str, settings: dict[str, Any]) -> list[Measurement]:
        """Success (0 or 1, lower bound), words changed where fooled, and queries, as measurements."""
        tried = torch.tensor([status not in ("model_failure", "left_out") for status in self.status])
        fooled = torch.tensor([status == "fooled" for status in self.status])
        details = {"edits": self.edits, "status": self.status, "inputs": self.inputs}
        return [
            Measurement(
                f"{name}_success",
                self.success.double().masked_fill(~tried, torch.nan),
                unit="1",
                bound="lower",
                settings=settings,
                valid=tried,
                details={**details, "reason": ["" if fine else "not attacked" for fine in tried.tolist()]},
            ),
            Measurement(
                f"{name}_words",
                self.words_changed.double().masked_fill(~fooled, torch.nan),
                unit="words",
                bound="upper",
                settings=settings,
                valid=fooled,
                details={"reason": ["" if fine else "not fooled" for fine in fooled.tolist()]},
            ),
            Measurement(f"{name}_queries", self.queries.double(), unit="passes", bound="exact", settings=settings),
        ]


class Questions:
    """Margin losses max_{j != y} f_j - f_y of one sentence's variants, positive where fooled, within a budget."""

    def __init__(self, model: nn.Module, vocabulary: Vocabulary, length: int, label: int, budget: int) -> None:
        self.model, self.vocabulary, self.length, self.label = model, vocabulary, length, label
        self.left, self.asked = budget, 0

    def __call__(self, sentences: Sentences) -> list[float]:
        """Losses of the first sentences that the budget allows; a failing output counts as -inf."""
        sentences = sentences[: self.left]
        if not sentences:
            return []
        self.left -= len(sentences)
        self.asked += len(sentences)
        inputs = self.vocabulary.encode(sentences, self.length, strict=False).to(model_device(self.model))
        labels = torch.full((len(sentences),), self.label, device=inputs.device)
        logits = check_class_outputs(call_model(self.model, inputs), len(inputs), labels)
        losses = torch.where(logits.isfinite().all(dim=1), margin_loss(logits, labels), -torch.inf)
        return [float(loss) for loss in losses]


Change = Callable[[Questions, list[str]], Sequence[Edit]]


def attack_sentences(
    model: nn.Module,
    vocabulary: Vocabulary,
    length: int,
    texts: Texts,
    y: Tensor,
    budget: int,
    change: Change,
    good: int,
) -> WordResult:
    """Change each correctly classified sentence, and check all of them together.

    Args:
        model: of (n, length, d), giving (n, classes).
        vocabulary: turns sentences into inputs.
        length: tokens of an input.
        texts: sentences, lists of tokens, or inputs that `Vocabulary.encode` made.
        y: labels (n,).
        budget: queries per sentence.
        change: the search: from questions and tokens to edits.
        good: sentences of this label are left out; -1 for none.
    """
    check_model(model)
    if isinstance(texts, str):
        raise TypeError(f"texts must be a list, got the one text {texts[:40]!r}; write [text]")
    known = vocabulary.decode(texts) if isinstance(texts, Tensor) else texts
    sentences = [words_of(text, row)[:length] for row, text in enumerate(known)]
    if not sentences:
        raise ValueError("there are no sentences; pass at least one")
    labels = check_labels(y, len(sentences))
    clean = vocabulary.encode(sentences, length, strict=not isinstance(texts, Tensor))
    edits: list[tuple[Edit, ...]] = [tuple((token, token) for token in sentence) for sentence in sentences]
    queries = torch.full((len(sentences),), 2)  # the look at the clean sentence, and the last check
    device = model_device(model)
    with probing(model), torch.no_grad():
        logits = check_class_outputs(call_model(model, clean.to(device)), len(clean), labels).cpu()
        finite, wrong = logits.isfinite().all(dim=1), logits.argmax(dim=1) != labels.cpu()
        tried = finite & ~wrong & (labels.cpu() != good)
        for row in tried.nonzero().flatten().tolist():
            questions = Questions(model, vocabulary, length, int(labels[row]), budget)
            edits[row] = tuple(change(questions, sentences[row]))
            queries[row] += questions.asked
        changed = [[after for _, after in pairs if after] for pairs in edits]
        inputs = vocabulary.encode(changed, length, strict=False)
        logits = call_model(model, inputs.to(device)).cpu()
        fooled = tried & (logits.argmax(dim=1) != labels.cpu()) & logits.isfinite().all(dim=1)
    left_out = (labels.cpu() == good) & finite & ~wrong
    code = torch.where(fooled, 1, torch.where(wrong, 0, 2)).masked_fill(left_out, 4).masked_fill(~finite, 3)
    return WordResult(
        edits=tuple(edits),
        inputs=inputs,
        success=fooled | (wrong & finite),
        words_changed=torch.tensor([sum(a != b and b != "" for a, b in pairs) for pairs in edits]),
        queries=queries,
        status=tuple((*STATUSES, "left_out")[k] for k in code.tolist()),
    )
