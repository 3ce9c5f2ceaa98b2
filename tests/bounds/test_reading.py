"""A network that was read computes what the model computes, whatever it is made of."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import smoothness as sm
from smoothness.bounds.reading import read_network
from tests.bounds.random_networks import ELEMENTWISE, random_case


def agrees(model, x, **settings):
    model = model.double().eval()
    network = read_network(model, x[:1], **settings)
    with torch.no_grad():
        torch.testing.assert_close(network.run(x.flatten(1))[1], model(x).flatten(1), rtol=1e-12, atol=1e-12)
    return network


@pytest.mark.parametrize("name", ELEMENTWISE)
def test_every_elementwise_activation(name):
    agrees(nn.Sequential(nn.Linear(3, 5), sm.activation(name), nn.Linear(5, 2)), 3 * torch.randn(4, 3).double())


@pytest.mark.parametrize("seed", range(12))
def test_random_networks(seed):
    case = random_case(seed)
    agrees(case.model, case.x)


class Calls(nn.Module):
    def __init__(self):
        super().__init__()
        self.a, self.b, self.c = nn.Conv2d(1, 2, 3, stride=2, padding=1), nn.Linear(8, 8), nn.Linear(16, 3)
        self.kernel = nn.Parameter(torch.randn(2, 2, 3, 3))
        self.scale = nn.Parameter(torch.tensor(1.5))
        self.register_buffer("shift", torch.arange(8.0))

    def forward(self, x):
        x = F.relu(F.conv2d(self.a(x - 0.5), self.kernel, torch.ones(2).to(self.kernel), padding=1))
        x = x.view(x.size(0), -1)
        y = torch.tanh(self.b(x)) * self.scale + self.shift
        z = -self.b(x).sigmoid() / 2
        x = torch.cat([x + y, 1 - z], dim=1)
        x = F.linear(x.reshape(x.shape[0], 2, 8).permute(0, 2, 1).flatten(1), self.c.weight, bias=self.c.bias)
        return F.dropout(F.gelu(x), training=self.training)


def test_function_calls_branches_and_constants():
    agrees(Calls(), torch.randn(3, 1, 4, 4).double())


@pytest.mark.parametrize(
    "pool", [nn.MaxPool2d(2), nn.MaxPool2d(3, 2, padding=1), nn.MaxPool2d(3, 1), nn.MaxPool2d((1, 3), 2)]
)
def test_max_pooling(pool):
    agrees(nn.Sequential(nn.Conv2d(1, 2, 3), pool, nn.Flatten(1)), torch.randn(3, 1, 6, 7).double())
    agrees(nn.Sequential(pool, nn.GELU(), nn.AdaptiveAvgPool2d(1)), torch.randn(3, 1, 6, 7).double())


def test_a_layer_instead_of_the_outputs():
    model = nn.Sequential(nn.Linear(3, 5), nn.ReLU(), nn.Linear(5, 2)).double()
    x = torch.randn(4, 3).double()
    network = read_network(model, x[:1], "1")
    torch.testing.assert_close(network.run(x)[1], model[:2](x))
    with pytest.raises(ValueError, match=r"no layer 'nowhere' .*known: 0, 1, 2"):
        read_network(model, x[:1], "nowhere")


class Gated(nn.Module):
    def forward(self, x):
        return x * torch.sigmoid(x)


class Branching(nn.Module):
    def forward(self, x):
        return x if x.sum() > 0 else -x


class Mystery(nn.Module):
    def forward(self, x):
        return x.erf()


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (nn.Sequential(nn.Linear(3, 3), nn.LayerNorm(3)), r"module '1' \(LayerNorm\) cannot be read"),
        (nn.Sequential(nn.Linear(3, 3), nn.Softmax(1)), r"module '1' \(Softmax\) cannot be read"),
        (nn.Sequential(nn.Linear(3, 4), sm.activation("maxout")), r"activation '1' \(MaxOut\).*several features"),
        (nn.Sequential(nn.Linear(3, 3), nn.PReLU(3)), r"activation '1' \(PReLU\) declares no facts.*define facts\(\)"),
        (Gated(), r"product of two values that depend on the input"),
        (Branching(), r"cannot be traced by torch.fx"),
        (Mystery(), r"call method 'erf' cannot be read"),
    ],
)
def test_what_cannot_be_read_is_named(model, message):
    with pytest.raises(TypeError, match=message) as caught:
        read_network(model, torch.zeros(1, 3))
    assert "LipschitzLowerBound works with any module" in str(caught.value)


def test_a_plain_wrapper_is_looked_through():
    model = nn.Sequential(nn.Linear(3, 4), nn.ReLU())
    assert read_network(sm.wrap(model), torch.zeros(1, 3)).units == 4
    with pytest.raises(TypeError, match="cannot be traced"):
        read_network(sm.wrap(model, output=0), torch.zeros(1, 3))


def test_weights_must_be_finite_and_memory_suffice():
    model = nn.Sequential(nn.Linear(3, 300), nn.ReLU(), nn.Linear(300, 300))
    with pytest.raises(ValueError, match=r"300 x 300 takes 0.00067\d* GiB as a matrix, and memory_gib allows 0.0001"):
        read_network(model, torch.zeros(1, 3), memory=1e-4 * 2**30)
    model[0].weight.data[0, 0] = torch.nan
    with pytest.raises(ValueError, match="NaN or infinite weights"):
        read_network(model, torch.zeros(1, 3))


def test_the_model_is_left_as_it_was():
    model = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.ReLU(), nn.Dropout()).train()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    read_network(model, torch.zeros(1, 3))
    assert all(m.training for m in model.modules())
    assert all(p.requires_grad for p in model.parameters())
    assert all(torch.equal(value, model.state_dict()[name]) for name, value in before.items())


class InPlace(nn.Module):
    def forward(self, x):
        y = x * 1.0
        return F.relu(y, inplace=True) + y


def test_what_computes_something_else_is_refused():
    with pytest.raises(TypeError, match="InPlace computes something else than what was read"):
        read_network(InPlace(), torch.zeros(1, 3))
    hooked = nn.Sequential(nn.Linear(3, 3), nn.ReLU())
    hooked[0].register_forward_hook(lambda module, arguments, result: 2 * result)
    with pytest.raises(TypeError, match="hooks"):
        read_network(hooked, torch.zeros(1, 3))
