"""Contract 2: `extract(model, s)(x)` equals `model(x, subnet=s)`, at the same cost, in the library's class and keys."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

import pliant
from pliant.core.macs import count_macs
from pliant.core.subnet import SubNet
from pliant.core.surgery import is_mixed
from pliant.exits.modules import Classifier, EarlyExit, Removed
from pliant.measure.operators import count_operators


@torch.no_grad()
def test_2_an_extracted_sub_network_computes_the_same(case):
    for subnet in case.subnets:
        expected = case.logits(case.adapted, subnet=subnet)
        for share in (False, True):
            case.assert_same(case.logits(pliant.extract(case.adapted, subnet, share=share)), expected)
    assert torch.equal(case.logits(case.adapted), case.logits(case.original)), "extracting changes the model"


def test_2_an_extracted_sub_network_is_plain(case):
    network, is_early = case.extracted, "exits" in case.axes
    assert type(network) is (EarlyExit if is_early else type(case.original))
    if isinstance(network, EarlyExit):
        network = network.network
        assert isinstance(network, type(case.original))
    end = [module for module in network.modules() if is_mixed(module)]
    assert len(end) == is_early  # the block where the network ends
    added = {module for block in end for module in (block, *block.get_submodule("exit").modules())}
    kinds = {type(module) for module in case.original.modules()} | ({Removed} if is_early else set())
    for module in set(network.modules()) - added:
        assert type(module) in kinds
        for name, value in vars(module).items():
            assert not type(value).__module__.startswith("pliant."), name
        if isinstance(module, nn.Linear):
            assert module.weight.shape == (module.out_features, module.in_features)
        if isinstance(module, nn.Conv2d):
            assert module.weight.shape[:2] == (module.out_channels, module.in_channels // module.groups)


def test_2_its_keys_are_the_library_s_and_its_tensors_smaller(case):
    state = {key.removeprefix("network."): tensor for key, tensor in case.extracted.state_dict().items()}
    own, full = {key: tensor for key, tensor in state.items() if ".exit." not in key}, case.original.state_dict()
    assert not any(case.is_added(key) for key in own)
    containers = {stage.path for stage in case.adapted.anatomy.stages}
    if len(containers) > 1 or case.adapted.anatomy.columnar:
        assert set(own) <= set(full)
    # Else all stages lie in one list: what stands behind a block that was taken out moves up.
    assert "width" in case.axes or len(own) < len(full)
    assert elements(state) < elements(full) * (0.7 if "width" in case.axes else 1)


def elements(state: dict[str, Tensor]) -> int:
    return sum(tensor.numel() for tensor in state.values())


def test_2_the_extracted_super_net_loads_strictly_into_the_original_class(case):
    state, expected = pliant.extract(case.adapted, "largest").state_dict(), case.original.state_dict()
    assert list(state) == list(expected)
    assert all(torch.equal(state[key], expected[key]) for key in state)
    case.original.load_state_dict(state, strict=True)  # which changes nothing


@torch.no_grad()
@pytest.mark.axis("depth")
def test_2_the_extracted_base_net_is_what_the_library_makes_with_fewer_blocks(case):
    space, anatomy = case.adapted.space, case.adapted.anatomy
    subnet = SubNet(depth=case.all_skipped, exit=space.largest.exit, width=space.largest.width)
    network = pliant.extract(case.adapted, subnet)
    lengths = [len(stage.blocks) - count for stage, count in zip(anatomy.stages, space.skippable_blocks, strict=True)]
    by_hand = case.family.by_hand(lengths, columnar=anatomy.columnar)
    if by_hand is None:
        pytest.skip("its library makes it with these numbers of blocks only")
    by_hand.load_state_dict(network.state_dict(), strict=True)
    assert type(by_hand) is type(network)
    assert torch.equal(case.logits(by_hand.eval()), case.logits(network))


def test_2_sharing_copies_no_tensor_and_copying_shares_none(case):
    storages = {storage(tensor) for tensor in case.adapted.state_dict().values() if tensor.numel()}
    shared = pliant.extract(case.adapted, "smallest", share=True).state_dict()
    copied = case.extracted.state_dict()
    cuts = [cut for group in case.adapted.anatomy.channels for cut in group.cuts]
    apart = {f"{cut.path}.{cut.name}" for cut in cuts if cut.parts > 1}  # no view has several parts that lie apart
    assert {storage(tensor) for key, tensor in shared.items() if tensor.numel() and key not in apart} <= storages
    assert storages.isdisjoint(storage(tensor) for tensor in copied.values() if tensor.numel())


def storage(tensor: Tensor) -> int:
    return tensor.untyped_storage().data_ptr()


@torch.no_grad()
def test_2_what_is_skipped_or_behind_the_exit_does_not_run(case):
    model, ran = case.adapted, set()
    hooks = [
        child.register_forward_hook(lambda *call, path=block.path: ran.add(path))
        for stage in model.anatomy.stages
        for block in stage.blocks
        for name, child in model.get_submodule(block.path).named_modules()
        if name and name.partition(".")[0] != "exit"
    ]
    for subnet in (model.space.smallest, model.space.largest):
        ran.clear()
        case.logits(model, subnet=subnet)
        assert ran == running_blocks(model, subnet)
    for hook in hooks:
        hook.remove()


def running_blocks(model, subnet: SubNet) -> set[str]:
    """Return the paths of the blocks that a sub-network has."""
    paths, exits = set(), 0
    for number, stage in enumerate(model.anatomy.stages):
        kept = len(stage.blocks) - (model.space.skippable_blocks[number] if any(subnet.depth[number:][:1]) else 0)
        for place, block in enumerate(stage.blocks):
            if exits == subnet.exit:
                return paths
            paths |= {block.path} if place < kept else set()
            exits += isinstance(model.get_submodule(block.path)._modules.get("exit"), Classifier)
    return paths


@pytest.mark.costly
@pytest.mark.axis(without="width")  # parts of weights are taken, joined, and multiplied by operators of their own
def test_2_a_sub_network_runs_the_operators_of_the_extracted_one(case):
    network = pliant.extract(case.adapted, "smallest", share=True)
    alone = count_operators(lambda: case.logits(network))
    base = count_operators(lambda: case.logits(case.adapted, subnet="smallest"))
    assert not alone - base
    assert set(base - alone) <= {"aten.lift_fresh"}  # transformers makes constants for every layer in its config
    assert base.total() < count_operators(lambda: case.logits(case.original)).total()


@pytest.mark.costly
def test_2_its_macs_are_those_of_the_extracted_one_and_fall_with_every_choice(case):
    macs = {subnet: count_macs(lambda s=subnet: case.logits(case.adapted, subnet=s)) for subnet in case.subnets}
    largest, smallest = case.adapted.space.largest, case.adapted.space.smallest
    for subnet in (smallest, largest):
        network = pliant.extract(case.adapted, subnet, share=True)
        assert macs[subnet] == count_macs(lambda network=network: case.logits(network))
    assert all(macs[smallest] <= macs[subnet] < macs[largest] for subnet in macs if subnet != largest)
