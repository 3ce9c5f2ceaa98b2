"""Forward passes of a swapped model beside the same network written with the activation.

Each pair holds the same weights and computes the same outputs. Both are timed in turn (processor time) and the
median taken, without a graph and with one (forward and backward to the input). The limit is 1.05 for the forward
pass of modules and traced calls. Replacing calls at run time costs microseconds for every torch call of that one
forward, and a copy for every call in place.

    python -m tests.benchmarks.bench_swapping [--repeats 60] [--threads 1]
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable, Iterator

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from smoothness.activations import swap_activations
from smoothness.wrapping import wrap
from tests.activations.swap_networks import ResNet, Untraceable, mobile_net


def pairs() -> Iterator[tuple[str, nn.Module, nn.Module, Tensor]]:
    """Name, swapped model, native model, inputs."""
    resnet, native = ResNet(width=32), ResNet(native=True, width=32)
    native.load_state_dict(resnet.state_dict())
    images = torch.randn(8, 3, 32, 32)
    yield "ResNet, calls traced", swap_activations(resnet, to=nn.GELU), native, images
    yield "ResNet, calls at run time", swap_activations(resnet, to=nn.GELU, functional="run-time"), native, images
    relu6, gelu = mobile_net(nn.ReLU6, 32), mobile_net(nn.GELU, 32)
    gelu.load_state_dict(relu6.state_dict())
    yield "MobileNet, modules", swap_activations(relu6, to=nn.GELU), gelu, images
    for width in (256, 2048):
        relu, gelu = Untraceable(width=width), Untraceable(F.gelu, width=width)
        gelu.load_state_dict(relu.state_dict())
        swapped = swap_activations(relu, to=nn.GELU, where="relu")
        yield f"MLP of {width}, calls at run time", swapped, gelu, torch.randn(64, 4)
    layers = [nn.TransformerEncoderLayer(128, 4, 512, activation=f, batch_first=True) for f in (F.relu, torch.tanh)]
    encoders = [nn.TransformerEncoder(layer, 2, enable_nested_tensor=False) for layer in layers]
    encoders[1].load_state_dict(encoders[0].state_dict())
    yield "TransformerEncoder", swap_activations(encoders[0], to=nn.Tanh), encoders[1], torch.randn(8, 32, 128)
    import transformers

    def bert(hidden_act: str) -> nn.Module:
        config = transformers.BertConfig(
            vocab_size=60, hidden_size=128, num_hidden_layers=2, num_attention_heads=2, intermediate_size=512,
            hidden_act=hidden_act,
        )  # fmt: skip
        return transformers.BertForSequenceClassification(config)

    gelu_bert, relu_bert = bert("gelu"), bert("relu")
    relu_bert.load_state_dict(gelu_bert.state_dict())
    swapped = wrap(swap_activations(gelu_bert, to=nn.ReLU), inputs="inputs_embeds")
    yield "BERT-tiny", swapped, wrap(relu_bert, inputs="inputs_embeds"), torch.randn(8, 32, 128)


def forward(model: nn.Module, x: Tensor) -> None:
    with torch.no_grad():
        model(x)


def both_ways(model: nn.Module, x: Tensor) -> None:
    leaf = x.detach().requires_grad_()
    torch.autograd.grad(model(leaf).sum(), leaf)


def ratio(
    run: Callable[[nn.Module, Tensor], None], swapped: nn.Module, native: nn.Module, x: Tensor, repeats: int
) -> tuple[float, float]:
    """Median seconds of the native model, and the ratio of the medians."""
    spent: list[tuple[float, float]] = []
    for turn in range(repeats + 3):
        times = {}
        for model in (swapped, native) if turn % 2 else (native, swapped):
            start = time.process_time()  # not the wall clock: other processes share the machine
            run(model, x)
            times[model] = time.process_time() - start
        if turn >= 3:  # the first turns warm up
            spent.append((times[swapped], times[native]))
    native_time = statistics.median(own for _, own in spent)
    return native_time, statistics.median(taken for taken, _ in spent) / native_time


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=60)
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    print(f"{'model':34}{'native ms':>12}{'forward':>10}{'with backward':>16}")
    for name, swapped, native, x in pairs():
        swapped.eval()
        native.eval()
        with torch.no_grad():
            torch.testing.assert_close(swapped(x), native(x))
        seconds, plain = ratio(forward, swapped, native, x, options.repeats)
        _, graph = ratio(both_ways, swapped, native, x, options.repeats)
        print(f"{name:34}{1000 * seconds:12.2f}{plain:10.3f}{graph:16.3f}", flush=True)


if __name__ == "__main__":
    main()
