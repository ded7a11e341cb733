"""Contract 6: what a family cannot have, and what is no sub-network, is refused in one line that names it."""

from __future__ import annotations

import pytest


def test_6_axes_that_a_family_cannot_have_are_refused_and_the_model_is_unchanged(refused):
    model, adapt_, message = refused
    before = [*map(type, model.modules())], str(model), list(model.state_dict())
    with pytest.raises(ValueError, match=message) as error:
        adapt_()
    assert "\n" not in str(error.value)
    assert before == ([*map(type, model.modules())], str(model), list(model.state_dict()))


def test_6_a_sub_network_that_is_none_is_refused_by_name(case):
    stages = len(case.adapted.anatomy.stages)
    allowed = {"depth": f"{stages} letters", "exits": "exit=1 to exit=", "width": " and width=1.0"}
    texts = ["X".rjust(stages, "T"), "T" * (stages + 1), "", "depth=XX", "exit=99", "exit=0", "width=0.3", "size=1"]
    for text in texts:
        for axis in case.axes:
            with pytest.raises(ValueError, match=allowed[axis]) as error:
                case.logits(case.adapted, subnet=text)
            assert repr(text) in str(error.value) and "\n" not in str(error.value)
