"""What holds for every reader and every wing. The numbers are those of the contracts in docs/architecture.md."""

import copy

import pytest
import torch
from torch import nn

import pliant


def same_tensors(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    return list(one) == list(other) and all(torch.equal(one[key], other[key]) for key in one)


@torch.no_grad()
def test_1_the_super_net_is_the_original_bit_for_bit(case):
    assert torch.equal(case.adapted(case.images), case.original(case.images))
    assert torch.equal(case.adapted(case.images, subnet="largest"), case.original(case.images))


@torch.no_grad()
def test_1_the_other_sub_networks_differ_from_it_and_from_each_other(case):
    outputs = [case.adapted(case.images, subnet=subnet) for subnet in case.adapted.subnets]
    for index, output in enumerate(outputs):
        assert torch.isfinite(output).all()
        assert not any(torch.equal(output, other) for other in outputs[:index])


@torch.no_grad()
@pytest.mark.parametrize("share", [False, True])
def test_2_an_extracted_sub_network_computes_the_same(case, share):
    for subnet in case.adapted.subnets:
        network = pliant.extract(case.adapted, subnet, share=share)
        assert torch.equal(network(case.images), case.adapted(case.images, subnet=subnet)), subnet


def test_2_an_extracted_sub_network_is_plain(case):
    network = pliant.extract(case.adapted, "smallest")
    assert type(network) is type(case.original)
    assert not any(type(module).__module__.startswith("pliant.depth") for module in network.modules())
    assert not any(key.startswith("_adaptation") for key in vars(network))
    assert set(network.state_dict()) < set(case.original.state_dict())
    assert sum(1 for _ in network.parameters()) < sum(1 for _ in case.original.parameters())


def test_2_the_extracted_super_net_loads_strictly_into_the_original_class(case):
    state = pliant.extract(case.adapted, "largest").state_dict()
    assert same_tensors(state, case.original.state_dict())
    copy.deepcopy(case.original).load_state_dict(state, strict=True)


def test_2_sharing_copies_no_tensor_and_copying_shares_none(case):
    storages = {tensor.data_ptr() for tensor in case.adapted.state_dict().values() if tensor.numel()}
    shared = pliant.extract(case.adapted, "smallest", share=True).state_dict().values()
    copied = pliant.extract(case.adapted, "smallest", share=False).state_dict().values()
    assert {tensor.data_ptr() for tensor in shared if tensor.numel()} <= storages
    assert storages.isdisjoint(tensor.data_ptr() for tensor in copied if tensor.numel())


@torch.no_grad()
def test_2_extracting_leaves_the_model_as_it_was(case):
    before = case.adapted(case.images, subnet="smallest")
    pliant.extract(case.adapted, "smallest")
    pliant.extract(case.adapted, "largest", share=True)
    assert torch.equal(case.adapted(case.images, subnet="smallest"), before)
    assert torch.equal(case.adapted(case.images), case.original(case.images))


@torch.no_grad()
def test_3_saving_and_loading_gives_the_same_network(case, tmp_path):
    pliant.save(case.adapted, tmp_path, info={"class_names": list("abcdefghij")})
    loaded = pliant.load(tmp_path)
    assert type(loaded) is type(case.adapted)
    assert loaded.configs == case.adapted.configs
    assert same_tensors(loaded.state_dict(), case.adapted.state_dict())
    for subnet in (case.adapted.subnets[0], case.adapted.subnets[-1]):
        assert torch.equal(loaded(case.images, subnet=subnet), case.adapted(case.images, subnet=subnet))


@torch.no_grad()
def test_3_a_plain_checkpoint_loads_and_both_norm_sets_start_from_it(case):
    model = pliant.adapt_(copy.deepcopy(case.original), pliant.Depth())
    differ = {key: tensor + 1 for key, tensor in case.original.state_dict().items()}
    model.load_state_dict(differ, strict=True)
    pairs = [(key, key.replace(".skip.", ".")) for key in model.state_dict() if ".skip." in key]
    assert pairs
    assert all(torch.equal(model.state_dict()[skip], differ[own]) for skip, own in pairs)


def test_3_keys_survive_and_only_second_sets_are_new(case):
    new = set(case.adapted.state_dict()) - set(case.original.state_dict())
    assert set(case.original.state_dict()) < set(case.adapted.state_dict())
    assert all(".skip." in key for key in new)


def test_4_joint_and_sequential_backward_give_the_same_gradients(case):
    images, labels = case.images, torch.tensor([1, 7])
    gradients = []
    for sequential in (False, True):
        model = copy.deepcopy(case.adapted).double().train()
        freeze_randomness(model)
        objective = pliant.Objective(model)
        if sequential:
            loss = objective.backward(images.double(), labels)
        else:
            loss = objective(images.double(), labels)
            loss.backward()
        gradients.append((loss.item(), {name: p.grad for name, p in model.named_parameters()}))
    (joint_loss, joint), (sequential_loss, sequential_) = gradients
    assert joint_loss == pytest.approx(sequential_loss, rel=1e-12)
    for name, gradient in joint.items():
        assert gradient is not None, f"{name} learns nothing"
        torch.testing.assert_close(sequential_[name], gradient, rtol=1e-9, atol=1e-12, msg=name)


def freeze_randomness(model: nn.Module) -> None:
    for module in model.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0


def test_5_a_sub_network_that_is_none_is_refused_by_name(case):
    stages = len(case.adapted.anatomy.stages)
    for text in ("TTX"[:stages].ljust(stages, "F"), "T" * (stages + 1), "", "depth=XX", "exit=3"):
        with pytest.raises(ValueError, match=f"{stages} letters") as error:
            case.adapted(case.images, subnet=text)
        assert repr(text) in str(error.value) and "\n" not in str(error.value)


@torch.no_grad()
def test_a_copy_switches_by_itself(case):
    model = copy.deepcopy(case.adapted)
    for parameter in model.parameters():
        parameter.zero_()
    assert torch.equal(case.adapted(case.images), case.original(case.images))
    assert not torch.equal(model(case.images), case.original(case.images))
    model.half().float().to("cpu")
    assert torch.equal(model(case.images, subnet="smallest"), model(case.images, subnet="smallest"))


@torch.no_grad()
def test_a_pass_that_fails_leaves_the_super_net_active(case):
    with pytest.raises(RuntimeError):
        case.adapted(torch.rand(1, 5, 8, 8), subnet="smallest")
    assert torch.equal(case.adapted(case.images), case.original(case.images))


@torch.no_grad()
def test_features_are_the_pooled_outputs_of_the_stages(case):
    logits, features = case.adapted(case.images, subnet="smallest", features=True)
    assert torch.equal(logits, case.adapted(case.images, subnet="smallest"))
    assert [tuple(feature.shape) for feature in features] == [
        (2, stage.channels) for stage in case.adapted.anatomy.stages
    ]
    network = pliant.extract(case.adapted, "smallest")
    outputs = []
    for stage in case.adapted.anatomy.stages:
        network.get_submodule(stage.path).register_forward_hook(lambda *call: outputs.append(call[-1].mean((2, 3))))
    network(case.images)
    assert all(torch.equal(feature, output) for feature, output in zip(features, outputs, strict=True))
