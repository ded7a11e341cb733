"""The loss that a model of transformers states in its config is the one that it is trained by, or is refused."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F

import pliant


def adapted(**options: Any) -> Any:
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(0)
    config = transformers.BertConfig(
        vocab_size=50, hidden_size=16, num_hidden_layers=4, num_attention_heads=2, intermediate_size=16, **options
    )
    return pliant.adapt_(transformers.BertForSequenceClassification(config).eval(), pliant.Depth())


def test_several_labels_also_where_the_first_batch_has_one_each():
    model = adapted(num_labels=3, problem_type="multi_label_classification")
    x, y = torch.randint(0, 50, (3, 5)), torch.eye(3)
    objective = pliant.Objective(model, pliant.plans.build_plan("no-distillation", model.space))
    expected = sum(
        F.binary_cross_entropy_with_logits(model(x, subnet=subnet).logits, y) for subnet in ("largest", "smallest")
    )
    torch.testing.assert_close(objective({"input_ids": x}, y), expected / 2)


@pytest.mark.parametrize("options", [{"problem_type": "regression", "num_labels": 3}, {"num_labels": 1}])
def test_regression_is_refused(options):
    with pytest.raises(ValueError, match=r"task: .* regression"):
        pliant.Objective(adapted(**options))


def test_one_logit_is_trained_where_it_is_said_to_be_yes_or_no():
    model = adapted(num_labels=1)
    loss = pliant.Objective(model, task="binary")({"input_ids": torch.randint(0, 50, (3, 5))}, torch.tensor([0, 1, 1]))
    assert loss.isfinite()
