"""Heads that answer for every token get exits that do; heads of other kinds are refused by their kind."""

from __future__ import annotations

from typing import Any

import pytest
import timm
import torch
import transformers
from torch import Tensor, nn

import pliant
from pliant.core.inputs import logits_of

SIZE: dict[str, Any] = {"vocab_size": 50, "num_labels": 3, "pad_token_id": 0}
BERT: dict[str, Any] = SIZE | {
    "hidden_size": 16,
    "num_hidden_layers": 4,
    "num_attention_heads": 2,
    "intermediate_size": 32,
}
DISTILBERT: dict[str, Any] = SIZE | {"dim": 16, "n_layers": 4, "n_heads": 2, "hidden_dim": 32}
IDS = torch.randint(1, 50, (2, 6), generator=torch.Generator().manual_seed(0))


class Block(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.norm, self.layer = nn.LayerNorm(16), nn.Linear(16, 16)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.layer(self.norm(x))


class Tagger(nn.Module):
    """Answers for every token, or for all behind the first ones."""

    def __init__(self, *, first: int = 0) -> None:
        super().__init__()
        self.embed, self.head, self.first = nn.Embedding(50, 16), nn.Linear(16, 3), first
        self.blocks = nn.ModuleList(Block() for _ in range(4))

    def forward(self, ids: Tensor) -> Tensor:
        x = self.embed(ids)
        for block in self.blocks:
            x = block(x)
        return self.head(x[:, self.first :])


TOKENS = {
    "bert": lambda: transformers.BertForTokenClassification(transformers.BertConfig(**BERT)),
    "distilbert": lambda: transformers.DistilBertForTokenClassification(transformers.DistilBertConfig(**DISTILBERT)),
    "llama": lambda: transformers.LlamaForTokenClassification(transformers.LlamaConfig(num_key_value_heads=2, **BERT)),
    "own": Tagger,
}


@pytest.mark.parametrize("family", TOKENS)
@pytest.mark.parametrize("collaboration", ["none", "linear"])
@torch.no_grad()
def test_an_exit_answers_for_every_token(family, collaboration):
    torch.manual_seed(0)
    exits = pliant.Exits(collaboration=collaboration)
    model: Any = pliant.adapt_(TOKENS[family]().eval(), pliant.Depth(groups=2), exits, example=IDS).eval()
    for subnet in model.subnets:
        answer = logits_of(model(IDS, subnet=subnet))
        assert answer.shape == (2, 6, 3)
        assert torch.equal(logits_of(pliant.extract(model, subnet)(IDS)), answer)
        if subnet.exit == 1:  # each token's own features, and no average
            assert not torch.allclose(answer[:, 0], answer[:, 1])
    assert [answer.shape for answer in model(IDS, exits=True)] == [(2, 6, 3)] * len(model.space.exit_stages)


def test_exits_by_token_learn_from_labels_of_tokens(tmp_path):
    model = pliant.adapt_(Tagger(), pliant.Exits(), example=IDS).train()
    loss = pliant.Objective(model)(IDS, IDS % 3)
    loss.backward()
    exits = [module for path, module in model.named_modules() if path.endswith("exit")]
    assert len(exits) == 3 and all(module.linear.weight.grad.abs().sum() > 0 for module in exits)
    pliant.export(model.eval(), tmp_path / "net.onnx", subnet="exit=1")


REFUSED = {
    "span": lambda: transformers.BertForQuestionAnswering(transformers.BertConfig(**BERT | {"num_labels": 2})),
    "choice": lambda: transformers.BertForMultipleChoice(transformers.BertConfig(**BERT)),
    "pre-training task": lambda: transformers.BertForPreTraining(transformers.BertConfig(**BERT)),
    "position": lambda: Tagger(first=1),
}


@pytest.mark.parametrize("kind", REFUSED)
def test_other_heads_are_refused_by_their_kind(kind):
    model = REFUSED[kind]()
    before = type(model)
    with pytest.raises(ValueError, match=rf"^adapt_: got pliant.Exits, but the head .* answers by {kind}; [^\n]*$"):
        pliant.adapt_(model, pliant.Exits(), example=IDS)
    assert type(model) is before
    pliant.adapt_(model, pliant.Depth(), example=IDS)


def test_networks_that_pool_nothing():
    options = {"img_size": 32, "embed_dim": 48, "depth": 4, "num_heads": 2, "num_classes": 3, "global_pool": ""}
    vit: Any = pliant.adapt_(timm.create_model("vit_tiny_patch16_224", **options).eval(), pliant.Exits())
    images = torch.randn(2, 3, 32, 32)
    assert {tuple(vit(images, subnet=subnet).shape) for subnet in vit.subnets} == {(2, 5, 3)}
    with pytest.raises(ValueError, match="answers by position"):
        pliant.adapt_(timm.create_model("convnext_atto", global_pool=""), pliant.Exits())


@pytest.mark.parametrize("option", [{"classifier": "convolutions"}, {"collaboration": "concatenate"}])
def test_options_that_need_one_answer_are_refused(option):
    (name, value) = next(iter(option.items()))
    with pytest.raises(ValueError, match=f"Exits.{name}: got '{value}'"):
        pliant.adapt_(Tagger(), pliant.Exits(**option), example=IDS)
