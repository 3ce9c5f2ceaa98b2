"""`analyze` against direct calls of the analyzers, and on every kind of model and input."""

import math
import random
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, IterableDataset, TensorDataset

import smoothness as sm
from smoothness.analyzers.frame_rows import finite_curvature_rows, probe_rows, variation_rows
from smoothness.panel.checks import tidy
from smoothness.panel.uses import activations_of


def mlp(activation: str = "relu", seed: int = 0) -> nn.Sequential:
    generator = torch.Generator().manual_seed(seed)
    net = nn.Sequential(nn.Linear(6, 12), sm.activation(activation), nn.Linear(12, 3))
    for parameter in net.parameters():
        parameter.data = torch.randn(parameter.shape, generator=generator)
    return net


X = torch.rand(30, 6, generator=torch.Generator().manual_seed(1))
NET = mlp()
Y = NET(X).argmax(dim=1).clone()
Y[:3] = (Y[:3] + 1) % 3  # some are wrong
THREAT = sm.ThreatModel("linf", 8 / 255)


def small(x=X, y=Y, model=None, **settings) -> sm.Panel:
    return sm.analyze(NET if model is None else model, x, y, **settings)


def values(panel: sm.Panel) -> dict[str, list[float]]:
    return {name: m.values.nan_to_num(-7).flatten().tolist() for name, m in panel.measurements.items()}


def test_same_numbers_as_direct_calls():
    panel, found = small(seed=3), {}
    correct, margin = sm.CleanPredictions()(NET, X, Y)
    found |= {"correct": correct, "margin": margin}
    found["jacobian_norm"] = sm.JacobianNorm(of="margin", seed=3)(NET, X, Y)
    kinks = sm.GradientKinks(segments=8, radius=0.5, seed=3, keep_table=False)(NET, X)
    found |= {m.quantity: m for m in kinks}
    found |= {m.quantity: m for m in variation_rows(sm.GradientVariation(segments=2, radius=0.5, seed=3)(NET, X[:4]))}
    found |= {m.quantity: m for m in sm.PlateauFraction(of="margin", points=16, seed=3)(NET, X[:8])}
    found |= {m.quantity: m for m in sm.InputCurvature(seed=3)(NET, X[:8], Y[:8])}
    found |= {m.quantity: m for m in finite_curvature_rows(sm.InputCurvature(scale=0.25, seed=3)(NET, X[:8], Y[:8]))}
    probed = sm.SmoothnessProbe(segments=1, radius=0.5, seed=3)(NET, X[:2])
    found |= {m.quantity: m for m in (probed.order, *probe_rows(probed))}
    steady = sm.AttributionStability(radius=8 / 255, samples=4, seed=3)(NET, X[:8], Y[:8])
    found |= {m.quantity: m for m in steady}
    for attack in (sm.Noise(THREAT, kind="corner", seed=3), sm.FGSM(THREAT), sm.PGD(THREAT, seed=3),
                   sm.PGD(THREAT, loss="margin", seed=3), sm.Cascade(THREAT, seed=3)):  # fmt: skip
        found[attack.label] = sm.AttackSuccess(attack)(NET, X, Y)
    settings = {"of": "margin", "effort": "fast", "seed": 3}
    few, labels, epsilon = X[:4], Y[:4], THREAT.epsilon
    constant = sm.LocalLipschitz(THREAT.norm, epsilon, **settings)(NET, few, labels)
    moved = sm.LocalOscillation(THREAT.norm, (epsilon,), **settings)(NET, few, labels)
    for what, both in (("local_lipschitz", constant), ("local_oscillation", moved)):
        for side in ("lower", "upper"):
            one = getattr(both, side)
            found[f"{what}_{side}"] = replace(one, values=one.values.view(-1, 1), coords={"epsilon": (epsilon,)})
            divided = panel.measurements[f"{what}_{side}_per_margin"]
            fine = divided.valid
            torch.testing.assert_close(divided.values[fine, 0], (one.values.view(-1) / margin.values[:4])[fine])
            found[divided.quantity] = divided
    found["certified_radius"] = sm.CertifiedRadius(THREAT.norm, effort="fast", evaluations=8)(NET, few, labels)
    ratio = panel.measurements["jacobian_norm_per_margin"]
    right = margin.values > 0
    torch.testing.assert_close(ratio.values[right], (found["jacobian_norm"].values / margin.values)[right])
    assert ratio.valid.tolist() == right.tolist()
    assert ratio.unit == "1 / input l2"
    assert set(panel.measurements) - {ratio.quantity, "pgd-margin-tanh"} == set(found)
    for name, measurement in found.items():
        torch.testing.assert_close(panel.measurements[name].values, measurement.values, rtol=0, atol=0, equal_nan=True)
    assert all(check.passed for check in panel.checks)


