"""Swapping changes activations and nothing else."""

import copy
import functools
import pickle

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from smoothness.activations import activation, list_activations, surrogate_gradient, swap_activations
from smoothness.models import build_model
from tests.activations.swap_networks import Residual, double, in_each_way, mobile_net


class Shared(nn.Module):
    def __init__(self):
        super().__init__()
        self.one, self.two, self.act = nn.Linear(3, 3), nn.Linear(3, 3), nn.ReLU(inplace=True)
        self.again = self.act

    def forward(self, x):
        return self.again(self.two(self.act(self.one(x))))


def test_equals_a_network_built_with_the_activation():
    relu, gelu = (build_model("cnn", a, input_shape=(1, 8, 8), classes=3, seed=4) for a in ("relu", "gelu"))
    x = torch.rand(5, 1, 8, 8)
    swapped = swap_activations(relu, to="gelu")
    assert torch.equal(swapped(x), gelu(x))
    assert [name for name, _, _ in swapped.swap_report.replaced] == ["activation1", "activation2", "activation3"]


def test_original_unchanged_and_weights_equal():
    model = Shared().train()
    before = {k: v.clone() for k, v in model.state_dict().items()}
    swapped = swap_activations(model, to=lambda: nn.Tanh())
    assert isinstance(model.act, nn.ReLU)
    assert isinstance(swapped.act, nn.Tanh)
    assert swapped.act is swapped.again
    assert swapped.training
    for name, value in swapped.state_dict().items():
        assert torch.equal(value, before[name])
        assert value.data_ptr() != model.state_dict()[name].data_ptr()


def test_where_and_instances():
    model = nn.Sequential(nn.ReLU(), nn.Linear(2, 2), nn.Sequential(nn.ReLU(), nn.Tanh()))
    swapped = swap_activations(model, to=activation("softplus", beta=2.0), where=lambda _, m: isinstance(m, nn.ReLU))
    assert repr(swapped[0]) == "Softplus(beta=2)"
    assert swapped[0] is not swapped[2][0]
    assert isinstance(swapped[2][1], nn.Tanh)
    assert swapped.swap_report.left == (("2.1", "not chosen by `where`"),)


def test_a_bare_activation():
    assert repr(swap_activations(nn.ReLU(), to="tanh")) == "Tanh()"


def test_nothing_to_swap():
    with pytest.raises(ValueError, match="found no activation module"):
        swap_activations(nn.Linear(1, 1), to="gelu")
    with pytest.raises(ValueError, match="seen and left: 0"):
        swap_activations(nn.Sequential(nn.ReLU()), to="gelu", where=lambda *_: False)
    with pytest.raises(ValueError, match="unknown activation"):
        swap_activations(nn.ReLU(), to="gelo")


def test_a_mobile_net_with_relu6():
    relu6, gelu = double(mobile_net(nn.ReLU6)), double(mobile_net(nn.GELU))
    x = torch.randn(2, 3, 8, 8, dtype=torch.float64)
    in_each_way(swap_activations(relu6, to="gelu"), gelu, x)
    again = pickle.loads(pickle.dumps(swap_activations(relu6, to="gelu")))
    in_each_way(copy.deepcopy(again), gelu, x)
    in_each_way(swap_activations(relu6, to=nn.ReLU6(inplace=True)), relu6, x)


def _encoder(function, **options):
    layer = nn.TransformerEncoderLayer(8, 2, 16, activation=function, **options)
    fused = function == "relu" and options.get("batch_first", False) and not options.get("norm_first", False)
    return double(nn.TransformerEncoder(layer, 2, enable_nested_tensor=fused))


@pytest.mark.parametrize("batch_first", [True, False])
@pytest.mark.parametrize("norm_first", [True, False])
def test_the_transformer_encoder_leaves_its_fused_path(batch_first, norm_first):
    relu, gelu, tanh = (
        _encoder(function, batch_first=batch_first, norm_first=norm_first) for function in ("relu", "gelu", torch.tanh)
    )
    x = torch.randn(3, 4, 8, dtype=torch.float64)
    in_each_way(swap_activations(relu, to="gelu"), gelu, x, 1e-12)  # the native one is fused
    in_each_way(swap_activations(relu, to="tanh"), tanh, x)
    in_each_way(swap_activations(gelu, to="tanh"), tanh, x)
    assert relu.layers[0].activation_relu_or_gelu == 1
    assert relu.layers[0].activation is F.relu
    report = swap_activations(relu, to="gelu").swap_report
    assert report.replaced[0] == ("layers.0.activation", "ReLU()", "GELU()")
    assert ("layers.0.self_attn", "attention softmax") in report.left


