"""Contract 3: `load(save(model))` is the same function; and plain checkpoints load, since keys survive."""

from __future__ import annotations

import copy

import torch
from torch import Tensor

import pliant


def same_tensors(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    return list(one) == list(other) and all(torch.equal(one[key], other[key]) for key in one)


@torch.no_grad()
def test_3_saving_and_loading_gives_the_same_network(case, tmp_path):
    pliant.save(case.adapted, tmp_path, source=case.family.source(), info={"class_names": list("abcdefghij")})
    loaded = pliant.load(tmp_path)
    assert type(loaded) is type(case.adapted)
    assert loaded.configs == case.adapted.configs
    assert same_tensors(loaded.state_dict(), case.adapted.state_dict())
    for subnet in ("smallest", "largest"):
        assert torch.equal(case.logits(loaded, subnet=subnet), case.logits(case.adapted, subnet=subnet))


def test_3_a_plain_checkpoint_loads_as_if_it_had_been_there_before(case):
    model = copy.deepcopy(case.adapted)
    keys = model.load_state_dict(case.original.state_dict(), strict="exits" not in case.axes)
    assert not keys.unexpected_keys
    assert all(".exit." in key for key in keys.missing_keys)  # classifiers that no plain checkpoint has
    state = {key: tensor for key, tensor in model.state_dict().items() if key not in keys.missing_keys}
    assert same_tensors(state, {key: case.fresh[key] for key in state})


def test_3_keys_survive_and_what_is_new_is_named_by_its_axis(case):
    original, adapted = case.original.state_dict(), case.adapted.state_dict()
    assert [key for key in adapted if key in original] == list(original)
    new = [key for key in adapted if key not in original]
    assert all(case.is_added(key) for key in new)
    # Of a norm, a width has the statistics for itself.
    assert bool(new) == (case.axes != ("width",) or any("running_mean" in key for key in original))
