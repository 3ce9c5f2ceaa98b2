"""What a trace shows, what it would lose, and that the forward stays the same either way."""

import copy
import pickle

import pytest
import torch
from torch import fx, nn
from torch.nn import functional as F

from smoothness.activations import swap_activations
from tests.activations.swap_networks import ResNet, double, in_each_way


def _rows():
    return torch.randn(5, 4, dtype=torch.float64)


class Dropping(nn.Module):
    """The graph depends on the training mode, its activations do not."""

    def __init__(self):
        super().__init__()
        self.one, self.two = nn.Linear(4, 4), nn.Linear(4, 4)

    def forward(self, x):
        x = F.dropout(F.relu(self.one(x)), 0.5, self.training)
        return self.two(x)


def test_a_trace_follows_the_training_mode():
    model, x = double(Dropping()), _rows()
    swapped = swap_activations(model, to="gelu")
    assert dict(swapped.swap_report.functional) == {"relu": "traced"}
    swapped = copy.deepcopy(pickle.loads(pickle.dumps(swapped)))
    assert torch.equal(swapped(x), model.two(F.gelu(model.one(x))))
    torch.manual_seed(0)
    trained = swapped.train()(x)
    torch.manual_seed(0)
    assert torch.equal(trained, model.two(F.dropout(F.gelu(model.one(x)), 0.5)))


class Counting(nn.Module):
    """Everything that a trace must not touch, or would lose."""

    def __init__(self):
        super().__init__()
        self.lin, self.seen, self.count = nn.Linear(4, 4), [], 0
        self.register_buffer("calls", torch.zeros((), dtype=torch.float64))

    def forward(self, x):
        self.calls += 1
        self.count += 1
        self.seen.append(x)
        return F.relu(self.lin(x) + self.count)


class Remembering(Counting):
    def forward(self, x):
        self.seen.append(x)
        return F.relu(self.lin(x))


class Constant(Counting):
    def forward(self, x):
        return F.relu(self.lin(x) + torch.ones(4, dtype=torch.float64))


class Detached(Counting):
    def forward(self, x):
        with torch.no_grad():
            gate = self.lin(x)
        return F.relu(gate + self.lin(x))


@pytest.mark.parametrize("kind", [Counting, Remembering, Constant, Detached])
def test_what_a_trace_would_lose_is_kept(kind):
    torch.manual_seed(0)
    model, x = kind().double(), _rows()
    swapped, twin = swap_activations(model, to="relu"), copy.deepcopy(model)
    assert "at run time: its" in swapped.swap_report.functional[0][1]
    assert (model.count, swapped.count, model.seen, swapped.seen) == (0, 0, [], [])
    assert swapped.calls == model.calls
    assert list(swapped.state_dict()) == list(model.state_dict())
    for _ in range(2):
        in_each_way(swapped, twin, x)
    assert (swapped.count, len(swapped.seen), swapped.calls) == (twin.count, len(twin.seen), twin.calls)


def test_gates_formulas_outputs_and_two_sided_clamps_stay():
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.lin = nn.Linear(4, 4)

        def forward(self, x):
            z = self.lin(x) * torch.sigmoid(x)
            z = 0.5 * z * (1 + torch.tanh(0.8 * z))
            z = torch.tanh(self.lin(z.clamp(-1, 1)))
            return torch.sigmoid(self.lin(z)).squeeze(1)

    report = swap_activations(Net(), to="gelu").swap_report
    assert [name for name, _, _ in report.replaced] == ["tanh_1"]
    assert dict(report.left) == {
        "sigmoid": "a gate: its output is multiplied",
        "tanh": "part of a formula: a constant is added to its output",
        "clamp": "a two-sided clamp may only limit a range; name it in `where` to replace it",
        "sigmoid_1": "final output",
    }
    everything = swap_activations(Net(), to="gelu", where="*").swap_report
    assert len(everything.replaced) == 5


def test_a_graph_module_is_edited_as_a_graph():
    model, x = fx.symbolic_trace(double(ResNet())), torch.randn(3, 3, 8, 8, dtype=torch.float64)
    in_each_way(swap_activations(model, to="gelu"), double(ResNet(native=True)), x)
    assert "gelu" not in str(model.graph)
