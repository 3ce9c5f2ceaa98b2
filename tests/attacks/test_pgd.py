"""PGD: search, bookkeeping, rough activations, and what it leaves untouched."""

import itertools

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from smoothness.attacks import FGSM, PGD, Noise, margin_loss
from smoothness.attacks.losses import LOSSES, rival_logits
from smoothness.models import build_model
from smoothness.threat import ThreatModel

LINF = ThreatModel("linf", 0.1)


def network(activation="relu", features=6, seed=0, dtype=torch.float64, width=24):
    return build_model("mlp", activation, seed=seed, input_shape=(features,), classes=3, width=width).to(dtype)


def batch(model, n=30, features=6, dtype=torch.float64, seed=0):
    x = torch.rand(n, features, generator=torch.Generator().manual_seed(seed), dtype=dtype)
    with torch.no_grad():
        y = model(x).argmax(dim=1)
    y[::7] = (y[::7] + 1) % 3  # some clean errors
    return x, y


class Counting(nn.Module):
    """Counts examples sent forward, and gradients that come back."""

    def __init__(self, model):
        super().__init__()
        self.model, self.forwards, self.backwards = model, 0, 0

    def forward(self, x):
        self.forwards += len(x)
        outputs = self.model(x)
        if outputs.requires_grad:
            outputs.register_hook(self._back)
        return outputs

    def _back(self, gradient):
        self.backwards += len(gradient)


class ForeignStep(nn.Module):
    """A step whose result has no graph."""

    def forward(self, z):
        return (z > 0).to(z.dtype)


class NotANumber(nn.Module):
    """NaN wherever the first feature exceeds a limit."""

    def __init__(self, model, limit):
        super().__init__()
        self.model, self.limit = model, limit

    def forward(self, x):
        return self.model(x) + torch.where(x[:, :1] > self.limit, torch.nan, 0.0)


@pytest.mark.parametrize("loss", ["ce", "margin"])
def test_the_direction_is_the_gradient_of_the_loss_up_to_a_positive_factor(loss):
    logits = torch.randn(20, 5, generator=torch.Generator().manual_seed(0), dtype=torch.float64, requires_grad=True)
    labels = torch.arange(20) % 5
    losses = F.cross_entropy(logits, labels, reduction="none") if loss == "ce" else margin_loss(logits, labels)
    (expected,) = torch.autograd.grad(losses.sum(), logits)
    column = labels.unsqueeze(1)
    ascent = LOSSES[loss](rival_logits(logits.detach(), column), column)
    torch.testing.assert_close(F.normalize(ascent, dim=1), F.normalize(expected, dim=1))
    assert bool(((ascent * expected).sum(dim=1) > 0).all())


def test_two_dimensions_against_a_grid():
    model = network("tanh", features=2, seed=3)
    x, y = batch(model, n=25, features=2)
    attack = PGD(LINF, loss="margin", restarts=3, drop_fooled=False)
    offsets = torch.linspace(-0.1, 0.1, 81, dtype=torch.float64)
    grid = torch.cartesian_prod(offsets, offsets)
    with torch.no_grad():
        candidates = (x.unsqueeze(1) + grid).clamp(0, 1)
        best = margin_loss(model(candidates.flatten(0, 1)), y.repeat_interleave(len(grid))).view(25, -1).amax(dim=1)
        result = attack(model, x, y)
        reached = margin_loss(model(result.inputs), y)
    attacked = torch.tensor([status != "clean_error" for status in result.status])
    assert bool((reached >= best - 1e-3)[attacked].all())
    assert bool((result.success | (best <= 1e-3)).all())


def test_statuses_successes_and_distances_agree():
    model = network()
    x, y = batch(model)
    result = PGD(LINF)(model, x, y)
    with torch.no_grad():
        wrong_clean, wrong = model(x).argmax(dim=1) != y, model(result.inputs).argmax(dim=1) != y
    assert {"clean_error", "fooled", "survived"} == set(result.status)
    assert torch.equal(result.success, wrong)
    status = torch.tensor([["clean_error", "fooled", "survived"].index(s) for s in result.status])
    assert torch.equal(status == 0, wrong_clean)
    assert torch.equal(result.inputs[wrong_clean], x[wrong_clean])
    assert bool((result.distance[status == 0] == 0).all())
    assert bool((result.distance[status == 2] == torch.inf).all())
    expected = (result.inputs - x).abs().amax(dim=1)
    torch.testing.assert_close(result.distance[status == 1], expected[status == 1])


