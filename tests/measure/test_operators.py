import torch
from torch import nn

import pliant
from pliant.measure.operators import count_operators


def test_counts_by_name():
    network = nn.Sequential(nn.Conv2d(3, 4, 1), nn.ReLU(), nn.Conv2d(4, 4, 1))
    counts = count_operators(lambda: network(torch.randn(1, 3, 4, 4)))
    assert counts["aten.convolution"] == 2
    assert counts["aten.relu"] == 1


def test_a_skipped_block_does_not_run(adapted):
    """Every skipped stage saves the two convolutions, and all else, of its one skippable block."""
    images = torch.randn(1, 3, 32, 32)
    full = count_operators(lambda: adapted(images))
    for subnet in adapted.subnets:
        counts = count_operators(lambda subnet=subnet: adapted(images, subnet=subnet))
        skipped = sum(subnet.depth)
        assert counts["aten.convolution"] == full["aten.convolution"] - 2 * skipped
        assert counts.total() <= full.total() - 2 * skipped
        plain = pliant.extract(adapted, subnet, share=True)
        assert count_operators(lambda plain=plain: plain(images)) == counts
