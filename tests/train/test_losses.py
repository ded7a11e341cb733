"""Outputs and labels decide the loss: each equals the formula on the page, and what does not fit is refused."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import pliant
from pliant.core.plan import Plan, Term
from pliant.plans import build_plan

PAGE = Path(__file__).resolve().parents[2] / "docs" / "training.md"
SIZES = {"B": 4, "C": 5, "H": 3, "W": 2, "T": 6}
IMAGES = torch.randn(SIZES["B"], 3, 4, 4, generator=torch.Generator().manual_seed(0))
BOTH = Plan(
    name="both", terms=(Term(student="largest"), Term(student="smallest", teacher="largest", on="logits", weight=0.5))
)


class Block(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm = nn.Conv2d(8, 8, 3, padding=1, bias=False), nn.BatchNorm2d(8)

    def forward(self, x: Tensor) -> Tensor:
        return torch.relu(x + self.norm(self.conv(x)))


class Net(nn.Module):
    """A network with outputs of any shape."""

    def __init__(self, *shape: int) -> None:
        super().__init__()
        self.shape = shape
        self.stem = nn.Conv2d(3, 8, 3, padding=1)
        self.stage = nn.Sequential(*(Block() for _ in range(4)))
        self.head = nn.Linear(8 * 16, int(torch.tensor(shape).prod()))

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.stage(self.stem(x)).flatten(1)).unflatten(1, self.shape).reshape(-1, *self.shape)


class OneLogit(Net):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x).flatten()


def make(*shape: int) -> Any:
    torch.manual_seed(1)
    network = Net(*shape) if shape else OneLogit(1)
    return pliant.adapt_(network, pliant.Depth(), example=IMAGES).eval()


def labels(kind: str, shape: list[int], classes: int, ignored: int | None) -> Tensor:
    generator = torch.Generator().manual_seed(2)
    if kind == "probabilities":
        y = torch.rand(shape, generator=generator).softmax(1)
    elif kind in ("class numbers", "tokens"):
        y = torch.randint(max(classes, 2), shape, generator=generator)
    else:
        y = torch.randint(2, shape, generator=generator).float()
    if ignored is not None:
        y.flatten()[::3] = ignored
    return y


def rows() -> list[Any]:
    cells = r"\| `\[(B[^]]*)\]` \| ([a-z ]+) `\[([^]]*)\]` \| (.*?) ?\| `(.+?)` \| `(.+?)` \|"
    found = re.findall(cells, PAGE.read_text(encoding="utf-8"))
    return [pytest.param(*row, id=f"{row[0]}-{row[1]}-{row[3]}") for row in found]


def formulas() -> dict[str, Any]:
    names: dict[str, Any] = {"w": torch.tensor([0.5, 2.0, 1.0, 0.1, 3.0])}
    block = next(b for b in re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.S) if "def kl" in b)
    exec(block, names)
    return names


def test_every_line_of_the_table_is_found():
    page = PAGE.read_text(encoding="utf-8").partition("## Outputs and labels")[2]
    assert len(rows()) == len(re.findall(r"^\| `\[", page, re.M)) > 15


@pytest.mark.parametrize(("outputs", "kind", "shape", "options", "on_labels", "on_logits"), rows())
def test_the_table_on_the_page(outputs: str, kind: str, shape: str, options: str, on_labels: str, on_logits: str):
    sizes = [int(SIZES.get(name, name)) for name in outputs.split(", ")]
    names = formulas()
    model = make(*sizes[1:])
    for choice in {option.strip("`") for option in options.split(" or ")}:
        arguments = {} if choice == "none" else eval(f"dict({choice})", names)
        y = labels(kind, [int(SIZES.get(n, n)) for n in shape.split(", ")], SIZES["C"] if "C" in outputs else 2,
                   arguments.get("ignore_index"))  # fmt: skip
        objective = pliant.Objective(model, BOTH, **arguments)

        def gradients(loss: Tensor) -> list[Tensor]:
            return list(torch.autograd.grad(loss, list(model.parameters()), allow_unused=True))

        loss = objective(IMAGES, y)
        z, s = model(IMAGES), model(IMAGES, subnet="smallest")
        values = names | {"z": z, "s": s, "t": z.detach(), "y": y}
        expected = eval(on_labels, values) + 0.5 * eval(on_logits, values)
        torch.testing.assert_close(loss, expected, rtol=1e-6, atol=1e-6)
        for got, wanted in zip(gradients(loss), gradients(expected), strict=True):
            torch.testing.assert_close(got, wanted, rtol=1e-4, atol=1e-6)
        torch.testing.assert_close(objective.backward(IMAGES, y), loss.detach())


@pytest.mark.parametrize(("outputs", "kind", "shape", "options"), [row.values[:4] for row in rows()])
def test_no_batch_but_the_first_waits_for_an_accelerator(outputs: str, kind: str, shape: str, options: str):
    """As on the meta device, where a value that Python asks for is an error."""
    model = make(*[int(SIZES.get(name, name)) for name in outputs.split(", ")][1:])
    arguments = eval(f"dict({options.partition(' or ')[0].strip('`')})", formulas())
    y = labels(kind, [int(SIZES.get(n, n)) for n in shape.split(", ")], 2, None)
    objective = pliant.Objective(model, BOTH, **arguments)
    objective(IMAGES, y)
    model.to("meta")
    assert objective(IMAGES.to("meta"), y.to("meta")).is_meta


@pytest.mark.parametrize("shape", [(5, 3, 2), (1,)])
def test_the_temperature_divides_and_the_best_classes_are_taken_at_every_position(shape):
    model = make(*shape)
    y = torch.zeros(4, *shape[1:], dtype=torch.long)
    term = Term(student="smallest", teacher="largest", on="logits", temperature=2.0, top_k=2)
    loss = pliant.Objective(model, Plan(name="one", terms=(term,)))(IMAGES, y)
    s, t = model(IMAGES, subnet="smallest") / 2, model(IMAGES) / 2
    if shape == (1,):
        expected = formulas()["bernoulli_kl"](s, t).mean() * 4
    else:
        best = t.argsort(1, descending=True)[:, :2]
        expected = formulas()["kl"](s.gather(1, best), t.gather(1, best), 1).mean() * 4
    torch.testing.assert_close(loss, expected, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("options", [{"ignore_index": -100}, {"class_weights": [1.0, 0.0, 1, 1, 1]}])
def test_a_batch_of_which_nothing_counts_has_no_loss(options):
    model = make(5, 3, 2)
    y = torch.full((4, 3, 2), -100 if "ignore_index" in options else 1)
    plan = Plan(name="labels", terms=BOTH.terms[:1]) if "class_weights" in options else BOTH
    loss = pliant.Objective(model, plan, **options)(IMAGES, y)
    loss.backward()
    assert loss == 0
    assert all(p.grad is None or not p.grad.any() for p in model.parameters())


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int32])
def test_class_numbers_of_any_whole_type_are_the_same(dtype):
    objective = pliant.Objective(make(5, 3, 2), BOTH, ignore_index=255)
    y = torch.randint(5, (4, 3, 2))
    y[0] = 255 if dtype is torch.uint8 else 4
    torch.testing.assert_close(objective(IMAGES, y.to(dtype)), objective(IMAGES, y))


REFUSED = [
    ((5,), torch.tensor([0, 1, 2, 5]), {}, r"y: got the label 5, expected 0 to 4"),
    ((5,), torch.tensor([0, 1, 2, -1]), {}, r"y: got the label -1, expected 0 to 4"),
    ((5,), torch.tensor([0, 1, 2, 255]), {}, r"y: got the label 255, .*ignore_index=-100"),
    ((5,), torch.tensor([0.0, 1.0, 2.0, 3.0]), {}, r"y: got float32 \[4\], expected class numbers, .*y.long\(\)"),
    ((5,), torch.ones(4, 5) > 0, {}, r"y: got labels of torch.bool"),
    ((5,), [0, 1, 2, 3], {}, r"y: got a list"),
    ((5,), torch.zeros(4, 1, dtype=torch.long), {}, r"y: got int64 \[4, 1\], expected .* \[4\], or .*\[4, 5\]"),
    ((5,), torch.zeros(3, dtype=torch.long), {}, r"y: got int64 \[3\], expected class numbers \[4\]"),
    ((5,), torch.eye(5)[:4].long(), {}, r"y: got int64 \[4, 5\].*task='multilabel'"),
    ((5,), torch.rand(4, 5) + 0.5, {}, r"y: got float32 \[4, 5\].*probabilities.*task='multilabel'"),
    ((5,), torch.eye(5)[:4] * 2 - 1, {"task": "multilabel"}, r"y: got the label -1, expected 0 to 1"),
    ((5,), torch.full((4, 5), torch.nan), {"task": "multilabel"}, r"y: got the label nan, expected 0 to 1"),
    ((5,), torch.zeros(4, 5), {"task": "multiclass"}, r"y: got float32 \[4, 5\].*probabilities"),
    ((5,), torch.zeros(4, dtype=torch.long), {"task": "multilabel"}, r"y: got int64 \[4\], .*task='multilabel'"),
    ((5,), torch.zeros(4, dtype=torch.long), {"task": "binary"}, r"task: got 'binary', expected one logit"),
    ((5,), torch.zeros(4, dtype=torch.long), {"class_dim": 2}, r"class_dim: got 2, expected 1 .*\[4, 5\]"),
    ((5,), torch.zeros(4, dtype=torch.long), {"class_weights": [1, 2]}, r"class_weights: got 2, expected 5"),
    ((1,), torch.zeros(4, dtype=torch.long), {"class_weights": [1]}, r"class_weights: got 1, expected 2.*0 and 1"),
    ((1,), torch.tensor([0, 1, 2, 1]), {}, r"y: got the label 2, expected 0 to 1"),
    ((1,), torch.zeros(4, dtype=torch.long), {"task": "multiclass"}, r"task: got 'multiclass' .*use 'binary'"),
    ((), torch.zeros(4, 1), {}, r"y: got float32 \[4, 1\], expected a 0 or 1 for each logit \[4\]"),
    ((5, 5, 2), torch.zeros(4, 5, 2, dtype=torch.long), {}, r"class_dim: .*dimensions 1 and 2 of .*\[4, 5, 5, 2\]"),
    ((5, 3, 2), torch.zeros(4, dtype=torch.long), {}, r"y: got int64 \[4\], expected class numbers \[4, 3, 2\] or"),
    ((5, 3, 2), torch.zeros(4, 5, 3, 2), {}, r"class_dim: .*dimensions 1 and 2 and 3"),
    ((5, 3, 2), torch.zeros(4, 3, 2, dtype=torch.long), {"class_dim": 3}, r"class_dim: got 3, expected 1"),
    ((5, 3, 2), torch.zeros(4, 3, 2, dtype=torch.long), {"class_dim": 7}, r"class_dim: got 7, expected 1 to 3"),
    ((6, 5), torch.zeros(4, 5, dtype=torch.long), {"task": "causal-lm"}, r"y: .* \[4, 5\], expected tokens \[4, 6\]"),
]  # fmt: skip


@pytest.mark.parametrize(("shape", "y", "options", "message"), REFUSED)
def test_labels_that_do_not_fit_are_refused_in_one_line(shape, y, options, message):
    objective = pliant.Objective(make(*shape), BOTH, **options)
    for run in (objective, objective.backward):
        with pytest.raises(ValueError, match=message) as refusal:
            run(IMAGES, y)
        assert "\n" not in str(refusal.value)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"task": "regression"}, "task: got 'regression', expected .*'multilabel'"),
        ({"label_smoothing": 1.0}, "label_smoothing: got 1.0"),
        ({"class_weights": [1.0, -1.0]}, r"class_weights: got \[1.0, -1.0\]"),
        ({"class_weights": [[1.0, 2.0]]}, r"class_weights: got \[\[1.0, 2.0\]\]"),
        ({"ignore_index": 0.5}, "ignore_index: got 0.5"),
    ],
)
def test_options_out_of_range_are_refused_before_the_first_batch(options, message):
    with pytest.raises(ValueError, match=message):
        pliant.Objective(make(5), **options)


def test_where_two_dimensions_fit_the_class_dimension_is_given():
    model, y = make(5, 5, 2), torch.randint(5, (4, 5, 2))
    plan = Plan(name="labels", terms=BOTH.terms[:1])
    z = model(IMAGES)
    first, second = (pliant.Objective(model, plan, class_dim=dim)(IMAGES, y) for dim in (1, -2))
    torch.testing.assert_close(first, F.cross_entropy(z, y))
    torch.testing.assert_close(second, F.cross_entropy(z.transpose(1, 2), y))


def test_the_first_batch_decides():
    """Several labels an image may happen to be one each; probabilities are never several labels."""
    model = make(5)
    one_each, several = torch.eye(5)[:4], torch.eye(5)[:4] + torch.eye(5).roll(1, 1)[:4]
    objective = pliant.Objective(model, BOTH)
    objective(IMAGES, several)
    torch.testing.assert_close(
        objective(IMAGES, one_each), pliant.Objective(model, BOTH, task="multilabel")(IMAGES, one_each)
    )
    objective = pliant.Objective(model, BOTH)
    objective(IMAGES, one_each)
    objective(IMAGES, torch.arange(4))
    with pytest.raises(ValueError, match=r"y: got float32.*task='multilabel'"):
        objective(IMAGES, several)


def test_a_teacher_of_other_classes_is_refused():
    objective = pliant.Objective(make(5), BOTH, teacher=Net(6))
    with pytest.raises(ValueError, match=r"teacher: gives logits \[4, 6\], expected \[4, 5\]"):
        objective(IMAGES, torch.arange(4))


LLAMA = dict(hidden_size=16, num_attention_heads=2, num_key_value_heads=1, intermediate_size=32, num_hidden_layers=4)
GPT2 = dict(n_embd=16, n_head=2, n_layer=4, attn_pdrop=0.0, embd_pdrop=0.0, resid_pdrop=0.0)
BERT = dict(hidden_size=16, num_attention_heads=2, intermediate_size=32, num_hidden_layers=4)


def language_model(kind: str, **options: Any) -> Any:
    pytest.importorskip("transformers")
    torch.manual_seed(0)
    return pliant.adapt_(
        pliant.create_model(f"transformers:{kind}", vocab_size=50, **options), pliant.Depth(groups=2)
    ).eval()


@pytest.mark.parametrize(
    ("kind", "options", "shift"),
    [("llama", LLAMA, 1), ("gpt2", GPT2, 1), ("bert", BERT | {"architecture": "BertForMaskedLM"}, 0)],
)
def test_a_language_model_has_the_loss_of_its_library(kind, options, shift):
    model = language_model(kind, **options)
    tokens = torch.randint(50, (2, 6))
    x = {"input_ids": tokens, "attention_mask": torch.ones_like(tokens)}
    y = tokens.clone()
    y[0, 4:] = -100
    objective = pliant.Objective(model, BOTH)
    loss = objective(x, y)

    own = model(**x, labels=y).loss
    teacher, student = model(**x).logits, model(**x, subnet="smallest").logits
    divergence = formulas()["kl"](student, teacher.detach(), 2)[:, : 6 - shift][y[:, shift:] != -100].mean()
    torch.testing.assert_close(objective.terms["FF<-labels"], own.detach(), rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(loss, own + 0.5 * divergence, rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(objective.backward(x, y), loss.detach())


def test_tokens_that_are_shifted_already_are_taken_as_they_are():
    model = language_model("llama", **LLAMA)
    tokens = torch.randint(50, (2, 6))
    y = F.pad(tokens[:, 1:], (0, 1), value=-100)
    shifted = pliant.Objective(model, BOTH, task="multiclass")({"input_ids": tokens}, y)
    torch.testing.assert_close(shifted, pliant.Objective(model, BOTH)({"input_ids": tokens}, tokens))


def test_adn_compares_the_stages_that_are_chosen():
    """A step of Algorithm 1 with the stages of the authors' published code, by hand."""
    torch.manual_seed(0)
    model: Any = pliant.adapt_(pliant.create_model("torchvision:resnet18", num_classes=5), pliant.Depth()).eval()
    x, y = torch.randn(4, 3, 32, 32), torch.arange(4)
    plan = build_plan("adn", model.space, alpha=0.4, temperature=2.0, stages=(2, 3, 4))
    objective = pliant.Objective(model, plan)
    loss = objective(x, y)

    (z, teacher), (s, student) = (model(x, subnet=name, features=True) for name in ("largest", "smallest"))
    kl = formulas()["kl"]
    distilled = kl(s / 2, z.detach() / 2, 1).mean() * 4
    for stage in (1, 2, 3):
        distilled = distilled + kl(student[stage] / 2, teacher[stage].detach() / 2, 1).mean() * 4
    expected = 0.4 * F.cross_entropy(z, y) + 0.6 * distilled
    torch.testing.assert_close(loss, expected, rtol=1e-6, atol=1e-6)

    parameters = list(model.parameters())
    by_hand = torch.autograd.grad(expected, parameters, allow_unused=True)
    joint = torch.autograd.grad(loss, parameters, allow_unused=True)
    objective.backward(x, y)
    for parameter, wanted, got in zip(parameters, by_hand, joint, strict=True):
        torch.testing.assert_close(got, wanted, rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(parameter.grad, wanted, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("stages", "message"),
    [
        ((2, 5), r"stages: got \[2, 5\].*expected numbers from 1 to 3"),
        ((), r"stages: got \[\], expected"),
        ((0, 1), r"stages: got \[0, 1\], expected"),
        ((2, 2), r"stages: got \[2, 2\], expected"),
        (2, r"stages: got 2, expected a list"),
    ],
)
def test_stages_that_a_network_does_not_have_are_refused(stages, message):
    model: Any = pliant.adapt_(pliant.create_model("pliant:resnet20"), pliant.Depth())
    with pytest.raises(ValueError, match=message):
        pliant.Objective(model, build_plan("adn", model.space, stages=stages))


def test_stages_behind_an_exit_are_refused():
    model: Any = pliant.adapt_(pliant.create_model("pliant:resnet20"), pliant.Exits(at=(1,))).eval()
    term = Term(student="exit=1", teacher="exit=2", on="features")
    x, y = torch.randn(2, 3, 32, 32), torch.tensor([0, 1])
    teacher: Any = pliant.adapt_(pliant.create_model("pliant:resnet20"), pliant.Exits(at=(1,)))
    for stages in (None, (1, 2)):
        plan = Plan(name="own", terms=(term.replace(stages=stages),))
        with pytest.raises(ValueError, match=r"stages: got .* the student runs 1 stages and its teacher 3"):
            pliant.Objective(model, plan, teacher=teacher)(x, y)
    assert pliant.Objective(model, Plan(name="own", terms=(term.replace(stages=(1,)),)), teacher=teacher)(x, y) >= 0
