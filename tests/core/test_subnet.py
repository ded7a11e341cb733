import pickle

import pytest

from pliant.core.subnet import SubNet, SubNetSpace

SPACE = SubNetSpace(skippable_blocks=(1, 2, 3, 1))


def test_a_sub_network_is_a_value():
    assert SubNet(depth=(True, False)) == SubNet(depth=(True, False))
    assert len({SubNet(depth=(True, False)), SubNet(depth=(True, False))}) == 1
    assert pickle.loads(pickle.dumps(SubNet(depth=(True,)))) == SubNet(depth=(True,))


def test_printing_and_parsing_round_trip():
    assert len(SPACE) == 16
    for subnet in SPACE:
        assert SPACE.parse(str(subnet)) == subnet
        assert SPACE.parse(f"depth={subnet}") == subnet
        assert SPACE.parse(subnet) is subnet


def test_the_order_is_smallest_to_largest():
    subnets = list(SPACE)
    assert subnets[0] == SPACE.smallest == SPACE.parse("TTTT") == SPACE.parse("smallest")
    assert subnets[-1] == SPACE.largest == SPACE.parse("FFFF") == SPACE.parse("largest")
    assert subnets.index(SPACE.parse("FFTF")) < subnets.index(SPACE.parse("FTFF"))


def test_a_stage_with_nothing_to_skip_is_fixed():
    space = SubNetSpace(skippable_blocks=(1, 0, 1))
    assert [str(subnet) for subnet in space] == ["TFT", "FFT", "TFF", "FFF"]
    with pytest.raises(ValueError, match="stage 2 has nothing to skip"):
        space.parse("TTT")


@pytest.mark.parametrize("text", ["TTX", "TTT", "TTTTT", "", "tttt", "depth=TTTX", "width=0.5"])
def test_a_malformed_sub_network_is_refused_by_name(text):
    with pytest.raises(ValueError, match="allowed are 4 letters") as error:
        SPACE.parse(text)
    assert repr(text) in str(error.value)


@pytest.mark.parametrize("given", [3, 0.5, (0.5,), ["TTFF"], None])
def test_what_is_no_text_is_refused_as_one_that_is_none(given):
    with pytest.raises(ValueError, match="allowed are 4 letters"):
        SPACE.parse(given)


def test_a_sub_network_of_another_model_is_refused():
    with pytest.raises(ValueError, match="no sub-network 'TT'"):
        SPACE.parse(SubNet(depth=(True, True)))
