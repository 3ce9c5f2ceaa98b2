"""Balls around embedded sentences: the cascade against a closed form, nothing clipped, padding without a say."""

import pytest
import torch
from torch import nn

import smoothness as sm
from smoothness.vocabulary import PADDING, glove, is_word

TEXTS = ["how do i freeze my card", "what is the weather in london today", "pay my bill"]


class MeanOfWords(nn.Module):
    """Logits W · mean of the words' vectors: linear inside every ball that leaves `is_word` alone."""

    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(50, 4)
        with torch.no_grad():
            self.linear.weight.copy_(torch.randn(4, 50, generator=torch.Generator().manual_seed(0)))

    def forward(self, x):
        words = is_word(x).unsqueeze(2)
        return self.linear((x * words).sum(dim=1) / words.sum(dim=1).clamp_min(1))


def sentences(model, length=8):
    x = glove().encode(TEXTS, length)
    with torch.no_grad():
        return x, model(x).argmax(dim=1)


def test_a_linear_reader_falls_just_beyond_the_closed_form():
    """L words share the ball: |δ|_2 <= ε moves W · mean by at most ε |w_y - w_j| / √L."""
    model = MeanOfWords()
    x, y = sentences(model)
    weight = model.linear.weight.detach()
    with torch.no_grad():
        logits = model(x)
    gaps = (logits.gather(1, y[:, None]) - logits) * is_word(x).sum(dim=1, keepdim=True).sqrt()
    apart = torch.stack([(weight[label] - weight).norm(dim=1) for label in y.tolist()])
    exact = (gaps / apart).scatter(1, y[:, None], torch.inf).amin(dim=1)
    for row in range(len(TEXTS)):
        threat = sm.ThreatModel("l2", 1.01 * float(exact[row]), bounds=None)
        assert sm.Cascade(threat)(model, x[row : row + 1], y[row : row + 1]).success.all()
    threat = sm.ThreatModel("l2", 0.99 * float(exact.min()), bounds=None)
    assert not sm.Cascade(threat)(model, x, y).success.any()


@pytest.mark.slow
def test_every_stage_runs_on_a_sentence():
    model = sm.build_model("text_cnn", "softplus", input_shape=(4, 50), classes=3, width=4)
    x = glove().encode(TEXTS[2:], 4)
    found = sm.Cascade(sm.ThreatModel("l2", 1e-6, bounds=None), "full")(model, x, model(x).argmax(dim=1))
    assert found.status == ("survived",)  # so that every stage had its turn
    names = {stage.name: stage.passes.forward for stage in found.stages if not stage.note}
    expected = ["noise", "native", "surrogate", "continuation", "transfer", "evolution", "square", "boundary"]
    assert set(names) >= set(expected)
    assert min(names.values()) > 0


@pytest.mark.parametrize("architecture", ["text_cnn", "transformer"])
@pytest.mark.parametrize("norm", ["l2", "linf"])
def test_nothing_is_clipped_and_padding_has_no_say(architecture, norm):
    model = sm.build_model(architecture, "softplus", input_shape=(8, 50), classes=4, width=8)
    x, y = sentences(model)
    found = sm.Cascade(sm.ThreatModel(norm, 3.0, bounds=None))(model, x, y)
    moved = (found.inputs - x).flatten(1)
    size = moved.abs().amax(dim=1) if norm == "linf" else moved.norm(dim=1)
    assert (size <= 3 + 1e-5).all()
    assert found.success.all()
    assert found.inputs[x != PADDING].abs().max() > 1  # no unit box
    padding = (x == PADDING).all(dim=2, keepdim=True)
    with torch.no_grad():
        assert torch.equal(model(torch.where(padding, x, found.inputs)).argmax(1), model(found.inputs).argmax(1))
