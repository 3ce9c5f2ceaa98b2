"""The residual network and the vision transformer: twins, training, and what the instruments make of them."""

import copy
import itertools
import math

import pytest
import torch
from torch import nn

import smoothness as sm
from smoothness.activations import list_activations
from smoothness.analyzers.kinks import kinks_on_segments
from smoothness.bounds.reading import read_network
from smoothness.models import build_model, build_record, build_twins, weights_fingerprint
from smoothness.models.vit import Attention

SMALL = {"resnet": {"width": 8, "depth": 2}, "vit": {"width": 16, "depth": 2, "heads": 2}}


def small(architecture, activation="relu", **options):
    settings = {"seed": 0, "input_shape": (1, 8, 8), "classes": 3, **SMALL[architecture], **options}
    return build_model(architecture, activation, **settings)


@pytest.mark.parametrize("normalisation", ["batch", "group", "layer", "none"])
@pytest.mark.parametrize("architecture", ["resnet", "vit"])
def test_twins_are_equal_to_the_bit(architecture, normalisation):
    if architecture == "vit" and normalisation in ("batch", "group"):
        pytest.skip("normalises tokens alone")
    several = ("maxout", *(("group_sort", "k_winners") if architecture == "vit" else ()))
    names = [name for name in list_activations() if name not in several]
    twins = build_twins(
        architecture, names, input_shape=(3, 8, 12), classes=4, normalisation=normalisation, **SMALL[architecture]
    )
    first = twins["relu"].state_dict()
    for model in twins.values():
        state = model.state_dict()
        assert all(torch.equal(state[name], value) for name, value in first.items())
        assert all("activation" in name for name in state.keys() - first.keys())  # learnable slopes
    assert twins["gelu"](torch.rand(2, 3, 8, 12)).shape == (2, 4)


def test_gains_divide_out_of_the_fingerprint():
    twins = build_twins("vit", ["relu", "tanh"], input_shape=(1, 8, 8), classes=3, gain={"tanh": 1.0}, **SMALL["vit"])
    relu, tanh = (weights_fingerprint(m, build_record(m).gain) for m in twins.values())
    assert relu == pytest.approx(tanh, rel=1e-6)


@pytest.mark.parametrize("depth", [1, 2, 4])
def test_the_sum_of_all_branches_has_the_size_of_one(depth):
    """Var(closing layer) = gain² / (fan_in · branches), independent of the other layers."""
    model = build_model("resnet", input_shape=(1, 8, 8), classes=3, width=32, depth=depth, gain=1.5)
    closing = model.get_submodule(f"block{2 * depth}.branch.conv2").weight
    opening = model.get_submodule(f"block{2 * depth}.branch.conv1").weight
    assert closing.std().item() == pytest.approx(1.5 / math.sqrt(64 * 9 * 2 * depth), rel=0.02)
    assert opening.std().item() == pytest.approx(1.5 / math.sqrt(opening[0].numel()), rel=0.03)


@pytest.mark.parametrize("normalisation", ["batch", "none"])
def test_layers_on_the_longest_path(normalisation):
    model = small("resnet", normalisation=normalisation)
    convolutions = [m for m in model.modules() if isinstance(m, nn.Conv2d) and m.kernel_size == (3, 3)]
    assert len(convolutions) + 1 == 4 * 2 + 2
    assert any(isinstance(m, nn.BatchNorm2d) for m in model.modules()) == (normalisation == "batch")
    assert build_model("resnet", "maxout", input_shape=(1, 8, 8), classes=3, width=4)(
        torch.rand(2, 1, 8, 8)
    ).shape == (2, 3)


def test_attention_agrees_with_torch():
    """Second implementation: nn.MultiheadAttention with the same weights."""
    ours, theirs = Attention(12, 3).double(), nn.MultiheadAttention(12, 3, batch_first=True).double()
    with torch.no_grad():
        theirs.in_proj_weight.copy_(torch.cat([ours.query.weight, ours.key.weight, ours.value.weight]))
        theirs.in_proj_bias.copy_(torch.cat([ours.query.bias, ours.key.bias, ours.value.bias]))
        theirs.out_proj.load_state_dict(ours.joined.state_dict())
    x = torch.randn(2, 5, 12, dtype=torch.float64)
    torch.testing.assert_close(ours(x), theirs(x, x, x)[0])


def test_patches_become_tokens_in_reading_order():
    model = small("vit", normalisation="none")
    x = torch.zeros(1, 1, 8, 8)
    x[0, 0, 0, 4] = 1  # the second of 2 x 2 patches
    tokens = model.tokens(model.patches(x))
    assert tokens.shape == (1, 4, 16)
    assert tokens[0].abs().sum(dim=1).bool().tolist() == [False, True, False, False]