def test_more_steps_and_restarts_never_raise_the_margin_kept():
    model = network()
    x, y = batch(model)
    kept = []
    for steps, restarts in ((1, 1), (5, 1), (20, 1), (20, 2), (20, 4)):
        attack = PGD(LINF, steps=steps, step_size=0.01, restarts=restarts, drop_fooled=False)
        with torch.no_grad():
            kept.append(margin_loss(model(attack(model, x, y).inputs), y))
    for fewer, more in itertools.pairwise(kept):
        assert bool((more >= fewer - 1e-12).all())


def test_dropping_early_or_late_gives_the_same_points():
    model = network()
    x, y = batch(model, n=60)
    early, late = (PGD(LINF, drop_fooled=how, restarts=2)(model, x, y) for how in (True, "auto"))
    torch.testing.assert_close(early.inputs, late.inputs, atol=1e-6, rtol=0)
    assert early.status == late.status
    kept = PGD(LINF, drop_fooled=False, restarts=2)(model, x, y)
    assert early.passes.total < late.passes.total < kept.passes.total
    assert bool((kept.success >= early.success).all())


@pytest.mark.parametrize(
    "attack",
    [
        PGD(LINF, restarts=2),
        PGD(LINF, drop_fooled=False),
        PGD(LINF, drop_fooled=True),
        PGD(LINF, random_start=False),
        PGD(ThreatModel("l2", 0.2), loss="margin"),
        FGSM(LINF),
        Noise(LINF),
        Noise(LINF, kind="corner", drop_fooled=False),
    ],
    ids=lambda attack: attack.label,
)
def test_passes_are_counted_and_batches_do_not_matter(attack):
    model = Counting(network())
    x, y = batch(model.model)
    whole = attack(model, x, y)
    assert whole.passes == (model.forwards, model.backwards)
    for size in (1, 7):
        part = type(attack)(**{**vars(attack), "batch_size": size})(model.model, x, y)
        torch.testing.assert_close(part.inputs, whole.inputs, atol=1e-6, rtol=0)
        assert part.status == whole.status
    again = attack(model.model, x, y)
    assert torch.equal(again.inputs, whole.inputs)
    assert torch.equal(again.distance, whole.distance)


def test_passes_without_dropping_are_known_beforehand():
    model = network()
    x, y = batch(model)
    with torch.no_grad():
        right = int((model(x).argmax(dim=1) == y).sum())
    n = len(x)
    assert PGD(LINF, drop_fooled=False)(model, x, y).passes == (n + 42 * right, n + 40 * right)
    assert FGSM(LINF)(model, x, y).passes.backward == n
    assert Noise(LINF, drop_fooled=False)(model, x, y).passes == (n + 41 * right, 0)


def test_steps_without_gradient_need_a_surrogate():
    model = build_model("mlp", "step", seed=1, input_shape=(6,), classes=3, width=64)
    x, y = batch(model, n=60, dtype=torch.float32)
    native, surrogate = PGD(LINF, restarts=2)(model, x, y), PGD(LINF, restarts=2, surrogate="tanh")(model, x, y)
    start = Noise(LINF, draws=2)(model, x, y)
    assert bool(native.zero_gradient.all())
    assert not bool(surrogate.zero_gradient.any())
    assert torch.equal(native.success, start.success)
    assert int(surrogate.success.sum()) > int(native.success.sum())


@pytest.mark.parametrize("place", [0, 1])
def test_a_step_without_a_graph_counts_as_zero_gradient(place):
    layers = [nn.Linear(6, 6, dtype=torch.float64), nn.Linear(6, 3, dtype=torch.float64)]
    model = nn.Sequential(layers[0], ForeignStep(), layers[1]) if place else nn.Sequential(ForeignStep(), layers[1])
    x, y = batch(model)
    result = PGD(LINF)(Counting(model), x, y)
    assert bool(result.zero_gradient.all())
    assert result.passes.backward == 0
    assert torch.equal(FGSM(LINF)(model, x, y).inputs, x)


