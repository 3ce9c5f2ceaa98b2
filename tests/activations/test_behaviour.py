"""Every entry under torch's transformations, copies and dtypes; parameters out of range; several features."""

import copy
import math
import pickle
import warnings

import mpmath
import pytest
import torch

from smoothness.activations import activation, list_activations

Z = torch.randn(6, 12, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def _run(function, z):
    z = z.clone().requires_grad_()
    value = function(z)
    value.square().sum().backward()
    return value.detach(), z.grad


def _row(module):
    return lambda row: module(row.unsqueeze(0)).squeeze(0)


@pytest.mark.parametrize("name", list_activations())
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_transformations_and_copies(name, dtype):
    module, z = activation(name).eval().to(dtype), Z.to(dtype)
    value, slope = _run(module, z)
    assert value.dtype == slope.dtype == dtype
    close = {"rtol": 32 * torch.finfo(dtype).eps, "atol": 32 * torch.finfo(dtype).eps}
    torch.testing.assert_close(torch.func.vmap(_row(module))(z), value, **close)
    torch.testing.assert_close(torch.func.grad(lambda x: module(x).square().sum())(z), slope, **close)
    jacobian = torch.func.vmap(torch.func.jacrev(_row(module)))(z)
    torch.testing.assert_close(2 * torch.einsum("no,noi->ni", value, jacobian), slope, **close)
    fresh = activation(name).eval().to(dtype)
    fresh.load_state_dict(module.state_dict())
    for twin in (copy.deepcopy(module), pickle.loads(pickle.dumps(module)), fresh):
        assert torch.equal(twin(z), value)
        assert twin.facts() == module.facts() or math.isnan(module.facts().slope_variation)
    assert module(torch.full_like(z, math.nan)).isnan().all()


COMPILED = ("relu", "step", "mish", "celu", "prelu", "sigmoid_staircase", "group_sort", "k_winners")


@pytest.mark.parametrize(
    "name", [pytest.param(n, marks=[] if n in COMPILED else pytest.mark.slow) for n in list_activations()]
)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_compiled_is_the_same(name, dtype):
    module, z = activation(name).eval().to(dtype), Z.to(dtype)
    torch._dynamo.reset()
    warnings.simplefilter("ignore")  # torch's own, where it breaks the graph at our steps
    for ours, compiled in zip(_run(module, z), _run(torch.compile(module, backend="aot_eager"), z), strict=True):
        assert torch.equal(ours, compiled)


POSITIVE = [
    *(("softplus", "beta"), ("softplus", "threshold"), ("centred_softplus", "beta"), ("squareplus", "b")),
    *(("smooth_relu", "alpha"), ("elu", "alpha"), ("celu", "alpha"), ("swish", "beta"), ("psilu", "alpha")),
    *(("pssilu", "alpha"), ("tanh", "steepness"), ("softshrink", "lambd"), ("hardshrink", "lambd"), ("tent", "width")),
    *(("sin", "frequency"), ("snake", "frequency"), ("sigmoid_staircase", "temperature"), ("kinked_linear", "chi")),
]
FINITE = [("leaky_relu", "negative_slope"), ("prelu", "init"), ("rrelu", "lower"), ("kinked_linear", "kink")]
COUNTS = [
    *(("staircase", "levels", 2), ("sigmoid_staircase", "levels", 2), ("quantised_relu", "bits", 1)),
    *(("k_winners", "k", 1), ("maxout", "pool", 2), ("group_sort", "size", 2)),
]


@pytest.mark.parametrize(("name", "parameter"), POSITIVE)
def test_positive_parameters(name, parameter):
    for bad in (0, -1.0, math.nan, math.inf):
        with pytest.raises(ValueError, match=f"{parameter} must be a positive finite number, got {bad}"):
            activation(name, **{parameter: bad})


@pytest.mark.parametrize(("name", "parameter"), POSITIVE + FINITE)
def test_parameters_are_numbers(name, parameter):
    for bad in ("1", True, None):
        with pytest.raises(TypeError, match=f"{parameter} must be a number, got .*{bad}"):
            activation(name, **{parameter: bad})
    with pytest.raises(ValueError, match=f"{parameter} must be a .*finite number, got nan"):
        activation(name, **{parameter: math.nan})
    with pytest.raises(ValueError, match=f"{name}' has no parameter 'colour'; it takes .*{parameter}"):
        activation(name, colour=1)


@pytest.mark.parametrize(("name", "parameter", "least"), COUNTS)
def test_counts(name, parameter, least):
    for bad in (0, -1, least - 1, 2.5, "3", True):
        with pytest.raises(ValueError, match=f"{parameter} must be a whole number of at least {least}, got {bad!r}"):
            activation(name, **{parameter: bad})


@pytest.mark.parametrize(
    ("name", "parameters", "message"),
    [
        *(("pssilu", {"beta": bad}, r"beta must lie in \[0, 1\), got") for bad in (1.0, -0.1, math.nan, "0.1", True)),
        ("kinked_linear", {"kink": 1.5}, r"kink must lie in \[-1.41421, 1.41421\] \(2 √chi\), got 1.5"),
        ("rrelu", {"lower": 0.5, "upper": 0.2}, "lower must not exceed upper, got lower = 0.5 and upper = 0.2"),
        ("hardtanh", {"min_val": 2.0}, "min_val and max_val must be finite and ascend, got 2.0 and 1.0"),
        ("k_winners", {"k": 1, "fraction": 0.5}, "give k or fraction, not both"),
        ("quantised_relu", {"bits": 17}, "bits must lie between 1 and 16, got 17"),
        ("staircase", {"levels": 65537}, "levels must lie between 2 and 65536, got 65537"),
        ("sigmoid_staircase", {"levels": 65537}, "levels must lie between 2 and 65536, got 65537"),
        *(
            (name, {"dim": 1.5}, "dim must be a whole number, the axis .*, got 1.5")
            for name in ("maxout", "group_sort")
        ),
        *(("k_winners", {"fraction": bad}, r"fraction must lie in \(0, 1\], got") for bad in (0, 1.5, math.nan, "1")),
    ],
)
def test_ranges(name, parameters, message):
    with pytest.raises(ValueError, match=message):
        activation(name, **parameters)


def test_layers_that_do_not_fit():
    with pytest.raises(ValueError, match="k must lie between 1 and the layer's 12 features, got 13"):
        activation("k_winners", k=13)(Z)
    with pytest.raises(ValueError, match="pool must divide the 12 features, got 5"):
        activation("maxout", pool=5)(Z)
    with pytest.raises(ValueError, match="size must divide the 12 features, got 7"):
        activation("group_sort", size=7)(Z)
    with pytest.raises(ValueError, match=r"dim must name an axis of the input, got -5 for shape \(6, 12\)"):
        activation("maxout", dim=-5)(Z)


@pytest.mark.parametrize("pool", [2, 3, 4, 5])
def test_moments_of_the_largest_of_several(pool):
    """Order statistics: the density of the largest of n is n cdf^(n - 1) pdf."""

    def expectation(power):
        density = lambda u: pool * mpmath.ncdf(u) ** (pool - 1) * mpmath.npdf(u)  # noqa: E731
        return float(mpmath.quad(lambda u: u**power * density(u), [-12, -4, 0, 4, 12]))

    facts = activation("maxout", pool=pool).facts()
    assert facts.mean == pytest.approx(expectation(1), rel=1e-12)
    assert facts.second_moment == pytest.approx(expectation(2), rel=1e-12)
    assert facts.slope_second_moment == 1.0


def test_what_does_not_apply_to_several_features_is_nan():
    for name in ("k_winners", "maxout", "group_sort"):
        assert math.isnan(activation(name).facts().slope_variation)
        assert "slope_variation" not in activation(name).facts().applicable
    assert math.isnan(activation("maxout", pool=6).facts().mean)
    assert math.isnan(activation("k_winners").facts().mean)


def test_two_points_that_show_the_lipschitz_constants():
    z = torch.tensor([[1.0, 3.0, 2.0, 0.0]], dtype=torch.float64)
    for name in ("group_sort", "maxout"):
        module, moved = activation(name), torch.tensor([[1.0, 4.0, 2.0, 0.0]], dtype=torch.float64)
        assert (module(moved) - module(z)).norm() == (moved - z).norm() == module.facts().lipschitz
    winners, tie = activation("k_winners", k=1), torch.tensor([[1.0, 1.0 + 1e-12]], dtype=torch.float64)
    assert (winners(tie) - winners(tie.flip(1))).abs().max() > 1.0  # apart by 1e-12
    assert winners.facts().lipschitz == math.inf
    assert winners.facts().smoothness_class == -1
