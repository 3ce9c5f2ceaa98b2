"""Networks of sentences: padding changes nothing, twins share weights, a second implementation agrees."""

import pytest
import torch
from torch import nn

import smoothness as sm
from smoothness.vocabulary import EDGE, PADDING, glove

ARCHITECTURES = ["text_cnn", "transformer"]
TEXTS = ["how do i freeze my card", "what is the weather", "pay"]


def build(architecture, activation="gelu", length=8, **sizes):
    return sm.build_model(
        architecture, activation, seed=0, input_shape=(length, 50), classes=4, **{"width": 12, "depth": 2, **sizes}
    )


@pytest.mark.parametrize("activation", ["relu", "softplus", "maxout"])
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_padding_changes_nothing(architecture, activation):
    model = build(architecture, activation).double()
    short, long = (glove().encode(TEXTS, length).double() for length in (6, 11))
    torch.testing.assert_close(model(short), model(long), rtol=1e-12, atol=1e-12)
    alone = glove().encode(TEXTS[2:], 1).double()
    torch.testing.assert_close(model(short)[2:], model(alone), rtol=1e-12, atol=1e-12)
    moved = torch.where((long < EDGE).all(dim=2, keepdim=True), long + 3.9 * torch.rand_like(long), long)
    assert torch.equal(model(moved), model(long))
    leaf = long.clone().requires_grad_()
    model(leaf).square().sum().backward()
    padding = (long == PADDING).all(dim=2)
    assert (leaf.grad[padding] == 0).all()
    assert (leaf.grad[~padding] != 0).any(dim=1).all()


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_twins_share_weights_to_the_bit(architecture):
    twins = sm.build_twins(architecture, ["relu", "tanh"], seed=3, input_shape=(8, 50), classes=4, width=12, depth=2)
    one, other = (twin.state_dict() for twin in twins.values())
    assert one.keys() == other.keys()
    assert all(torch.equal(one[name], other[name]) for name in one)
    found = [type(m).__name__ for m in twins["tanh"].modules()]
    assert found.count("Tanh") == (3 if architecture == "text_cnn" else 2)
    assert "ReLU" not in found


def test_text_cnn_word_by_word():
    model = build("text_cnn", depth=1).double()
    x = glove().encode(["freeze my new card"], 6).double()
    words = [torch.zeros(50), *x[0, :4], torch.zeros(50)]
    weight, bias = model.convs[0].weight, model.convs[0].bias
    seen = [
        torch.stack([sum(weight[f, :, k] @ words[at + k].double() for k in range(3)) + bias[f] for f in range(12)])
        for at in range(4)
    ]
    pooled = torch.stack([nn.functional.gelu(features) for features in seen]).mean(dim=0)
    expected = model.output(nn.functional.gelu(model.linear(pooled)))
    torch.testing.assert_close(model(x)[0], expected, rtol=1e-10, atol=1e-10)


def test_attention_is_torchs_own():
    model = build("transformer", depth=1).double()
    block, x = model.blocks[0], torch.randn(2, 5, 12, dtype=torch.float64)
    ours = nn.MultiheadAttention(12, 2, batch_first=True).double()
    ours.load_state_dict({
        "in_proj_weight": block.mixed.weight, "in_proj_bias": block.mixed.bias,
        "out_proj.weight": block.merged.weight, "out_proj.bias": block.merged.bias,
    })  # fmt: skip
    hidden = torch.zeros(2, 5, dtype=torch.bool)
    hidden[:, 3:] = True
    masked = torch.where(hidden, -1e9, 0.0)[:, None, None]
    normed = block.norm1(x)
    mixed = x + ours(normed, normed, normed, key_padding_mask=hidden)[0]
    expected = mixed + block.narrow(block.activation(block.wide(block.norm2(mixed))))
    torch.testing.assert_close(block(x, masked), expected, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_sizes_that_do_not_fit(architecture):
    with pytest.raises(ValueError, match=rf"{architecture} needs input_shape \(length, features\), got \(1, 8, 8\)"):
        sm.build_model(architecture, input_shape=(1, 8, 8), classes=3)
    with pytest.raises(ValueError, match="width 9 must be a multiple of heads 2"):
        build("transformer", width=9)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_attacks_and_analyzers_run_on_embeddings(architecture):
    model = build(architecture)
    x = glove().encode(TEXTS, 8)
    y = model(x).argmax(dim=1)
    threat = sm.ThreatModel("l2", 2.0, bounds=None)
    found = sm.PGD(threat, steps=10)(model, x, y)
    padding = (x == PADDING).all(dim=2)
    assert ((found.inputs - x).flatten(1).norm(dim=1) <= 2 + 1e-6).all()
    repaired = torch.where(padding.unsqueeze(2), x, found.inputs)  # what moves in the padding does not count
    assert torch.equal(model(repaired).argmax(dim=1), model(found.inputs).argmax(dim=1))
    assert sm.JacobianNorm(of="margin")(model, x, y).values.isfinite().all()
    assert sm.LocalLinearityError("l2", 0.5)(model, x, y).values.isfinite().all()
