"""Function calls: replaced by tracing where a trace is the forward, and while it runs where not."""

import copy
import pickle
import threading

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from smoothness.activations import activation, surrogate_gradient, swap_activations
from smoothness.activations.functional import KINDS, read_call
from tests.activations.swap_networks import ResNet, Untraceable, double, in_each_way

WAYS = ("trace", "run-time")


def _images():
    return torch.randn(3, 3, 8, 8, dtype=torch.float64)


def _rows():
    return torch.randn(5, 4, dtype=torch.float64)


@pytest.mark.parametrize("way", ["auto", *WAYS])
def test_a_resnet_with_calls_and_in_place_activations(way):
    relu, gelu = double(ResNet()), double(ResNet(native=True))
    before, x = {name: value.clone() for name, value in relu.state_dict().items()}, _images()
    truth = relu(x)
    swapped = swap_activations(relu, to="gelu", functional=way)
    in_each_way(swapped, gelu, x)
    assert list(swapped.state_dict()) == list(before)
    assert all(torch.equal(value, before[name]) for name, value in swapped.state_dict().items())
    assert torch.equal(relu(x), truth)
    assert [type(block.relu) for block in relu.layers] == [nn.ReLU, nn.ReLU]
    assert isinstance(swapped, ResNet)
    for again in (copy.deepcopy(swapped), pickle.loads(pickle.dumps(swapped))):
        in_each_way(again, gelu, x)


def test_the_report_names_calls_after_the_module_that_makes_them():
    report = swap_activations(ResNet(), to="gelu").swap_report
    assert [name for name, _, _ in report.replaced if name.startswith("layers.1")] == [
        "layers.1.relu", "layers.1.relu_1", "layers.1.relu_2",
    ]  # fmt: skip
    assert [name for name, _ in report.functional if "." not in name] == [
        "relu",
        "relu_1",
        "relu_2",
        "relu_3",
        "relu_4",
    ]
    assert "replaced layers.0.relu_1: ReLU() -> GELU() (traced)" in str(report)


@pytest.mark.parametrize("way", WAYS)
def test_calls_replaced_by_themselves_change_nothing(way):
    model, x = double(ResNet()), _images()
    in_each_way(swap_activations(model, to="relu", functional=way), model, x)
    model.train()
    swapped = swap_activations(model, to="relu", functional=way)
    assert torch.equal(swapped(x), model(x))


class Spelled(nn.Module):
    """One call, by any spelling."""

    def __init__(self, call):
        super().__init__()
        self.lin, self.call = nn.Linear(4, 4), call

    def forward(self, x):
        return self.lin(self.call(self.lin(x)))


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind not in ("rrelu", "threshold")])
@pytest.mark.parametrize("way", WAYS)
def test_every_kind_is_found_and_means_its_module(kind, way):
    function = getattr(F, kind)
    model, x = double(Spelled(lambda z: function(z))), _rows()
    same = swap_activations(model, to=lambda there: type(there)(), where=kind, functional=way)
    torch.testing.assert_close(same(x), model(x), atol=1e-15, rtol=1e-15)
    assert repr(type(same.get_submodule(kind))) == repr(type(read_call(kind, (), {}).module))


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize(
    "call",
    [lambda z: z.relu(), lambda z: torch.relu(z), lambda z: z.relu_(), lambda z: F.relu(z, inplace=True),
     lambda z: z.clamp(min=0), lambda z: torch.clamp(z, 0), lambda z: z.clamp_min(0.0), lambda z: torch.relu_(z),
     lambda z: F.threshold(z, 0.0, 0.0), lambda z: F.relu_(input=z), lambda z: F.relu(z, True)],
)  # fmt: skip
def test_spellings_of_relu(call, way):
    model, x = double(Spelled(call)), _rows()
    swapped = swap_activations(model, to="gelu", functional=way)
    in_each_way(swapped, lambda x: model.lin(F.gelu(model.lin(x))), x)


def test_an_in_place_call_on_a_view_is_replaced_at_run_time():
    def call(z):
        z.view(-1).relu_()
        return z

    model, x = double(Spelled(call)), _rows()
    swapped = swap_activations(model, to="gelu")
    in_each_way(swapped, lambda x: model.lin(F.gelu(model.lin(x))), x)
    assert swapped.swap_report.functional == (("relu", "at run time: an in-place call acts through a view"),)


def test_a_statement_in_place_changes_what_is_read_later_and_not_before():
    def call(z):
        early = z + 1
        z.relu_()
        return early * z

    model, x = double(Spelled(call)), _rows()
    for way in WAYS:
        swapped = swap_activations(model, to="gelu", functional=way)
        in_each_way(swapped, lambda x: model.lin((model.lin(x) + 1) * F.gelu(model.lin(x))), x, 1e-14)


def test_a_forward_that_does_not_trace():
    relu, gelu, x = double(Untraceable()), double(Untraceable(F.gelu)), _rows()
    swapped = swap_activations(relu, to="gelu", where="relu")
    in_each_way(swapped, gelu, x)
    assert repr(swapped.relu) == "GELU()"
    assert swapped.swap_report.functional == (("relu", "at run time: its forward takes optional arguments"),)
    assert torch.equal(swapped(x, scale=2), gelu(x))
    for again in (copy.deepcopy(swapped), pickle.loads(pickle.dumps(swapped))):
        in_each_way(again, gelu, x)
        again.relu = nn.Identity()
        assert not torch.equal(again(x), gelu(x))  # the copy runs its own replacement
    assert isinstance(swapped, Untraceable)
    in_each_way(swap_activations(swapped, to="relu", where="relu"), relu, x)  # now a module


