import json

import pytest
import torch
from torch import nn

from pliant.core.inputs import InputSpec, input_spec, logits_of, spec_of_example


def test_the_first_layer_says_what_a_network_takes():
    images = input_spec(nn.Sequential(nn.Conv2d(4, 2, 3), nn.Embedding(9, 2)), 8)
    assert images.random(2).shape == (2, 4, 8, 8) and images.random(1).dtype == torch.float32
    tokens = input_spec(nn.Sequential(nn.Embedding(9, 2), nn.Conv2d(4, 2, 3)), 50)
    drawn = tokens.random(3, torch.Generator().manual_seed(0))
    assert drawn.shape == (3, 50) and drawn.dtype == torch.long and set(drawn.unique().tolist()) == set(range(9))
    assert tokens.empty(2, dtype=torch.float16, device="meta").dtype == torch.long
    assert images.empty(2, dtype=torch.float16, device="meta").dtype == torch.float16


def test_logits_are_found_or_their_absence_is_said():
    class Output:
        logits = torch.ones(2)

    assert logits_of(Output()) is Output.logits
    with pytest.raises(ValueError, match="returns a dict; expected logits"):
        logits_of({"logits": torch.ones(2)})


def test_an_example_is_described_without_its_values_and_made_again():
    example = {"x": torch.rand(4, 3).half(), "more": (torch.tensor([[5], [9], [7], [6]]), None, torch.ones(4) > 0, 1.5)}
    spec = InputSpec(spec_of_example(example))
    made = spec.random(None, torch.Generator().manual_seed(0))
    assert made["x"].shape == (4, 3) and made["x"].dtype == torch.float16
    tokens, nothing, mask, number = made["more"]
    assert tokens.shape == (4, 1) and tokens.dtype == torch.long and 5 <= tokens.min() <= tokens.max() <= 9
    assert (nothing, number) == (None, 1.5) and mask.dtype == torch.bool and mask.all()
    again = spec.random(2)
    assert again["x"].shape == (2, 3) and again["more"][0].shape == (2, 1)
    assert InputSpec.from_dict(json.loads(json.dumps(spec.to_dict()))) == spec
