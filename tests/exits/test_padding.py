"""What a mask calls padding changes no answer of an exit, and no feature of a stage."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import transformers
from torch import nn

import pliant
from pliant.core.inputs import logits_of

VOCABULARY, PADDING = 50, 6
SIZE: dict[str, Any] = {"vocab_size": VOCABULARY, "num_labels": 3, "pad_token_id": 0}
BERT: dict[str, Any] = SIZE | {
    "hidden_size": 16,
    "num_hidden_layers": 4,
    "num_attention_heads": 2,
    "intermediate_size": 32,
}
FAMILIES = {
    "bert": lambda: transformers.BertForSequenceClassification(transformers.BertConfig(**BERT)),
    "distilbert": lambda: transformers.DistilBertForSequenceClassification(
        transformers.DistilBertConfig(dim=16, n_layers=4, n_heads=2, hidden_dim=32, **SIZE)
    ),
    "gpt2": lambda: transformers.GPT2ForSequenceClassification(
        transformers.GPT2Config(n_embd=16, n_layer=4, n_head=2, n_positions=64, bos_token_id=1, eos_token_id=1, **SIZE)
    ),
    "llama": lambda: transformers.LlamaForSequenceClassification(
        transformers.LlamaConfig(num_key_value_heads=2, **BERT)
    ),
}


class Own(nn.Module):
    """A text classifier with a mask as PyTorch's transformers take it, and no positions."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(VOCABULARY, 16)
        self.layers = nn.ModuleList(
            nn.TransformerEncoderLayer(16, 2, 32, dropout=0, batch_first=True) for _ in range(4)
        )
        self.head = nn.Linear(16, 3)

    def forward(self, ids: torch.Tensor, src_key_padding_mask: torch.Tensor | None = None) -> torch.Tensor:
        x = self.embed(ids)
        for layer in self.layers:
            x = layer(x, src_key_padding_mask=src_key_padding_mask)
        if src_key_padding_mask is None:
            return self.head(x.mean(1))
        counts = ~src_key_padding_mask[..., None]
        return self.head((x * counts).sum(1) / counts.sum(1))


def text(batch: int = 2, tokens: int = 5) -> torch.Tensor:
    return torch.randint(1, VOCABULARY, (batch, tokens), generator=torch.Generator().manual_seed(0))


def padded(ids: torch.Tensor, *, left: bool = False) -> tuple[torch.Tensor, torch.Tensor]:
    """The same texts with padding, and a mask of 1 where there is none."""
    zeros = ids.new_zeros(len(ids), PADDING)
    parts = (zeros, ids) if left else (ids, zeros)
    marks = (zeros, torch.ones_like(ids)) if left else (torch.ones_like(ids), zeros)
    return torch.cat(parts, 1), torch.cat(marks, 1)


def adapted(family: str, *configs: Any) -> Any:
    torch.manual_seed(0)
    model = FAMILIES[family]().eval()
    example = {"input_ids": text(), "attention_mask": torch.ones_like(text())}
    return pliant.adapt_(model, *configs, example=example).eval()


def close(one: Any, other: Any) -> None:
    torch.testing.assert_close(logits_of(one), logits_of(other), atol=1e-5, rtol=0)


@pytest.mark.parametrize("family", FAMILIES)
@torch.no_grad()
def test_padding_changes_no_answer(family):
    model = adapted(family, pliant.Depth(), pliant.Exits())
    ids, mask = padded(text())
    for subnet in model.subnets:
        close(model(ids, attention_mask=mask, subnet=subnet), model(text(), subnet=subnet))
        taken_out = pliant.extract(model, subnet)
        close(taken_out(input_ids=ids, attention_mask=mask), model(text(), subnet=subnet))
    answers = model(input_ids=ids, attention_mask=mask, exits=True)
    for answer, expected in zip(answers, model(text(), exits=True), strict=True):
        close(answer, expected)


@pytest.mark.parametrize("family", FAMILIES)
@torch.no_grad()
def test_padding_changes_no_feature(family):
    model = adapted(family, pliant.Depth(groups=2))
    ids, mask = padded(text())
    _, features = model(ids, attention_mask=mask, features=True)
    _, expected = model(text(), features=True)
    assert len(features) == 2
    for feature, one in zip(features, expected, strict=True):
        close(feature, one)


@pytest.mark.parametrize("family", FAMILIES)
@torch.no_grad()
def test_a_mask_without_padding_is_as_none_bit_for_bit(family):
    model = adapted(family, pliant.Depth(groups=2), pliant.Exits())
    mask = torch.ones_like(text())
    answers, features = model(text(), features=True, exits=True)
    masked_answers, masked_features = model(text(), attention_mask=mask, features=True, exits=True)
    for one, other in zip([*answers[:-1], *features], [*masked_answers[:-1], *masked_features], strict=True):
        assert torch.equal(one, other)