@pytest.mark.parametrize("activation", ["relu", "gelu", "softplus", "tanh", "step"])
@pytest.mark.parametrize(
    ("architecture", "normalisation"), [("resnet", "batch"), ("resnet", "none"), ("vit", "layer"), ("vit", "none")]
)
def test_every_activation_trains(architecture, normalisation, activation):
    digits = sm.load_dataset("digits")
    data = sm.Dataset(
        "part",
        digits.train.balanced(300),
        digits.validation,
        digits.test,
        digits.classes,
        digits.bounds,
        digits.source,
    )
    model = small(architecture, activation, classes=10, depth=1, normalisation=normalisation)
    result = sm.train(model, data, sm.Recipe(epochs=12, batch_size=50, learning_rates=(1e-2,)))
    assert result.losses[-1] < 0.9 * result.losses[0]
    assert result.validation_accuracy[0] > 0.3  # by chance 0.1


@pytest.mark.parametrize("normalisation", ["batch", "none"])
def test_bounds_and_kinks_of_a_residual_network(normalisation):
    model = small("resnet", depth=1, width=3, normalisation=normalisation)
    with torch.no_grad():  # as after training
        for module in model.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.running_mean.normal_(generator=torch.Generator().manual_seed(1))
                module.running_var.fill_(1.7)
    x = torch.rand(2, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    points = torch.rand(20, 64, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    double = copy.deepcopy(model).eval().double()
    read = read_network(model, x[:1]).run(points)[1]
    torch.testing.assert_close(read, double(points.view(-1, 1, 8, 8)).detach())
    lower = sm.LipschitzLowerBound(norm="l2", radius=0.02)(model, x).values
    upper = sm.LipschitzUpperBound(norm="l2", radius=0.02)(model, x).values
    assert (lower <= upper).all()
    assert (lower > 0.5 * upper).all()
    # Between kinks, f is affine on the segment: the second difference of three points of one piece is zero.
    table = kinks_on_segments(model, x[:1], x[1:])
    ends = torch.cat([torch.zeros(1), table.position.float().sort().values, torch.ones(1)]).double()
    assert len(table.position) > 5
    start, step = x[:1].double(), (x[1:] - x[:1]).double()
    for left, right in itertools.pairwise(ends):
        if right - left > 1e-4:
            inner = left + (right - left) * torch.tensor([0.01, 0.5, 0.99], dtype=torch.float64)
            low, middle, high = double(start + inner.view(-1, 1, 1, 1) * step).detach()
            torch.testing.assert_close(middle, (low + high) / 2, atol=1e-9, rtol=0)


@pytest.mark.parametrize(
    ("architecture", "normalisation", "named"),
    [
        ("vit", "none", r"'matmul' of module 'mix1\.branch\.attention' \(Attention\)"),
        ("vit", "layer", r"'mix1\.branch\.norm' \(LayerNorm\) cannot be read: it divides"),
        ("resnet", "group", r"'block1\.branch\.norm1' \(GroupNorm\)"),
    ],
)
def test_what_cannot_be_bounded_is_named_and_the_lower_bound_works(architecture, normalisation, named):
    model = small(architecture, "gelu", depth=1, normalisation=normalisation)
    x = torch.rand(1, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    with pytest.raises(TypeError, match=named):
        sm.LipschitzUpperBound(norm="l2", radius=0.1)(model, x)
    assert sm.LipschitzLowerBound(norm="l2", radius=0.1)(model, x).values.item() > 0
    assert sm.InputCurvature()(model, x).curvature.values.item() > 0  # second derivatives go through


@pytest.mark.parametrize("architecture", ["resnet", "vit"])
def test_swapping_gives_the_twin(architecture):
    twins = build_twins(architecture, ["relu", "tanh"], input_shape=(1, 8, 8), classes=3, **SMALL[architecture])
    x = torch.rand(3, 1, 8, 8)
    swapped = sm.swap_activations(twins["relu"].eval(), to="tanh")
    assert torch.equal(swapped(x), twins["tanh"].eval()(x))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"architecture": "resnet", "normalisation": "bach"}, "unknown normalisation 'bach'; did you mean 'batch'"),
        ({"architecture": "vit", "normalisation": "batch"}, "unknown normalisation 'batch'"),
        ({"architecture": "resnet", "input_shape": (9,)}, "resnet needs input_shape"),
        ({"architecture": "vit", "input_shape": (9,)}, "vit needs input_shape"),
        ({"architecture": "resnet", "input_shape": (1, 3, 8)}, "too small for resnet"),
        ({"architecture": "vit", "patch": 3}, "patch 3 does not divide images of 8 x 8"),
        ({"architecture": "vit", "heads": 5}, "heads 5 does not divide width 64"),
        ({"architecture": "vit", "activation": "maxout"}, "elementwise activations"),
        ({"architecture": "resnet", "depth": 0}, "depth must be a whole number of at least 1"),
    ],
)
def test_bad_arguments(arguments, message):
    with pytest.raises(ValueError, match=message):
        build_model(**{"input_shape": (1, 8, 8), "classes": 3, **arguments})
