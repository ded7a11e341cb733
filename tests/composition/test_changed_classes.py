"""Contract 5. Other libraries change a module's class or its tensors too: before adapt_, and after."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn
from torch.nn.utils import parametrizations, parametrize

import pliant


class Doubled(nn.Module):
    def forward(self, tensor):
        return 2 * tensor


def check_every_sub_network(model, x, subnets=("TTTT", "TFTF", "FFFF")) -> None:
    for subnet in subnets:
        plain = pliant.extract(model, subnet)
        shared = pliant.extract(model, subnet, share=True)
        expected = model(x, subnet=subnet)
        assert torch.equal(plain(x), expected)
        assert torch.equal(shared(x), expected)
        names = {base.__name__ for module in plain.modules() for base in type(module).__mro__}
        assert not names & {"SkippableBlock", "SkipAwareNorm", "StageEnd", "AdaptiveModule"}
    assert not torch.allclose(model(x, subnet=subnets[0]), model(x, subnet=subnets[-1]))


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("normalise", [parametrizations.weight_norm, parametrizations.spectral_norm])
def test_parametrized_layers(normalise, when, make, inputs):
    model, x = make("own", adapted=False), inputs("own")
    layers = [block.mlp[0] for block in model.blocks]
    if when == "before":
        [normalise(layer) for layer in layers]
    pliant.adapt_(model, pliant.Depth())
    with torch.no_grad():
        model.blocks[0].norm.skip.weight.add_(0.5)
    if when == "after":
        [normalise(layer) for layer in layers]
    check_every_sub_network(model.eval(), x)
    loss = model(x, subnet="TTTT").sum() + pliant.Objective(model)(x, torch.tensor([0, 3, 9]))
    loss.backward()
    for layer in layers:
        assert parametrize.is_parametrized(layer, "weight")
        parametrize.remove_parametrizations(layer, "weight")
    check_every_sub_network(model, x)


@pytest.mark.parametrize("path", ["blocks.0.norm", "blocks.7", ""])
def test_what_adapt_changes_can_be_parametrized_afterwards(path, make, inputs):
    """A norm, a skippable block that ends its stage, and the model: each has a class of ours and one of torch's."""
    model, x = make("own"), inputs("own")
    before = {str(subnet): model(x, subnet=subnet) for subnet in model.subnets}
    part = model.get_submodule(path)
    if path != "blocks.0.norm":
        part.register_parameter("weight", nn.Parameter(torch.ones(2)))
    kind = type(part)
    parametrize.register_parametrization(part, "weight", Doubled())
    check_every_sub_network(model, x)
    for subnet in ("TTTT", "FFFF"):
        uses = path == "blocks.0.norm" and subnet == "FFFF"  # it is the first set that was changed
        assert torch.equal(model(x, subnet=subnet), before[subnet]) != uses
    plain = pliant.extract(model, "FFFF")
    if part is not model:
        assert parametrize.is_parametrized(plain.get_submodule(path), "weight")
        assert type(plain.get_submodule(path)).__name__ in ("ParametrizedLayerNorm", "ParametrizedOwnBlock")
    for changed in (model, plain):
        parametrize.remove_parametrizations(changed.get_submodule(path), "weight")
    assert type(part) is kind
    check_every_sub_network(model, x)
    assert "Parametrized" not in type(plain.get_submodule(path)).__name__
    assert torch.equal(plain(x), model(x, subnet="FFFF"))


def test_what_a_width_cuts_may_not_be_parametrized(make):
    network = pliant.create_model("timm:vit_tiny_patch16_224", img_size=32, depth=2)
    x = torch.randn(1, 3, 32, 32)
    parametrizations.weight_norm(network.blocks[0].mlp.fc1)
    with pytest.raises(ValueError, match=r"'blocks\.0\.mlp\.fc1' is computed from others.*make it a plain one first"):
        pliant.adapt_(network, pliant.Width())
    parametrize.remove_parametrizations(network.blocks[0].mlp.fc1, "weight")

    pliant.adapt_(network, pliant.Width()).eval()
    before = network(x, subnet="smallest")
    for normalise in (parametrizations.weight_norm, parametrizations.spectral_norm):
        with pytest.raises(ValueError, match=r"the weight of a SlicedLinear is cut by its width.*extract"):
            normalise(network.blocks[0].mlp.fc1)
    assert torch.equal(network(x, subnet="smallest"), before)