def test_masking_is_the_studies_rule():
    from smoothness.report.success import masking

    for activation in ("relu", "step", "tanh"):
        net = mlp(activation)
        panel = small(y=net(X).argmax(dim=1), model=net, threat=sm.ThreatModel("linf", 0.2))
        frame = panel.frame.assign(activation="a", architecture="b", seed=0)
        theirs = masking(frame[frame["valid"]], frame)["a", "b"]
        assert panel.masking is not None
        for name in ("zero_share", "lead", "contradicted"):
            assert getattr(panel.masking, name) == pytest.approx(getattr(theirs, name)), (activation, name)
        assert panel.masking.masked == theirs.masked


def test_step_network_is_masked_and_smooth_one_is_not():
    step = mlp("step")
    panel = small(y=step(X).argmax(dim=1), model=step, threat=sm.ThreatModel("linf", 0.3))
    assert "Native gradients are masked (the gradient is exactly 0 for 100.0 %" in panel.verdict
    assert "pgd-margin-tanh" in panel.measurements
    assert "masked: no evidence" in str(panel)
    smooth = mlp("tanh")
    panel = small(y=smooth(X).argmax(dim=1), model=smooth)
    assert "No sign of masked gradients" in panel.verdict
    assert dict(panel.left_out)["pgd-margin-tanh"].startswith("not needed")
    assert panel.measurements["kink_density"].bound == "exact"


def test_loader_and_tensors_agree_and_the_rest_is_not_read():
    expected = values(small(examples=20))
    loader = DataLoader(TensorDataset(X, Y), batch_size=7)
    assert values(sm.analyze(NET, loader, examples=20)) == expected
    seen = []

    class Endless(IterableDataset):
        def __iter__(self):
            for i in range(10**9):
                seen.append(i)
                yield X[i % 30], Y[i % 30]

    panel = sm.analyze(NET, DataLoader(Endless(), batch_size=5), examples=20)
    assert values(panel) == expected
    assert len(seen) == 20
    assert panel.about["inputs"].startswith("the first 20 examples,")


def test_batch_size_changes_nothing():
    ours, other = values(small()), values(small(batch_size=4))
    assert ours.keys() == other.keys()
    for name in ours:
        assert ours[name] == pytest.approx(other[name], rel=1e-5, abs=1e-6), name


def test_reproducible_with_a_shuffled_loader_and_a_random_model():
    class Noisy(nn.Module):
        def forward(self, x):
            return NET(x) + 0 * torch.rand(1) + 0 * random.random() + 0 * np.random.rand()  # noqa: NPY002

    own = torch.Generator().manual_seed(5)
    for loader in (DataLoader(TensorDataset(X, Y), shuffle=True), DataLoader(TensorDataset(X, Y), shuffle=True,
                                                                            generator=own)):  # fmt: skip
        first = values(sm.analyze(Noisy(), loader, examples=5))
        assert first == values(sm.analyze(Noisy(), loader, examples=5))