def test_the_transformer_encoder_with_padding_leaves_nested_tensors():
    relu, tanh = _encoder("relu", batch_first=True), _encoder(torch.tanh, batch_first=True)
    padding = torch.tensor([[False, False, True], [False, False, False]])
    x = torch.randn(2, 3, 8, dtype=torch.float64)
    with torch.no_grad():
        swapped = swap_activations(relu, to="tanh")(x, src_key_padding_mask=padding)
        assert torch.equal(swapped, tanh(x, src_key_padding_mask=padding))


def test_an_in_place_module_whose_input_is_read_again():
    class PreActivation(nn.Module):
        def __init__(self):
            super().__init__()
            self.one, self.relu = nn.Linear(4, 4), nn.ReLU(inplace=True)

        def forward(self, x):
            x = self.one(x)
            out = self.relu(x)
            return out + 2 * x  # twice relu(x): the call above wrote into x

    model, x = double(PreActivation()), torch.randn(5, 4, dtype=torch.float64)
    swapped = swap_activations(model, to="gelu")
    in_each_way(swapped, lambda x: 3 * F.gelu(model.one(x)), x, 1e-15)
    in_each_way(swap_activations(model, to="relu"), model, x)


class Kept(nn.Module):
    """Functions kept in attributes."""

    def __init__(self):
        super().__init__()
        self.one = nn.Linear(4, 4)
        self.act_fn = F.silu
        self.other = functools.partial(F.gelu, approximate="tanh")

    def forward(self, x, mask=None):
        return self.other(self.one(self.act_fn(x)))


def test_functions_kept_in_attributes():
    model, seen = Kept(), []
    swapped = swap_activations(model, to=lambda there: seen.append(repr(there)) or "relu")
    assert seen == ["SiLU()", "GELU(approximate='tanh')"]
    assert repr(swapped.act_fn) == repr(swapped.other) == "ReLU()"
    x = torch.randn(3, 4)
    assert torch.equal(swapped(x), model.one(x.relu()).relu())
    assert model.act_fn is F.silu


@pytest.mark.parametrize(
    ("where", "expected"),
    [
        ("1.*", ["1.0", "1.2"]),
        (nn.ReLU, ["0", "1.2"]),
        (F.relu, ["0", "1.2"]),
        (-1, ["1.2"]),
        ([0, "1.0"], ["0", "1.0"]),
        (("2.1", nn.ReLU6), ["1.0", "2.1"]),
        (lambda name, module: isinstance(module, nn.Sigmoid), ["2.1"]),
    ],
)
def test_where_takes_patterns_types_indices_and_predicates(where, expected):
    inner = nn.Sequential(nn.ReLU6(), nn.Linear(2, 2), nn.ReLU())
    model = nn.Sequential(nn.ReLU(), inner, nn.Sequential(nn.Linear(2, 1), nn.Sigmoid()))
    report = swap_activations(model, to="gelu", where=where).swap_report
    assert [name for name, _, _ in report.replaced] == expected
    assert set(report.left) == {(name, "not chosen by `where`") for name in {"0", "1.0", "1.2", "2.1"} - {*expected}}
    default = swap_activations(model, to="gelu").swap_report
    assert default.left == (("2.1", "final output"),)


def test_gates_and_what_is_no_activation_stay():
    class Squeeze(nn.Module):
        def __init__(self):
            super().__init__()
            self.down, self.act, self.squash, self.glu = nn.Linear(4, 4), nn.ReLU(), nn.Sigmoid(), nn.GLU()

        def forward(self, x):
            return self.glu(x * self.squash(self.act(self.down(x))))

    model = nn.Sequential(Squeeze(), nn.LSTM(2, 2))
    report = swap_activations(model, to="gelu").swap_report
    assert [name for name, _, _ in report.replaced] == ["0.act"]
    assert dict(report.left) == {
        "0.squash": "a gate: its output is multiplied",
        "0.glu": "the gate of a gated linear unit",
        "1": "gates of a recurrent layer",
    }


