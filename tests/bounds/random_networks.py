"""Random small networks of every kind that bounds can read, and what sampling finds on them."""

from dataclasses import dataclass

import torch
from torch import nn

import smoothness as sm
from smoothness._norms import DUAL, operator_norm, random_in_ball, vector_norm

ELEMENTWISE = [name for name in sm.list_activations() if sm.activation_facts(name).elementwise]
NORMS = ("l2", "linf", "l1")


class Residual(nn.Module):
    """x + B φ(A x), the way residual networks add."""

    def __init__(self, width, make):
        super().__init__()
        self.first, self.second, self.phi = nn.Linear(width, width), nn.Linear(width, width), make()

    def forward(self, x):
        return x + 0.5 * self.second(self.phi(self.first(x)))


@dataclass
class Case:
    """One network, inputs and the settings of a ball."""

    label: str
    model: nn.Module
    x: torch.Tensor
    norm: str
    radius: float
    bounds: tuple | None


def random_case(seed: int) -> Case:
    """Network, inputs, norm, radius and clipping, all drawn from the seed."""
    g = torch.Generator().manual_seed(seed)

    def pick(values):
        return values[int(torch.randint(len(values), (1,), generator=g))]

    name, kind, depth = pick(ELEMENTWISE), pick(["mlp", "mlp", "residual", "conv", "pool"]), pick([1, 2, 3, 4, 5])
    scale = 10 ** (pick(range(9)) / 4 - 1)
    radius = 10.0 ** pick(range(-4, 2))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model, shape = _network(kind, name, depth)
    model = model.double().eval()
    with torch.no_grad():
        for module in model.modules():
            if not isinstance(module, sm.Activation):  # their own parameters have ranges
                for p in module._parameters.values():
                    p.mul_(scale)
    x = torch.rand(2, *shape, generator=g, dtype=torch.float64)
    if pick([False, False, True]):
        x = (x > 0.5).double()  # in the corner of the bounds; also on many thresholds at once
    bounds = pick([None, None, (0.0, 1.0)])
    norm = pick(NORMS)
    return Case(f"{seed}: {kind} {name} depth {depth} scale {scale:.2g} {norm} {radius:g} {bounds}", model, x, norm,
                radius, bounds)  # fmt: skip


def _network(kind, name, depth):
    make = lambda: sm.activation(name)  # noqa: E731
    if kind in ("conv", "pool"):
        layers = [nn.Conv2d(1, 2, 3, padding=1), nn.BatchNorm2d(2), make()]
        layers[1].running_mean.normal_()
        layers[1].running_var.uniform_(0.5, 2)
        layers.append(nn.MaxPool2d(2) if kind == "pool" else nn.AvgPool2d(2))
        layers += [nn.Flatten(), nn.Linear(8, 6)]
        for _ in range(min(depth, 3) - 1):
            layers += [make(), nn.Linear(6, 6)]
        return nn.Sequential(*layers, make(), nn.Linear(6, 3)), (1, 4, 4)
    layers = [nn.Linear(4, 7)]
    for _ in range(depth):
        layers += [Residual(7, make)] if kind == "residual" else [make(), nn.Linear(7, 7)]
    return nn.Sequential(*layers, make(), nn.Linear(7, 3)), (4,)


def points_in_ball(case: Case, row: int, count: int, seed: int = 0):
    """Random points of the ball around one input: inside, on the sphere, at corners, near the centre."""
    g = torch.Generator().manual_seed(seed)
    x = case.x[row : row + 1].expand(count, *case.x.shape[1:])
    offsets = random_in_ball(x, case.norm, 1.0, g).view_as(x)
    size = vector_norm(offsets, case.norm).view(-1, *[1] * (x.ndim - 1))
    share = torch.rand(size.shape, generator=g, dtype=torch.float64)
    share = torch.where(share < 0.3, 1.0, torch.where(share < 0.4, 1e-3 * share, share))
    offsets = offsets / size * share
    if case.norm == "linf":
        offsets[::3] = offsets[::3].sign() * share[::3]
    points = x + case.radius * (1 - 1e-12) * offsets
    return points if case.bounds is None else points.clamp(*case.bounds)


def jacobians(model, points, layer=None):
    """(n, outputs, inputs) by autograd."""
    points = points.clone().requires_grad_()
    outputs = model(points).flatten(1)
    rows = [
        torch.autograd.grad(o.sum(), points, retain_graph=True)[0].flatten(1)
        if o.requires_grad
        else torch.zeros_like(points).flatten(1)
        for o in outputs.unbind(1)
    ]
    return torch.stack(rows, 1).detach()


def sampled_constants(case: Case, row: int, count: int = 400):
    """Largest sampled (jacobian norm, quotient of ball pairs, of centre pairs), logits; of f_y - max of the others."""
    points = points_in_ball(case, row, count)
    x = case.x[row : row + 1]
    with torch.no_grad():
        f, here = case.model(points), case.model(x)
    jacobian = jacobians(case.model, points)
    y = int(here.argmax())
    others = [j for j in range(here.shape[1]) if j != y]
    found = {}
    # What rounding of the forward pass may add to a difference.
    noise = 1e-12 * (1 + f.abs().amax())
    for of in ("logits", "margin"):
        if of == "logits":
            steep = operator_norm(jacobian, case.norm)
            size = lambda d: vector_norm(d, case.norm)  # noqa: E731
        else:
            rival = torch.tensor(others)[f[:, others].argmax(dim=1)]
            steep = vector_norm(jacobian[:, y] - jacobian[torch.arange(count), rival], DUAL[case.norm])
            size = torch.abs
            f, here = (o[:, y] - o[:, others].amax(dim=1) for o in (f, here))
        pairs = (points - points.roll(1, 0)), f - f.roll(1, 0)
        centre = (points - x), f - here
        quotient = [
            ((size(df) - noise) / vector_norm(dx, case.norm).clamp_min(1e-300)).amax() for dx, df in (pairs, centre)
        ]
        found[of] = (float(steep.amax()), float(quotient[0]), float(quotient[1]))
    return found
