"""Temperatures and the calibration error."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from pliant.policy.calibration import calibration_error, find_temperature


def answers(inputs: int = 400) -> tuple[torch.Tensor, torch.Tensor]:
    """Logits that are right about themselves: labels are drawn by their probabilities."""
    generator = torch.Generator().manual_seed(0)
    logits = 2 * torch.randn(inputs, 5, generator=generator)
    return logits, torch.multinomial(logits.softmax(dim=1), 1, generator=generator)[:, 0]


@pytest.mark.parametrize("factor", [0.5, 1.0, 3.0])
def test_the_temperature_makes_the_labels_most_likely(factor):
    logits, labels = answers()
    found = find_temperature(logits * factor, labels)
    losses = {t: float(F.cross_entropy(logits * factor / (found * t), labels)) for t in (0.98, 1.0, 1.02)}
    assert min(losses, key=lambda t: losses[t]) == 1.0
    assert found == pytest.approx(factor * find_temperature(logits, labels), rel=1e-5)
    assert find_temperature(logits * factor, labels) == found


def test_without_a_best_temperature_in_its_range_it_is_one():
    logits = 5 * torch.eye(4)
    for all_right_or_all_wrong in (logits, -logits):
        assert find_temperature(all_right_or_all_wrong, torch.arange(4)) == 1
    assert find_temperature(torch.zeros(4, 4), torch.arange(4)) == 1


def test_the_calibration_error_is_the_gap_between_confidence_and_accuracy():
    logits = torch.tensor([[2.0, 0.0]] * 4)  # 0.88 sure, and right three times of four
    labels = torch.tensor([0, 0, 0, 1])
    assert calibration_error(logits, labels) == pytest.approx(torch.tensor(2.0).sigmoid().item() - 0.75)
    assert calibration_error(50 * logits, labels) == pytest.approx(0.25)  # a confidence of 1 is in a bin too
    two_bins = torch.tensor([[0.1, 0.0]] * 2 + [[9.0, 0.0]] * 2)
    gaps = [2 * abs(torch.tensor(0.1).sigmoid().item() - 1), 2 * abs(torch.tensor(9.0).sigmoid().item() - 0.5)]
    assert calibration_error(two_bins, labels) == pytest.approx(sum(gaps) / 4)


def test_calibration_lowers_the_error():
    logits, labels = answers()
    assert calibration_error(5 * logits, labels, temperature=find_temperature(5 * logits, labels)) < 0.08
    assert calibration_error(5 * logits, labels) > 0.1


@pytest.mark.parametrize(
    ("logits", "labels", "message"),
    [
        (torch.zeros(0, 3), torch.zeros(0, dtype=torch.long), "the validation set is empty"),
        (torch.zeros(4, 3), torch.full((4,), 2), "all 4 validation images are of class 2"),
        (torch.full((2, 3), torch.nan), torch.tensor([0, 1]), "for input 0 are not finite"),
        (torch.zeros(2, 3), torch.tensor([0, 3]), "labels run from 0 to 3, but the logits are of 3 classes"),
        (torch.zeros(2, 3), torch.tensor([0, 1, 2]), "do not fit together"),
    ],
)
def test_what_nothing_can_be_learned_from_is_refused(logits, labels, message):
    with pytest.raises(ValueError, match=message):
        find_temperature(logits, labels)


def test_no_bins_are_refused():
    with pytest.raises(ValueError, match="bins=0"):
        calibration_error(*answers(), bins=0)
