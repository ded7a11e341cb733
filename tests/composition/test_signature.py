"""Contract 5. What a network's forward takes is what it was, and `subnet`, `features` and `exits`."""

from __future__ import annotations

import inspect

import pytest
import torch
from torch import nn

import pliant
from pliant.core.anatomy import Anatomy, Block, Stage


@pytest.mark.parametrize("library", ["own", "timm ViT", "torchvision ViT", "transformers ViT", "transformers Llama"])
def test_the_signature_is_the_model_s_own_and_three_keywords(library, make):
    before = inspect.signature(make(library, adapted=False).forward)
    model = make(library)
    after = inspect.signature(model.forward)
    added = [parameter for name, parameter in after.parameters.items() if name not in before.parameters]
    assert [(parameter.name, parameter.kind.name) for parameter in added] == [
        ("subnet", "KEYWORD_ONLY"),
        ("features", "KEYWORD_ONLY"),
        ("exits", "KEYWORD_ONLY"),
    ]
    assert [p for p in after.parameters.values() if p not in added] == list(before.parameters.values())
    for path, module in model.named_modules():
        if path:
            inspect.signature(module.forward)  # blocks and norms have theirs
    assert inspect.signature(pliant.extract(model, "smallest").forward) == before


def test_blocks_keep_their_signature(make):
    before = make("transformers Llama", adapted=False).model.layers[7]
    after = make("transformers Llama").model.layers[7]
    assert type(after) is not type(before)
    assert inspect.signature(after.forward) == inspect.signature(before.forward)


def test_a_forward_that_takes_a_subnet_already_is_refused(make):
    class Own(type(make("own", adapted=False))):
        def forward(self, x, features=None):
            return super().forward(x)

    model = Own()
    with pytest.raises(ValueError, match="the forward of this Own has an argument 'features' already"):
        pliant.adapt_(model, pliant.Depth())
    assert type(model) is Own


def test_generate_of_transformers_runs_the_sub_network(make, inputs):
    model = make("transformers Llama")
    with torch.no_grad():
        model.lm_head.weight.mul_(20)
    prompt = inputs("transformers Llama")[:1]
    options = dict(max_new_tokens=6, do_sample=False, output_logits=True, return_dict_in_generate=True)
    written = {}
    for subnet in ("TTTT", "TFFF", "FFFF"):
        written[subnet] = model.generate(prompt, subnet=subnet, **options)
        alone = pliant.extract(model, subnet).generate(prompt, **options)
        assert torch.equal(written[subnet].sequences, alone.sequences)
        torch.testing.assert_close(written[subnet].logits, alone.logits)
    assert not torch.allclose(written["TTTT"].logits[0], written["FFFF"].logits[0])
    with pytest.raises(ValueError, match="no sub-network 'TT'"):
        model.generate(prompt, subnet="TT", **options)


class Called(nn.Module):
    """A block that takes a mask too."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(4)

    def forward(self, hidden_states, mask, *args, scale=1.0, **kwargs):
        return hidden_states + self.norm(hidden_states) * mask * scale


class ByName(nn.Module):
    """Calls its blocks by name, and hands the stream over by keyword."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = Called(), Called()
        self.plain = nn.ModuleDict({"one": nn.Tanh(), "two": nn.Tanh()})

    def forward(self, x, mask):
        x = self.first(hidden_states=x, mask=mask, scale=2.0)
        x = self.second(mask=mask, hidden_states=x, anything=3)
        return self.plain["two"](self.plain["one"](x))

    def anatomy(self):
        def stage(path, *names, norm):
            blocks = tuple(
                Block(path=f"{path}{name}", norms=(f"{path}{name}.norm",) if norm else (), keeps_shape=True)
                for name in names
            )
            return Stage(path=path.rstrip("."), channels=4, blocks=blocks, channel_dim=-1)

        stages = (stage("", "first", "second", norm=True), stage("plain.", "one", "two", norm=False))
        return Anatomy(family="own network", stages=stages, head="", num_classes=0)


def test_out_of_a_network_that_calls_its_blocks_by_name_an_identity_is_left():
    model = pliant.adapt_(ByName(), pliant.Depth()).eval()
    with torch.no_grad():
        model.first.norm.skip.weight.add_(0.5)
    x, mask = torch.rand(2, 3, 4), torch.rand(2, 3, 1)
    results = []
    for subnet in model.subnets:
        plain = pliant.extract(model, subnet)
        results.append(model(x, mask, subnet=subnet))
        assert torch.equal(plain(x, mask), results[-1])
        assert not any(type(module).__module__.startswith("pliant") for module in plain.modules())
        assert isinstance(plain.plain["two"], nn.Identity) == subnet.depth[1]
        assert [path for path, _ in plain.named_children()] == ["first", "second", "plain"]
        assert any(name.startswith("second.") for name in plain.state_dict()) != subnet.depth[0]
    assert len({result.sum().item() for result in results}) == 4
    base = pliant.extract(model, "TT")
    exported = torch.export.export(base, (x, mask)).module()
    torch.testing.assert_close(exported(x, mask), base(x, mask))
