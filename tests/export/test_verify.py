"""What counts as a difference between a file and the network it came from."""

import math

import pytest
import torch

from pliant.core.inputs import InputSpec
from pliant.export.verify import ExportError, largest_difference


def off_by(amount):
    return lambda images: images + amount


def same(images):
    return images


def test_absolute_for_small_outputs_and_relative_for_large_ones():
    assert largest_difference(same, same, InputSpec.of((3, 4, 4)), (1, 2)) == 0
    small = largest_difference(lambda x: x.sin(), lambda x: x.sin() + 0.25, InputSpec.of((3, 4, 4)), (1, 2))
    assert small == pytest.approx(0.25, rel=1e-5)
    large = largest_difference(lambda x: x.sin() * 1000, lambda x: x.sin() * 1000 + 0.25, InputSpec.of((3, 4, 4)), (2,))
    assert 0.25 / 1000 <= large < 0.25 / 900


def test_the_worst_batch_counts():
    assert largest_difference(lambda x: x.sin(), lambda x: x.sin() + 0 * x, InputSpec.of((1, 2, 2)), (1, 3)) == 0
    assert largest_difference(torch.sin, lambda x: torch.sin(x + (len(x) > 1)), InputSpec.of((1, 2, 2)), (1, 3)) > 0.1


@pytest.mark.parametrize("wrong", [off_by(math.nan), off_by(math.inf), lambda images: images[:1]])
def test_nan_infinity_and_another_shape_are_as_wrong_as_can_be(wrong):
    assert largest_difference(same, wrong, InputSpec.of((3, 4, 4)), (2,)) == math.inf


def test_the_same_seed_gives_the_same_images():
    seen = []
    largest_difference(lambda x: seen.append(x) or x, same, InputSpec.of((3, 4, 4)), (1, 2), seed=3)
    largest_difference(lambda x: seen.append(x) or x, same, InputSpec.of((3, 4, 4)), (1, 2), seed=3)
    assert torch.equal(seen[0], seen[2]) and torch.equal(seen[1], seen[3]) and len(seen[1]) == 2


def test_nothing_to_compare_with():
    with pytest.raises(ExportError, match="not finite"):
        largest_difference(off_by(math.nan), same, InputSpec.of((3, 4, 4)), (1,))