def test_gradient_starved_of_numbers_does_not_move_the_point():
    class Root(nn.Module):
        def forward(self, x):
            return torch.stack([x[:, 0].sqrt() + 1, x[:, 1]], dim=1)  # infinite slope at 0

    x = torch.tensor([[0.0, 0.5]])
    for norm in ("linf", "l2", "l1"):
        result = PGD(ThreatModel(norm, 0.1), random_start=False)(Root(), x, torch.tensor([0]))
        assert bool(result.inputs.isfinite().all())
        assert result.status == ("survived",)


def test_failing_outputs_are_neither_robust_nor_successes():
    model = network()
    x, y = batch(model)
    result = PGD(LINF)(NotANumber(model, 0.6), x, y)
    failed = torch.tensor([status == "model_failure" for status in result.status])
    assert bool(failed[x[:, 0] > 0.6].all())
    assert not bool(failed[x[:, 0] < 0.45].any())
    assert torch.equal(result.inputs[x[:, 0] > 0.6], x[x[:, 0] > 0.6])
    assert not bool((result.success & failed).any())
    assert bool((result.distance[failed] == torch.inf).all())
    assert bool(result.inputs.isfinite().all())


def test_failures_met_on_the_way_are_reported():
    model = NotANumber(nn.Linear(2, 2), 0.55)
    with torch.no_grad():
        model.model.weight.copy_(torch.tensor([[-1.0, 0.0], [0.0, 0.0]]))
        model.model.bias.copy_(torch.tensor([5.0, 0.0]))
    x = torch.tensor([[0.5, 0.5], [0.1, 0.5]])
    assert PGD(LINF)(model, x, torch.tensor([0, 0])).status == ("model_failure", "survived")


def test_the_model_and_the_random_state_are_left_as_they_were():
    class Failing(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer, self.drop, self.calls = nn.Linear(6, 3), nn.Dropout(0.5), 0

        def forward(self, x):
            self.calls += 1
            if self.calls > 3:
                raise RuntimeError("broken")
            assert not self.training
            return self.drop(self.layer(x))

    model = Failing().train()
    model.drop.eval()
    model.layer.bias.requires_grad_(False)
    model.layer.weight.grad = torch.ones_like(model.layer.weight)
    x, y = torch.rand(4, 6), torch.zeros(4, dtype=torch.long)
    y[:] = int(model.layer(x[:1]).argmax())
    before = torch.random.get_rng_state()
    with pytest.raises(RuntimeError, match="broken"):
        PGD(LINF, drop_fooled=False)(model, x, y)
    assert model.training
    assert not model.drop.training
    assert model.layer.weight.requires_grad
    assert not model.layer.bias.requires_grad
    assert torch.equal(model.layer.weight.grad, torch.ones_like(model.layer.weight))
    assert torch.equal(torch.random.get_rng_state(), before)


@pytest.mark.parametrize("guard", [torch.no_grad, torch.inference_mode])
def test_gradients_are_found_inside_no_grad_and_inference_mode(guard):
    model = network()
    x, y = batch(model)
    expected = PGD(LINF)(model, x, y)
    with guard():
        result = PGD(LINF)(model, x * 1, y * 1)
    assert torch.equal(result.inputs, expected.inputs)


def test_memory_running_out_halves_the_batch():
    class Small(nn.Module):
        def __init__(self, model):
            super().__init__()
            self.model = model

        def forward(self, x):
            if len(x) > 8:
                raise torch.OutOfMemoryError("CUDA out of memory")
            return self.model(x)

    model = network()
    x, y = batch(model)
    with pytest.warns(UserWarning, match="pass batch_size="):
        result = PGD(LINF)(Small(model), x, y)
    torch.testing.assert_close(result.inputs, PGD(LINF)(model, x, y).inputs, atol=1e-6, rtol=0)


def test_a_model_may_compute_in_another_precision():
    class Cast(nn.Module):
        def __init__(self, model):
            super().__init__()
            self.model = model

        def forward(self, x):
            return self.model(x.double())

    model = Cast(network())
    x, y = batch(model, dtype=torch.float32)
    result = PGD(LINF)(model, x, y)
    assert result.inputs.dtype == torch.float32
    assert "fooled" in result.status


def test_seeds_differ():
    model = network()
    x, y = batch(model)
    first, second = (PGD(LINF, seed=seed, steps=2, step_size=1e-3, drop_fooled=False)(model, x, y) for seed in (0, 1))
    assert not torch.equal(first.inputs, second.inputs)
