"""What holds for every reader and the width wing: contracts 1, 2 and 3, or a refusal that names what is in the way."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from families import FAMILIES, Family
from torch import Tensor

import pliant
from pliant.core.inputs import logits_of

REFUSED = {
    "pliant:resnet20": r"'layer1\.2\.conv2' and 'layer2\.2\.conv2' cannot be cut together: constant_pad_nd",
    "timm:poolformer_s12": r"with fewer channels '.*layer_scale1' fails",
    "timm:caformer_s18": r"with fewer channels '.*res_scale1' fails",
    "timm:maxvit_rmlp_pico_rw_256": r"with fewer channels '.*attn_block\.attn' fails",
    "transformers:swinv2": r"with fewer channels '.*attention\.self' fails",
    "transformers:gpt2": r"with fewer channels '.*attn\.c_attn' fails",
}
WIDTH = pliant.Width()
# A test network with two channels in its narrowest layer.
NARROW = {"transformers:resnet": pliant.Width(choices=(0.5, 1.0))}


def cases(*, refused: bool) -> list[Any]:
    chosen = [family for family in FAMILIES if (family.name in REFUSED) == refused]
    return [pytest.param(family, id=family.name, marks=[pytest.mark.slow] if family.slow else []) for family in chosen]


def adapted(original: torch.nn.Module, family: Family) -> Any:
    args, kwargs = family.inputs()
    example = args[0] if args else next(iter(kwargs.values()))
    return pliant.adapt_(copy.deepcopy(original), NARROW.get(family.name, WIDTH), example=example)


@torch.no_grad()
@pytest.mark.parametrize("family", cases(refused=False))
def test_widths_of_every_network(family: Family, tmp_path: Path):
    torch.manual_seed(0)
    original = family.source().create().eval()
    model = adapted(original, family)
    args, kwargs = family.inputs()

    def run(network: Any, **more: Any) -> Tensor:
        return logits_of(network(*args, **kwargs, **more))

    assert torch.equal(run(model), run(original))
    network = pliant.extract(model, "smallest")
    assert type(network) is type(original)
    narrow = run(network)
    torch.testing.assert_close(narrow, run(model, subnet="smallest"))
    assert narrow.shape == run(original).shape
    sizes = [sum(parameter.numel() for parameter in one.parameters()) for one in (network, original)]
    assert sizes[0] < 0.7 * sizes[1]

    for parameter in model.parameters():  # what was computed before is not used when the weights have changed
        parameter.add_(torch.randn_like(parameter), alpha=0.02)
    changed = run(model, subnet="smallest")
    torch.testing.assert_close(changed, run(pliant.extract(model, "smallest")))
    assert not torch.equal(changed, narrow)

    info = {"image_size": family.image_size} if family.image_size else {}
    loaded = pliant.load(pliant.save(model, tmp_path, source=family.source(), info=info))
    assert torch.equal(run(loaded, subnet="smallest"), run(model, subnet="smallest"))


@pytest.mark.parametrize("family", cases(refused=True))
def test_what_cannot_be_cut_is_refused_by_name(family: Family):
    original = family.source().create()
    with pytest.raises(ValueError, match=REFUSED[family.name]) as error:
        adapted(original, family)
    assert "\n" not in str(error.value)
