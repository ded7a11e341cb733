import pytest
import torch
from torch import nn

from pliant.core.inputs import input_spec, logits_of


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
