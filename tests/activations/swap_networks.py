"""Networks that apply activations in every way, each also written natively with gelu."""

import torch
from torch import nn
from torch.nn import functional as F


class Residual(nn.Module):
    """A residual block: a function call, an in-place call after +=, an in-place module."""

    def __init__(self, width, stride=1):
        super().__init__()
        self.conv1 = nn.Conv2d(width, width, 3, stride, 1, bias=False)
        self.bn1, self.bn2 = nn.BatchNorm2d(width), nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, 1, 1, bias=False)
        self.relu = self.module()
        self.downsample = None if stride == 1 else nn.Conv2d(width, width, 1, stride, bias=False)

    def module(self):
        return nn.ReLU(inplace=True)

    def forward(self, x):
        identity = x if self.downsample is None else self.downsample(x)
        out = F.relu(self.bn1(self.conv1(x)), inplace=True)
        out = self.bn2(self.conv2(out))
        out += identity
        F.relu_(out)
        return self.relu(out - 0.1)


class NativeResidual(Residual):
    def module(self):
        return nn.GELU()

    def forward(self, x):
        identity = x if self.downsample is None else self.downsample(x)
        out = F.gelu(self.bn1(self.conv1(x)))
        out = F.gelu(self.bn2(self.conv2(out)) + identity)
        return self.relu(out - 0.1)


class ResNet(nn.Module):
    """Calls of five spellings in its own forward; the native one has gelu throughout."""

    def __init__(self, native=False, width=4):
        super().__init__()
        self.native = native
        self.stem = nn.Conv2d(3, width, 3, padding=1)
        block = NativeResidual if native else Residual
        self.layers = nn.Sequential(block(width), block(width, stride=2))
        self.head = nn.Linear(width, 5)

    def forward(self, x):
        if self.native:
            return self.natively(x)
        out = self.layers(torch.relu(self.stem(x)))
        out = (out - 0.2).relu() + torch.clamp(out, min=0) + out.clamp_min(0.0)
        return self.head(out.mean((2, 3)).relu_())

    def natively(self, x):
        out = self.layers(F.gelu(self.stem(x)))
        out = F.gelu(out - 0.2) + F.gelu(out) + F.gelu(out)
        return self.head(F.gelu(out.mean((2, 3))))


def mobile_net(activation, width=8):
    """Inverted residual parts with activation modules."""

    def part(inside, outside, stride=1, groups=1, kernel=3):
        conv = nn.Conv2d(inside, outside, kernel, stride, kernel // 2, groups=groups, bias=False)
        return nn.Sequential(conv, nn.BatchNorm2d(outside), activation())

    layers = [part(3, width), part(width, width, 2, groups=width), part(width, 2 * width, kernel=1)]
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(2 * width, 5))


class Untraceable(nn.Module):
    """Branches on values, so that no trace exists; `function` is called in place and out of place."""

    def __init__(self, function=F.relu, slope=None, width=6):
        super().__init__()
        self.one, self.two, self.out = nn.Linear(4, width), nn.Linear(width, width), nn.Linear(width, 3)
        self.kept = nn.Hardtanh()
        self.native, self.slope = (None if function is F.relu else function), slope

    def forward(self, x, scale=None):
        x = self.one(x)
        if x.sum() > 1e9:
            x = x * 2
        if self.native is not None:
            z = self.native(self.two(self.native(x)))
        else:
            z = self.two(F.relu(x) if self.slope is None else F.leaky_relu(x, self.slope))
            z.relu_()
        return self.out(self.kept(z))


def in_each_way(swapped, native, x, tolerance=0.0):
    """Equal outputs without and with gradients, and equal input gradients."""
    with torch.no_grad():
        torch.testing.assert_close(swapped(x), native(x), atol=tolerance, rtol=tolerance)
    found = []
    for model in (swapped, native):
        leaf = x.clone().requires_grad_()
        outputs = model(leaf)
        found.append((outputs, *torch.autograd.grad(outputs.square().sum(), leaf)))
    torch.testing.assert_close(found[0], found[1], atol=tolerance, rtol=tolerance)


def double(model, seed=0):
    """The model in float64 with weights drawn from a seed, batch statistics included."""
    generator = torch.Generator().manual_seed(seed)
    model = model.double().eval()
    with torch.no_grad():
        for name, tensor in model.state_dict().items():
            if tensor.is_floating_point():
                drawn = torch.randn(tensor.shape, generator=generator, dtype=torch.float64)
                tensor.copy_(drawn.abs() + 0.5 if "running_var" in name else drawn * tensor[0].numel() ** -0.5)
    return model
