"""DS-MBNet has the sub-networks of its papers."""

from __future__ import annotations

import json

import pytest
import torch
from typer.testing import CliRunner

import pliant
from pliant.cli.app import app
from pliant.models.ds_mbnet import DSMBNet

PUBLISHED = [133, 153, 175, 200, 226, 255, 286, 319, 355, 393, 433, 475, 519, 565]


def test_the_14_sub_networks_cost_what_is_published():
    result = CliRunner().invoke(app, ["describe", "pliant:ds_mbnet", "--json"])
    assert result.exit_code == 0, result.output
    rows = json.loads(result.stdout)
    rows = rows["subnets"] if isinstance(rows, dict) else rows
    assert len(rows) == 15
    assert [1e3 * row["gmacs"] for row in rows[:14]] == pytest.approx(PUBLISHED, rel=0.01)
    assert 1e3 * rows[14]["gmacs"] == pytest.approx(820, rel=0.01)  # trained as the teacher, never evaluated
    assert rows[0]["subnet"] == "width=0.36/0.35"
    assert rows[14]["subnet"] == "width=1.0"


@pytest.fixture
def small():
    torch.manual_seed(0)
    return pliant.adapt_(DSMBNet(10, large_images=False, multiplier=0.25).eval(), pliant.Width())


def test_every_width_is_a_smaller_ds_mbnet(small):
    x = torch.randn(2, 3, 32, 32)
    sizes = []
    for subnet in small.subnets:
        network = pliant.extract(small, subnet)
        assert type(network) is DSMBNet
        torch.testing.assert_close(network(x), small(x, subnet=subnet), rtol=0, atol=0)
        sizes.append(sum(parameter.numel() for parameter in network.parameters()))
    assert sizes == sorted(sizes)
    assert len(sizes) == 15


def test_the_first_stages_have_two_widths_alone(small):
    norms = small.get_submodule("stages.1.0.bn2"), small.get_submodule("stages.3.0.bn2")
    assert [len(norm.widths) for norm in norms] == [1, 14]  # the whole network's are the norm's own
    with pytest.raises(ValueError, match=r"no sub-network 'width=0\.5/0\.5': allowed are width=0\.36/0\.35"):
        small.space.parse("width=0.5/0.5")


def test_choices_are_not_for_a_network_that_brings_its_widths():
    with pytest.raises(ValueError, match=r"got \[0\.5, 1\.0\], but this DS-MBNet brings its widths"):
        pliant.adapt_(DSMBNet(10, multiplier=0.25), pliant.Width(choices=(0.5, 1.0)))


def test_a_multiplier_must_be_positive():
    with pytest.raises(ValueError, match="got multiplier=0, expected more than 0"):
        DSMBNet(multiplier=0)


@torch.no_grad()
def test_dropout_acts_in_the_passes_of_the_largest_network_alone(small):
    x = torch.randn(4, 3, 32, 32)
    small.train()
    small.dropout.p = 0.0
    kept = {str(subnet): small(x, subnet=subnet) for subnet in small.subnets}
    small.dropout.p = 1.0
    *narrow, largest = kept
    for subnet in narrow:
        assert torch.equal(small(x, subnet=subnet), kept[subnet])
    assert torch.equal(small(x, subnet=largest), small.fc.bias.expand(4, -1))  # nothing else reaches the classifier
    # A network of its own has it again.
    assert torch.equal(pliant.extract(small, narrow[0])(x), small.fc.bias.expand(4, -1))
