"""What holds for every reader and every wing. The numbers are those of the contracts in docs/architecture.md.

Equal means bit for bit: on one thread the libraries' networks compute the same each time.
"""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn

import pliant

pytestmark = pytest.mark.filterwarnings("ignore:.* one block, and nothing to skip")


def same_tensors(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    return list(one) == list(other) and all(torch.equal(one[key], other[key]) for key in one)


@torch.no_grad()
def test_1_the_super_net_is_the_original_bit_for_bit(case):
    expected = case.logits(case.original)
    assert torch.equal(case.logits(case.adapted), expected)
    assert torch.equal(case.logits(case.adapted, subnet="largest"), expected)


@torch.no_grad()
def test_1_the_other_sub_networks_differ_from_it_and_from_each_other(case):
    outputs = [case.logits(case.adapted, subnet=subnet) for subnet in case.subnets]
    for index, output in enumerate(outputs):
        assert torch.isfinite(output).all()
        assert not any(torch.equal(output, other) for other in outputs[:index])


@torch.no_grad()
@pytest.mark.parametrize("share", [False, True], ids=["copied", "shared"])
def test_2_an_extracted_sub_network_computes_the_same(case, share):
    for subnet in case.subnets:
        network = pliant.extract(case.adapted, subnet, share=share)
        assert torch.equal(case.logits(network), case.logits(case.adapted, subnet=subnet)), subnet


def test_2_an_extracted_sub_network_is_plain(case):
    network = pliant.extract(case.adapted, "smallest")
    assert type(network) is type(case.original)
    kinds = {type(module) for module in case.original.modules()}
    assert {type(module) for module in network.modules()} <= kinds
    for module in network.modules():
        for name, value in vars(module).items():
            assert not type(value).__module__.startswith(("pliant.core", "pliant.depth")), name
    state, full = network.state_dict(), case.original.state_dict()
    assert len(state) < len(full)
    assert not any(".skip." in key for key in state)
    containers = {stage.path for stage in case.adapted.anatomy.stages}
    if len(containers) > 1 or case.adapted.anatomy.columnar:
        assert set(state) < set(full)
    # Else all stages lie in one list: what stands behind a block that was taken out moves up.


def test_2_the_extracted_super_net_loads_strictly_into_the_original_class(case):
    state = pliant.extract(case.adapted, "largest").state_dict()
    assert same_tensors(state, case.original.state_dict())
    copy.deepcopy(case.original).load_state_dict(state, strict=True)


@torch.no_grad()
def test_2_the_extracted_base_net_is_what_the_library_makes_with_fewer_blocks(case):
    network = pliant.extract(case.adapted, "smallest")
    anatomy, space = case.adapted.anatomy, case.adapted.space
    lengths = [
        len(stage.blocks) - skippable for stage, skippable in zip(anatomy.stages, space.skippable_blocks, strict=True)
    ]
    by_hand = case.family.by_hand(lengths, columnar=anatomy.columnar)
    if by_hand is None:
        pytest.skip("its library makes it with these numbers of blocks only")
    by_hand.load_state_dict(network.state_dict(), strict=True)
    assert type(by_hand) is type(network)
    assert torch.equal(case.logits(by_hand.eval()), case.logits(network))


def test_2_sharing_copies_no_tensor_and_copying_shares_none(case):
    storages = {tensor.data_ptr() for tensor in case.adapted.state_dict().values() if tensor.numel()}
    shared = pliant.extract(case.adapted, "smallest", share=True).state_dict().values()
    copied = pliant.extract(case.adapted, "smallest", share=False).state_dict().values()
    assert {tensor.data_ptr() for tensor in shared if tensor.numel()} <= storages
    assert storages.isdisjoint(tensor.data_ptr() for tensor in copied if tensor.numel())


@torch.no_grad()
def test_2_extracting_leaves_the_model_as_it_was(case):
    before = case.logits(case.adapted, subnet="smallest")
    pliant.extract(case.adapted, "smallest")
    pliant.extract(case.adapted, "largest", share=True)
    assert torch.equal(case.logits(case.adapted, subnet="smallest"), before)
    assert torch.equal(case.logits(case.adapted), case.logits(case.original))


@torch.no_grad()
def test_3_saving_and_loading_gives_the_same_network(case, tmp_path):
    pliant.save(case.adapted, tmp_path, source=case.family.source(), info={"class_names": list("abcdefghij")})
    loaded = pliant.load(tmp_path)
    assert type(loaded) is type(case.adapted)
    assert loaded.configs == case.adapted.configs
    assert same_tensors(loaded.state_dict(), case.adapted.state_dict())
    for subnet in ("smallest", "largest"):
        assert torch.equal(case.logits(loaded, subnet=subnet), case.logits(case.adapted, subnet=subnet))


@torch.no_grad()
def test_3_a_plain_checkpoint_loads_and_both_norm_sets_start_from_it(case):
    model = pliant.adapt_(copy.deepcopy(case.original), pliant.Depth())
    checkpoint = {key: tensor + 1 for key, tensor in case.original.state_dict().items()}
    model.load_state_dict(checkpoint, strict=True)
    loaded = model.state_dict()
    pairs = [(key, key.replace(".skip.", ".")) for key in loaded if ".skip." in key]
    assert pairs
    assert all(torch.equal(loaded[skip], checkpoint[own]) for skip, own in pairs)


def test_3_keys_survive_and_only_second_sets_are_new(case):
    original, adapted = case.original.state_dict(), case.adapted.state_dict()
    assert [key for key in adapted if key in original] == list(original)
    assert set(original) < set(adapted)
    assert all(".skip." in key for key in adapted if key not in original)


def test_5_a_sub_network_that_is_none_is_refused_by_name(case):
    stages = len(case.adapted.anatomy.stages)
    for text in ("X".rjust(stages, "T"), "T" * (stages + 1), "", "depth=XX", "exit=3"):
        with pytest.raises(ValueError, match=f"{stages} letters") as error:
            case.logits(case.adapted, subnet=text)
        assert repr(text) in str(error.value) and "\n" not in str(error.value)


@torch.no_grad()
def test_a_copy_switches_by_itself(case):
    model = copy.deepcopy(case.adapted)
    for tensor in model.parameters():
        tensor.mul_(1.5)
    assert torch.equal(case.logits(case.adapted), case.logits(case.original))
    assert not torch.equal(case.logits(model), case.logits(case.original))
    model.half().float().to("cpu")
    assert not torch.equal(case.logits(model, subnet="smallest"), case.logits(model))


@torch.no_grad()
def test_a_pass_that_fails_leaves_the_super_net_active(case):
    def fail(module: nn.Module, args: tuple) -> None:
        raise RuntimeError("on purpose")

    block = case.adapted.get_submodule(case.adapted.anatomy.stages[-1].blocks[0].path)
    hook = block.register_forward_pre_hook(fail)
    with pytest.raises(RuntimeError, match="on purpose"):
        case.logits(case.adapted, subnet="smallest")
    hook.remove()
    assert case.adapted._pliant_adaptation.switch.at_largest
    assert torch.equal(case.logits(case.adapted), case.logits(case.original))
