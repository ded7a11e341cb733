"""Contract 5. Autocast: the switch chooses the same whatever the numbers are; what is extracted computes the same."""

from __future__ import annotations

import pytest
import torch

import pliant
from pliant.core.inputs import logits_of


@pytest.mark.parametrize(
    "library", ["pliant", "timm ViT", "torchvision ViT", "transformers BERT", "transformers Llama"]
)
def test_sub_networks_in_bfloat16_are_those_that_are_extracted(library, make, inputs):
    model, x = make(library), inputs(library)
    for subnet in ("smallest", "largest"):
        with torch.no_grad(), torch.autocast("cpu", dtype=torch.bfloat16):
            found = logits_of(model(x, subnet=subnet))
            assert torch.equal(found, logits_of(pliant.extract(model, subnet)(x)))
        assert found.dtype == torch.bfloat16
        expected = logits_of(model(x, subnet=subnet))
        torch.testing.assert_close(found.float(), expected, rtol=0.1, atol=0.1 * expected.abs().max().item())


@pytest.mark.parametrize("library", ["pliant", "timm ViT"])
def test_training_in_bfloat16(library, make, inputs):
    """Joint and sequential steps have the same gradients, near those of full precision, in full precision."""
    model, x, y = make(library).train(), inputs(library), torch.tensor([0, 3, 9])
    objective = pliant.Objective(model)
    for module in model.modules():  # nothing is dropped at random, which would differ
        if type(module).__name__.endswith("DropPath"):
            module.drop_prob = 0.0

    def gradients() -> torch.Tensor:
        found = torch.cat([parameter.grad.flatten() for parameter in model.parameters()])
        model.zero_grad()
        return found

    objective(x, y).backward()
    full = gradients()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = objective(x, y)
    loss.backward()
    joint = gradients()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        objective.backward(x, y)
    torch.testing.assert_close(gradients(), joint, rtol=1e-2, atol=1e-2 * joint.abs().max().item())
    assert joint.dtype == torch.float32
    assert torch.cosine_similarity(joint, full, dim=0) > 0.99