@torch.no_grad()
def test_padding_on_the_left_and_the_masks_of_pytorch():
    model: Any = pliant.adapt_(Own().eval(), pliant.Exits(), example=text()).eval()
    for left in (False, True):
        ids, mask = padded(text(), left=left)
        for subnet in model.subnets:
            close(model(ids, src_key_padding_mask=mask == 0, subnet=subnet), model(text(), subnet=subnet))
            close(pliant.extract(model, subnet)(ids, mask == 0), model(text(), subnet=subnet))


@torch.no_grad()
def test_exits_that_collaborate_hand_on_what_padding_does_not_change():
    model = adapted("bert", pliant.Exits(collaboration="identity"))
    ids, mask = padded(text())
    for subnet in model.subnets:
        close(model(ids, mask, subnet=subnet), model(text(), subnet=subnet))
        close(pliant.extract(model, subnet)(ids, mask), model(text(), subnet=subnet))


@torch.no_grad()
def test_a_compiled_exit_does_not_see_padding_either():
    model = adapted("bert", pliant.Exits())
    compiled = torch.compile(model, fullgraph=True, backend="eager")
    ids, mask = padded(text())
    close(compiled(ids, attention_mask=mask, subnet="exit=1"), model(text(), subnet="exit=1"))


@torch.no_grad()
def test_an_exit_with_a_mask_can_be_traced():
    model: Any = pliant.adapt_(Own().eval(), pliant.Exits(), example=text()).eval()
    network = pliant.extract(model, "exit=2")
    ids, mask = padded(text())
    program = torch.export.export(network, (ids, torch.zeros_like(mask) > 0), strict=True)
    close(program.module()(ids, mask == 0), model(text(), subnet="exit=2"))


def test_the_gradient_of_padding_is_zero():
    model = adapted("bert", pliant.Exits())
    ids, mask = padded(text())
    embedded = model.get_input_embeddings()(ids).detach().requires_grad_()
    model(inputs_embeds=embedded, attention_mask=mask, subnet="exit=1").sum().backward()
    assert embedded.grad[:, text().shape[1] :].abs().max() == 0
    assert embedded.grad[:, : text().shape[1]].abs().max() > 0


def test_a_mask_of_other_dimensions_is_refused():
    model = adapted("bert", pliant.Exits())
    ids, mask = padded(text())
    square = (mask > 0)[:, None, None, :].expand(-1, 1, mask.shape[1], -1)
    with pytest.raises(ValueError, match=r"attention_mask: got \[2, 1, 11, 11\], expected \[batch, tokens\]"):
        model(ids, square, subnet="exit=1")
    model(ids, square)  # the network's own end averages nothing of ours


class Halving(Own):
    """Has half as many positions as tokens: nobody knows which of them are padding."""

    def forward(self, ids: torch.Tensor, attention_mask: torch.Tensor | None = None) -> torch.Tensor:
        x = self.embed(ids).unflatten(1, (-1, 2)).mean(2)
        for layer in self.layers:
            x = layer(x)
        return self.head(x.mean(1))


@torch.no_grad()
def test_a_mask_of_other_positions_is_refused_where_there_is_padding():
    ids = text(tokens=8)
    model: Any = pliant.adapt_(Halving().eval(), pliant.Exits(), example=ids).eval()
    mask = torch.ones_like(ids)
    assert torch.equal(model(ids, mask, subnet="exit=1"), model(ids, subnet="exit=1"))
    mask[0, 6:] = 0
    with pytest.raises(ValueError, match=r"attention_mask: got \[2, 8\] with padding, expected \[4\] positions"):
        model(ids, mask, subnet="exit=1")


def test_a_batch_with_a_mask_does_not_shrink():
    model = adapted("bert", pliant.Exits())
    ids, mask = padded(text())
    with pytest.raises(ValueError, match="attention_mask: 1 of 2 inputs go on behind exit 1"):
        model.leave_early(ids, attention_mask=mask, decide=lambda number, logits: torch.tensor([True, False]))
    logits, places = model.leave_early(ids, attention_mask=mask, decide=lambda number, logits: logits[:, 0] == number)
    assert places.tolist() == [4, 4]
    close(logits, model(ids, attention_mask=mask))


@torch.no_grad()
def test_a_batch_with_a_mask_without_padding_shrinks():
    model = adapted("bert", pliant.Exits())
    mask = torch.ones_like(text())
    first = torch.tensor([True, False])
    logits, places = model.leave_early(
        text(), attention_mask=mask, decide=lambda number, logits: first[: len(logits)] & (number == 1)
    )
    assert places.tolist() == [1, 4]
    close(logits[:1], model(text(), subnet="exit=1")[:1])
    close(logits[1:], logits_of(model(text()))[1:])