@pytest.mark.parametrize("path", ["blocks.0.norm", "blocks.7", ""])
def test_what_adapt_changes_may_not_be_parametrized_before(path, make):
    model = make("own", adapted=False)
    part = model.get_submodule(path)
    if path != "blocks.0.norm":
        part.register_parameter("weight", nn.Parameter(torch.ones(2)))
    parametrize.register_parametrization(part, "weight", Doubled())
    with pytest.raises(ValueError, match=f"'{path or 'ParametrizedOwnNetwork'}' is parametrized.*adapt first"):
        pliant.adapt_(model, pliant.Depth())
    assert not any(type(module).__module__.startswith("pliant") for module in model.modules())
    parametrize.remove_parametrizations(part, "weight")
    pliant.adapt_(model, pliant.Depth())


def test_a_class_that_somebody_else_put_in_front_is_refused_by_extract(make):
    model = make("own")
    block = model.blocks[7]
    block.__class__ = type("Foreign", (type(block),), {})
    with pytest.raises(ValueError, match=r"the class of a Foreign was changed by another library after pliant\.adapt_"):
        pliant.extract(model, "TTTT")


def test_data_parallel_is_refused(make, inputs):
    # One device is enough for DataParallel to run the model itself; with two it asks for replicas.
    with pytest.raises(ValueError, match="use DistributedDataParallel, one process for each device"):
        make("own")._replicate_for_data_parallel()


def test_shared_norms_outside_of_blocks_are_refused_with_both_paths(make):
    """Two patch mergings with one norm: it would follow two stages at once."""
    from torchvision.models import swin_transformer

    model = swin_transformer.SwinTransformer([2, 2], 16, [2, 2, 2], [1, 2, 4], [4, 4], num_classes=10)
    merging = model.features[2].norm, model.features[4]
    merging[1].norm = nn.LayerNorm(merging[0].normalized_shape)
    model.features[4] = copy.deepcopy(model.features[2])
    model.features[4].norm.weight = model.features[2].norm.weight
    with pytest.raises(ValueError, match=r"'features\.2\.norm\.weight' and 'features\.4\.norm\.weight' are tied"):
        pliant.adapt_(model, pliant.Depth())
    model.features[4].norm = model.features[2].norm
    with pytest.raises(ValueError, match=r"'features\.2\.norm' and 'features\.4\.norm' are one shared module"):
        pliant.adapt_(model, pliant.Depth())


def test_weights_tied_outside_of_the_changed_blocks_stay_tied(inputs):
    import transformers

    config = transformers.LlamaConfig(
        vocab_size=50,
        hidden_size=32,
        num_hidden_layers=4,
        num_attention_heads=2,
        num_key_value_heads=2,
        intermediate_size=64,
        tie_word_embeddings=True,
    )
    torch.manual_seed(0)
    model = pliant.adapt_(transformers.LlamaForCausalLM(config), pliant.Depth()).eval()
    x = inputs("transformers Llama")
    for network in (copy.deepcopy(model), pliant.extract(model, "smallest"), model):
        assert network.lm_head.weight is network.model.embed_tokens.weight
    assert pliant.extract(model, "smallest").lm_head.weight is not model.lm_head.weight
    assert pliant.extract(model, "smallest", share=True).lm_head.weight is model.lm_head.weight
    pliant.Objective(model)(x, x).backward()
    assert model.lm_head.weight.grad is model.model.embed_tokens.weight.grad is not None
    model(x, subnet="smallest", labels=x).loss.backward()