def test_nothing_is_changed():
    net = nn.Sequential(nn.Linear(6, 8), nn.Dropout(), nn.ReLU(), nn.BatchNorm1d(8), nn.Linear(8, 3)).train()
    net[3].eval()
    net[0].weight.requires_grad_(False)
    before = {name: value.clone() for name, value in net.state_dict().items()}
    x = X.clone().requires_grad_()
    states = torch.get_rng_state(), np.random.get_state()[1].tolist(), random.getstate()  # noqa: NPY002
    threads = torch.get_num_threads()
    with torch.no_grad():
        sm.analyze(net, x, Y)
        sm.analyze(net, DataLoader(TensorDataset(X, Y), shuffle=True))
        assert not torch.is_grad_enabled()
    with torch.inference_mode():
        assert values(sm.analyze(NET, X.clone(), Y)) == values(small())
    assert torch.equal(torch.get_rng_state(), states[0])
    assert (np.random.get_state()[1].tolist(), random.getstate()) == states[1:]  # noqa: NPY002
    assert torch.get_num_threads() == threads
    assert [m.training for m in net] == [True, True, True, False, True]
    assert [p.requires_grad for p in net.parameters()] == [False, *[True] * 5]
    assert all(p.grad is None for p in net.parameters())
    assert x.grad is None
    assert all(torch.equal(before[name], value) for name, value in net.state_dict().items())
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in net.modules())


def test_without_labels():
    panel = sm.analyze(NET, 5 * X)  # no threat model is needed
    jacobian = sm.JacobianNorm()(NET, 5 * X)
    assert torch.equal(panel.measurements["jacobian_norm"].values, jacobian.values)
    assert {"jacobian_norm", "kink_density", "value_variation", "flat_fraction", "smoothness_order"} <= set(
        panel.measurements
    )
    assert not [name for name in panel.measurements if name.startswith(("attribution", "local", "certified"))]
    assert panel.measurements["flat_fraction"].settings["of"] == "logits"
    assert "need labels" in dict(panel.left_out)["attacks"]
    assert panel.verdict.startswith("No verdict")
    assert panel.masking is None
    assert panel.threat is None
    assert "Attacks" not in str(panel)
    assert len(panel.checks) == 4
    assert values(sm.analyze(NET, DataLoader(TensorDataset(5 * X), batch_size=4))) == values(panel)


def test_a_network_that_is_never_right():
    panel = small(y=(NET(X).argmax(dim=1) + 1) % 3)
    assert "no verdict" in panel.verdict
    assert "–" in str(panel)
    assert "nan" not in panel.to_json().lower()


def test_failing_outputs_are_counted_not_raised():
    class Fails(nn.Module):
        def forward(self, x):
            return torch.where(x[:, :1] > 0.8, torch.nan, 1.0) * NET(x)

    panel = small(model=Fails())
    bad = int((X[:, 0] > 0.8).sum())
    assert int((~panel.measurements["correct"].valid).sum()) == bad > 0
    assert f"{bad} of 30 without a value" in str(panel)
    assert all(check.passed for check in panel.checks)


class HuggingFaceLike(nn.Module):
    class Output(dict):
        logits = property(lambda self: self["logits"])

    def __init__(self):
        super().__init__()
        self.body, self.head = nn.Linear(6, 8), nn.Linear(8, 3)

    def forward(self, pixel_values):
        return self.Output(logits=self.head(F.gelu(self.body(pixel_values))))


def test_wrapped_model():
    plain = sm.wrap(HuggingFaceLike(), output="logits", inputs="pixel_values")
    panel = small(model=plain)
    assert [use.name for use in panel.activations] == ["gelu"]
    assert panel.activations[0].places == ("model.gelu",)
    with pytest.raises(TypeError, match="wrap"):
        small(model=HuggingFaceLike())


def test_activations_of_all_sorts():
    class Own(nn.Module):
        def forward(self, z):
            return (z > 0).to(z.dtype)

    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.one, self.two, self.act, self.own = nn.Linear(6, 6), nn.Linear(6, 3), nn.LeakyReLU(0.2), Own()

        def forward(self, x):
            return self.two(torch.sign(F.relu(self.own(self.act(self.one(x))))))

    uses = {use.name: use for use in activations_of(Net(), X[:1])}
    assert set(uses) == {"leaky_relu(negative_slope=0.2)", "relu", "Own", "sign"}
    leaky = uses["leaky_relu(negative_slope=0.2)"]
    assert (leaky.order, leaky.slope, leaky.curvature, leaky.known) == (0, (0.2, 1), math.inf, True)
    assert (uses["Own"].known, uses["Own"].order) == (False, -1)
    assert (uses["sign"].known, uses["sign"].order) == (False, -1)
    assert "unknown" in str(small(model=Net()))