def test_other_houses_and_well_known_custom_activations():
    def forward(self, x):
        return x * torch.sigmoid(x)

    timm = type("HardMish", (nn.Module,), {"__module__": "timm.layers.activations", "forward": forward})
    own = type("MemoryEfficientSwish", (nn.Module,), {"forward": forward})
    unknown = type("Blend", (nn.Module,), {"forward": forward})
    model = nn.Sequential(timm(), own(), unknown(), nn.Linear(2, 2))
    report = swap_activations(model, to=lambda there: nn.Mish() if isinstance(there, nn.SiLU) else "relu").swap_report
    assert report.replaced == (("0", "HardMish()", "ReLU()"), ("1", "MemoryEfficientSwish()", "Mish()"))
    assert report.left == (("2.sigmoid", "a gate: its output is multiplied"),)


def test_mappings_and_functions_of_what_is_there():
    model = nn.Sequential(nn.LeakyReLU(0.3), nn.ReLU6(), nn.Tanh(), nn.Linear(2, 2))
    swapped = swap_activations(
        model, to={"leaky_relu": lambda m: nn.LeakyReLU(2 * m.negative_slope), nn.ReLU6: "gelu"}
    )
    assert [repr(module) for module in swapped[:3]] == ["LeakyReLU(negative_slope=0.6)", "GELU()", "Tanh()"]
    assert swapped.swap_report.left == (("2", "`to` gives no replacement for it"),)
    assert repr(swap_activations(model, to=F.silu)[1]) == "SiLU()"
    learned = swap_activations(model.double(), to=nn.PReLU)
    assert {p.dtype for p in learned.parameters()} == {torch.float64}


def test_modes_are_kept_and_follow():
    model = nn.Sequential(nn.Linear(2, 2), nn.RReLU(), nn.Dropout()).train()
    model[2].eval()
    swapped = swap_activations(model, to="gelu")
    assert [module.training for module in swapped] == [True, True, False]
    assert not swapped.eval()[1].training


@pytest.mark.parametrize("name", [name for name in list_activations() if name != "maxout"])
def test_surrogates_find_what_was_swapped_in(name):
    swapped = swap_activations(double(Residual(2)), to=name)
    with surrogate_gradient(swapped, "identity"):
        x = torch.randn(1, 2, 4, 4, dtype=torch.float64, requires_grad=True)
        (gradient,) = torch.autograd.grad(swapped(x).sum(), x)
    assert gradient.abs().sum() > 0


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"to": "gelo"}, ValueError, "unknown activation 'gelo'; did you mean"),
        ({"to": {"relu": "gelo"}}, ValueError, "unknown activation 'gelo'; did you mean"),
        ({"to": {}}, ValueError, "the mapping `to` is empty"),
        ({"to": {3: "gelu"}}, TypeError, "a key of `to` must be an activation's name or a type, got 3"),
        ({"to": 3}, TypeError, r"`to` must be an activation's name, .*, got 3 \(int\)"),
        ({"to": lambda: 3}, TypeError, "`to` must make an nn.Module, a name or None, got int for ReLU"),
        ({"where": 2.5}, TypeError, r"`where` must be a predicate .*, got 2.5 \(float\)"),
        ({"where": True}, TypeError, r"`where` must be a predicate .*, got True \(bool\)"),
        ({"where": []}, TypeError, "`where` must be a predicate .*, got an empty list"),
        ({"where": [0, None]}, TypeError, r"got None \(NoneType\) in it"),
        ({"where": 1}, ValueError, "`where` has the index 1, but the model has 1 activations: 0 to 0"),
        ({"where": "body.*"}, ValueError, r"found no activation module or call .*: 0 \(not chosen by `where`\)"),
        ({"functional": "fx"}, ValueError, "unknown functional 'fx'"),
        ({"to": lambda there: None}, ValueError, "`to` gives no replacement for it"),
    ],
)
def test_bad_arguments(arguments, error, message):
    with pytest.raises(error, match=message):
        swap_activations(nn.Sequential(nn.ReLU(), nn.Linear(2, 2)), **{"to": "gelu", **arguments})


def test_models_that_cannot_be_swapped():
    with pytest.raises(TypeError, match=r"model must be an nn\.Module, got function"):
        swap_activations(lambda x: x, to="gelu")
    model = nn.Sequential(nn.ReLU())
    model.kept = torch.ones(1, requires_grad=True) * 2
    with pytest.raises(TypeError, match=r"cannot be copied .* detach or drop the tensors"):
        swap_activations(model, to="gelu")
    head = nn.Sequential(nn.Linear(2, 2), nn.Sigmoid())
    with pytest.raises(ValueError, match=r"seen and left: 1 \(final output\)"):
        swap_activations(head, to="gelu")
