"""More dimensions with the same signal: distances of linear classifiers in closed form."""

import math

import pytest
import torch

from smoothness._norms import DUAL
from smoothness.data import Dataset, Split, load_dataset, noise_dimensions, upsample
from smoothness.testing import check_dataset

ORDER = {"linf": math.inf, "l2": 2.0, "l1": 1.0}


def distance(w, x, norm):
    """|w·x| over w's dual norm, for flat x."""
    return (x.flatten(1).double() @ w).abs() / torch.linalg.vector_norm(w, ord=ORDER[DUAL[norm]])


@pytest.mark.parametrize("norm", ["linf", "l2", "l1"])
@pytest.mark.parametrize("keep", ["values", "l2"])
@pytest.mark.parametrize(("name", "copies"), [("digits", 9), ("gaussians", 3)])
def test_the_table_of_distances(name, copies, keep, norm):
    data = load_dataset(name)
    larger = upsample(data, 3, keep=keep)
    x, big = data.test.inputs[:50], larger.test.inputs[:50]
    assert big[0].numel() == copies * x[0].numel()
    w = torch.randn(x[0].numel(), generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    # The counterpart that is spread evenly: U w / m, or √m times that where values shrink by √m.
    spread = w.view(data.input_shape)
    for axis in range(1 if len(data.input_shape) == 3 else 0, spread.ndim):
        spread = spread.repeat_interleave(3, dim=axis)
    spread = spread.flatten() / copies * (math.sqrt(copies) if keep == "l2" else 1)
    torch.testing.assert_close(big.flatten(1).double() @ spread, x.flatten(1).double() @ w, rtol=1e-5, atol=1e-5)
    power = {"linf": 0.0, "l2": 0.5, "l1": 1.0}[norm] - (0.5 if keep == "l2" else 0)
    torch.testing.assert_close(distance(spread, big, norm), distance(w, x, norm) * copies**power, rtol=1e-4, atol=1e-5)


def test_bilinear_keeps_every_linear_signal():
    """U has full rank: some w' gives Uᵀ w' = w for any w. Values at pixel centres follow from weights of halves."""
    eye = torch.eye(16).view(16, 1, 4, 4)
    split = Split(eye, torch.arange(16) % 2)
    larger = upsample(Dataset("eye", split, split, split, ("a", "b"), (0.0, 1.0), "none"), 2, mode="bilinear")
    u = larger.train.inputs.flatten(1)
    assert torch.linalg.matrix_rank(u) == 16
    assert u.view(16, 8, 8)[5, 2:4, 2:4].tolist() == [[0.5625, 0.5625], [0.5625, 0.5625]]  # 0.75², pixel (1, 1)
    assert larger.bounds == (0.0, 1.0)


@pytest.mark.parametrize("keep", ["values", "l2"])
def test_results_are_data_sets(keep):
    check_dataset(upsample(load_dataset("digits"), 3, keep=keep))
    check_dataset(noise_dimensions(load_dataset("digits"), 10, sigma=0.5))


@pytest.mark.parametrize("norm", ["linf", "l2", "l1"])
def test_noise_leaves_a_classifier_that_ignores_it(norm):
    data = load_dataset("gaussians", dimensions=12)
    longer = noise_dimensions(data, 30, sigma=2.0)
    w = torch.cat([data.direction, torch.zeros(30, dtype=torch.float64)])
    torch.testing.assert_close(
        distance(w, longer.test.inputs, norm), data.minimal_distance(data.test.inputs.double(), norm)
    )


def test_noise_shortens_a_learned_classifier_as_the_formula_says():
    data = load_dataset("gaussians", dimensions=12, train=2000)
    sigma, extra, count = 2.0, 5000, len(data.train)
    longer = noise_dimensions(data, extra, sigma=sigma, seed=1)
    x, y = longer.train.inputs.double(), longer.train.labels
    learned = x[y == 1].mean(dim=0) - x[y == 0].mean(dim=0)
    v = learned[12:]
    assert v.std().item() == pytest.approx(2 * sigma / math.sqrt(count), rel=0.05)
    expected = extra * 2 * sigma * math.sqrt(2 / (math.pi * count))
    assert v.abs().sum().item() == pytest.approx(expected, rel=0.03)
    short = load_dataset("gaussians", dimensions=12).test.inputs.double() @ learned[:12]
    ratio = learned[:12].abs().sum() / (learned[:12].abs().sum() + expected)
    at_signal = short.abs() / (learned[:12].abs().sum() + v.abs().sum())  # the same score, in more dimensions
    torch.testing.assert_close(at_signal, distance(learned[:12], data.test.inputs, "linf") * ratio, rtol=0.03, atol=0)


def test_noise_is_drawn_by_its_seed_and_says_nothing_of_the_label():
    data = load_dataset("digits")
    one, again, other = (noise_dimensions(data, 5, seed=s) for s in (0, 0, 1))
    assert one.version == again.version != other.version
    assert torch.equal(one.train.inputs[:, :64], data.train.inputs.flatten(1))
    assert one.bounds is None


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda d: upsample(d, 0), "factor must be a whole number of at least 1"),
        (lambda d: upsample(d, 2, mode="cubic"), "unknown mode 'cubic'"),
        (lambda d: upsample(d, 2, keep="l1"), "unknown keep 'l1'"),
        (lambda d: upsample(d, 2, mode="bilinear", keep="l2"), "keeps no Euclidean distances"),
        (lambda d: upsample(load_dataset("gaussians"), 2, mode="bilinear"), "flat inputs with mode 'nearest'"),
        (lambda d: noise_dimensions(d, -1), "extra must be a whole number of at least 0"),
        (lambda d: noise_dimensions(d, 1, sigma=-1.0), "sigma must be finite and at least 0"),
    ],
)
def test_bad_arguments(call, message):
    with pytest.raises(ValueError, match=message):
        call(load_dataset("digits"))