def test_bare_activation_and_shared_ones():
    assert activations_of(nn.Tanh(), X[:1])[0].places == ("the model itself",)
    net = nn.Sequential(nn.Linear(6, 6), nn.ReLU(), nn.Linear(6, 6), nn.ReLU(), nn.Linear(6, 3), nn.Identity())
    (use,) = activations_of(net, X[:1])
    assert use.places == ("1", "3")


@pytest.mark.parametrize(
    ("change", "kind", "message"),
    [
        ({"model": len}, TypeError, "must be an nn.Module"),
        ({"x": (255 * X).long()}, TypeError, "floating point"),
        ({"x": X.numpy()}, TypeError, "tensor or a DataLoader"),
        ({"x": X.half()}, TypeError, "float32 or float64"),
        ({"x": X[:0], "y": Y[:0]}, ValueError, "empty"),
        ({"x": X.masked_fill(X > 0.9, torch.nan)}, ValueError, "NaN"),
        ({"x": X[:, :5]}, ValueError, r"does not run on inputs of shape \(n, 5\)"),
        ({"x": X[0], "y": Y[:1]}, ValueError, "batch axis"),
        ({"x": X.double()}, TypeError, "weights are float32"),
        ({"y": Y[:5]}, ValueError, "one per input"),
        ({"y": Y + 1}, ValueError, "below the model's 3 classes"),
        ({"y": Y - 1}, ValueError, "at least 0"),
        ({"y": Y.float()}, TypeError, "integer class indices"),
        ({"y": Y.tolist()}, TypeError, "labels must be a torch.Tensor"),
        ({"x": X - 0.5}, ValueError, "pass threat="),
        ({"x": X - 0.5, "threat": THREAT}, ValueError, "outside the threat model's bounds"),
        ({"threat": sm.ThreatModel("l2")}, ValueError, "needs a radius"),
        ({"threat": 0.1}, TypeError, "must be a ThreatModel"),
        ({"examples": 0}, ValueError, "examples must be"),
        ({"batch_size": 0}, ValueError, "batch_size must be"),
        ({"seed": -1}, ValueError, "seed must be"),
        ({"model": nn.Linear(6, 1)}, ValueError, "at least 2 classes"),
        ({"x": DataLoader(TensorDataset(X, Y))}, ValueError, "leave y out"),
        ({"x": DataLoader(TensorDataset(X, Y, Y)), "y": None}, TypeError, "must yield"),
        ({"x": DataLoader([{"a": X[0]}]), "y": None}, TypeError, "got a dict"),
        ({"x": DataLoader(TensorDataset(X, Y), batch_size=40, drop_last=True), "y": None}, ValueError, "no batch"),
        ({"x": DataLoader([X[0], X[0, :4]], batch_size=1), "y": None}, ValueError, "change their shape"),
    ],
)
def test_what_does_not_fit_is_said(change, kind, message):
    with pytest.raises(kind, match=message):
        small(**change)


def test_other_threats():
    panel = small(x=X - 0.5, threat=sm.ThreatModel("l2", 0.3, bounds=None))
    assert "noise-uniform" in panel.measurements
    assert "l2 ε = 0.3" in panel.verdict


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_inputs_follow_the_model():
    assert values(sm.analyze(NET, X.cuda(), Y.cuda())) == values(small())


def test_frame_and_repr():
    panel = small()
    frame = panel.frame
    assert list(frame) == ["example", "quantity", "attack", "epsilon", "layer", "value", "bound", "unit", "valid"]
    assert len(frame) == len(tidy(panel.measurements))
    assert (frame.loc[frame["quantity"] == "margin", ["attack", "layer"]] == "").all(axis=None)
    assert repr(panel).startswith("<Panel of 'Sequential': 30 examples")
    with pytest.raises(AttributeError):
        panel.verdict = ""