def test_under_vmap_and_functional_call():
    swapped, gelu, x = swap_activations(double(Untraceable()), to="gelu", where="relu"), None, _rows()
    gelu = double(Untraceable(F.gelu))
    parameters = {name: 2 * value for name, value in gelu.named_parameters()}
    twice = [torch.func.functional_call(model, parameters, x) for model in (swapped, gelu)]
    assert torch.equal(*twice)
    swapped, resnet, images = swap_activations(double(ResNet()), to="gelu"), double(ResNet(native=True)), _images()
    rows = [torch.func.vmap(lambda z, m=model: m(z.unsqueeze(0)))(images) for model in (swapped, resnet)]
    torch.testing.assert_close(*rows)


def test_a_child_left_alone_keeps_its_activation_under_a_run_time_parent():
    model, x = double(Untraceable()), _rows()
    model.kept = nn.ReLU()
    swapped = swap_activations(model, to="tanh", where="relu")
    expected = model.out(model.two(model.one(x).tanh()).tanh().relu())
    assert torch.equal(swapped(x), expected)
    assert ("kept", "not chosen by `where`") in swapped.swap_report.left


def test_nested_run_time_modules_keep_their_own_calls():
    class Outer(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = Untraceable()

        def forward(self, x, mask=None):
            return F.relu(self.inner(x))

    model, x = double(Outer()), _rows()
    swapped = swap_activations(model, to="tanh", where="inner.relu")
    inner = swap_activations(model.inner, to="tanh", where="relu")
    assert torch.equal(swapped(x), inner(x).relu())
    assert torch.equal(swap_activations(model, to="tanh", where="relu")(x), model.inner(x).tanh())


def test_nothing_leaks_out_of_the_forward_or_its_thread():
    swapped, x = swap_activations(double(Untraceable()), to="gelu", where="relu"), _rows()
    inside, leave, seen = threading.Event(), threading.Event(), []
    swapped.kept.register_forward_hook(lambda *_: (inside.set(), leave.wait(10))[0])
    thread = threading.Thread(target=lambda: seen.append(swapped(x)))
    thread.start()
    inside.wait(10)
    try:
        assert torch.equal(F.relu(x), x.clamp(min=0))
    finally:
        leave.set()
        thread.join()
    assert torch.equal(F.relu(x), x.clamp(min=0))
    with pytest.raises(RuntimeError, match="shapes cannot be multiplied"):
        swapped(x[:, :2])
    assert torch.equal(F.relu(x), x.clamp(min=0))
    assert torch.equal(seen[0], double(Untraceable(F.gelu))(x))


@pytest.mark.parametrize("slope", [0.01, 0.3])
def test_parameters_of_a_call_reach_what_depends_on_them(slope):
    def steeper(there):
        return nn.LeakyReLU(2 * there.negative_slope)

    x = _rows()
    for model in (double(Untraceable(slope=slope)), double(Spelled(lambda z: F.leaky_relu(z, slope)))):
        swapped = swap_activations(model, to={"leaky_relu": steeper})
        swapped = pickle.loads(pickle.dumps(swapped)) if model.__class__ is None else copy.deepcopy(swapped)
        expected = double(Untraceable(slope=2 * slope))(x) if isinstance(model, Untraceable) else None
        expected = model.lin(F.leaky_relu(model.lin(x), 2 * slope)) if expected is None else expected
        for _ in range(2):
            assert torch.equal(swapped(x), expected)
        slopes = {module.negative_slope for module in swapped.modules() if isinstance(module, nn.LeakyReLU)}
        assert 2 * slope in slopes
        assert len(slopes) <= 2


def test_surrogates_see_replaced_calls_in_both_ways():
    for model in (double(Spelled(lambda z: F.relu(z))), double(Untraceable())):
        swapped = swap_activations(model, to=activation("step"), where="relu")
        x = _rows().requires_grad_()
        assert torch.autograd.grad(swapped(x).sum(), x)[0].abs().sum() == 0
        with surrogate_gradient(swapped, "identity", where=lambda name, _: name == "relu"):
            assert torch.autograd.grad(swapped(x).sum(), x)[0].abs().sum() > 0


@pytest.mark.filterwarnings("ignore:.torch.jit.script. is deprecated:DeprecationWarning")
def test_what_is_demanded_and_cannot_be_had():
    with pytest.raises(ValueError, match=r"relu: the forward of Untraceable cannot be traced \(its forward takes opt"):
        swap_activations(Untraceable(), to="gelu", where="relu", functional="trace")

    class Holder(nn.Sequential):
        def forward(self, x, mask=None):
            return F.relu(super().forward(x))

    holder = Holder(nn.Linear(4, 4), nn.Tanh())
    with pytest.raises(ValueError, match=r"neither by tracing .* nor at run time \(.*a container"):
        swap_activations(holder, to="gelu", functional=True)
    report = swap_activations(holder, to="gelu").swap_report
    assert [name for name, _, _ in report.replaced] == ["1"]
    assert report.left[0][0] == "relu"
    with pytest.raises(ValueError, match="a function call, and functional=False"):
        swap_activations(Spelled(lambda z: F.relu(z)), to="gelu", functional=False)
    with pytest.raises(ValueError, match="TorchScript cannot be changed"):
        swap_activations(torch.jit.script(nn.Sequential(nn.Linear(2, 2), nn.ReLU())), to="gelu")
