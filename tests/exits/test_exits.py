"""Classifiers on the way: passes that end there, and what lies behind does not run."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch.utils.checkpoint import checkpoint

import pliant
from pliant.create import ModelSource
from pliant.measure.operators import count_operators

RESNET, MSDNET = "pliant:resnet20", "pliant:msdnet_cifar10_k4"
VIT = "timm:vit_tiny_patch16_224"
NETWORKS = [
    (RESNET, {}, [pliant.Exits()]),
    (RESNET, {}, [pliant.Depth(), pliant.Exits()]),
    (RESNET, {}, [pliant.Depth(), pliant.Exits(at=("layer1.1", "layer2.2"), classifier="convolutions")]),
    (VIT, {"img_size": 32, "depth": 4, "embed_dim": 48, "num_heads": 2}, [pliant.Exits(at=(1, 3))]),
    (VIT, {"img_size": 32, "depth": 8, "embed_dim": 48, "num_heads": 2}, [pliant.Depth(), pliant.Exits()]),
    (MSDNET, {}, [pliant.Exits()]),
]
COLLABORATIONS = [(RESNET, {}, [pliant.Exits(collaboration=kind)]) for kind in ("identity", "linear", "concatenate")]
COLLABORATIONS.append((MSDNET, {}, [pliant.Exits(collaboration="concatenate")]))


def make(name, options, configs):
    torch.manual_seed(0)
    original = pliant.create_model(name, **options).eval()
    return original, pliant.adapt_(copy.deepcopy(original), *configs)


def images(batch: int = 3) -> torch.Tensor:
    return torch.randn(batch, 3, 32, 32, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize(("name", "options", "configs"), NETWORKS)
@torch.no_grad()
def test_the_super_net_is_the_original_bit_for_bit(name, options, configs):
    original, model = make(name, options, configs)
    assert torch.equal(model(images()), original(images()))


@pytest.mark.parametrize(("name", "options", "configs"), NETWORKS + COLLABORATIONS)
@torch.no_grad()
def test_every_exit_extracted_computes_what_it_does_in_the_model(name, options, configs):
    _, model = make(name, options, configs)
    for subnet in model.subnets:
        assert torch.equal(pliant.extract(model, subnet)(images()), model(images(), subnet=subnet)), subnet


@pytest.mark.parametrize(("name", "options", "configs"), NETWORKS)
@torch.no_grad()
def test_features_are_the_channels_of_every_stage_of_many_scales_the_coarsest(name, options, configs):
    _, model = make(name, options, configs)
    output, features = model(images(), features=True)
    assert torch.equal(output, model(images()))
    assert [tuple(feature.shape) for feature in features] == [(3, stage.channels) for stage in model.anatomy.stages]


@pytest.mark.parametrize(("name", "options", "configs"), NETWORKS + COLLABORATIONS)
@torch.no_grad()
def test_one_pass_gives_the_answers_of_all_exits(name, options, configs):
    _, model = make(name, options, configs)
    together = model(images(), exits=True)
    alone = [model(images(), subnet=f"exit={number}") for number in range(1, len(together) + 1)]
    assert len(together) == len(model.space.exit_stages)
    torch.testing.assert_close(together, alone, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("name", "options", "configs"), NETWORKS)
@torch.no_grad()
def test_what_lies_behind_an_exit_does_not_run(name, options, configs):
    _, model = make(name, options, configs)
    exits = range(1, len(model.space.exit_stages) + 1)
    ran = [count_operators(lambda number=number: model(images(), subnet=f"exit={number}")).total() for number in exits]
    assert ran == sorted(set(ran))
    sizes = [sum(p.numel() for p in pliant.extract(model, f"exit={number}").parameters()) for number in exits]
    assert max(sizes[:-1]) < sum(p.numel() for p in model.parameters())


@pytest.mark.parametrize(("name", "options", "configs"), NETWORKS + COLLABORATIONS)
@torch.no_grad()
def test_a_batch_that_shrinks_answers_as_whole_batches_do(name, options, configs):
    _, model = make(name, options, configs)
    x, last = images(5), len(model.space.exit_stages)
    leaves_at = torch.tensor([2, 1, last, 1, last])
    inside = leaves_at.clone()

    def decide(number: int, logits: torch.Tensor) -> torch.Tensor:
        nonlocal inside
        assert len(logits) == len(inside)  # those who left are not computed any more
        leaves = inside == number
        inside = inside[~leaves]
        return leaves

    logits, exits = model.leave_early(x, decide=decide)
    assert exits.tolist() == leaves_at.tolist()
    whole = model(x, exits=True)
    expected = torch.stack([whole[number - 1][row] for row, number in enumerate(leaves_at.tolist())])
    torch.testing.assert_close(logits, expected, rtol=1e-4, atol=1e-5)


@torch.no_grad()
def test_when_everybody_has_left_nothing_more_runs():
    _, model = make(*NETWORKS[0])

    def everybody(number: int, logits: torch.Tensor) -> torch.Tensor:
        return torch.ones(len(logits), dtype=torch.bool)

    logits, exits = model.leave_early(images(), decide=everybody)
    assert exits.tolist() == [1, 1, 1]
    assert torch.equal(logits, model(images(), subnet="exit=1"))
    early = count_operators(lambda: model.leave_early(images(), decide=everybody)).total()
    assert early < count_operators(lambda: model(images(), subnet="exit=2")).total()


@pytest.mark.parametrize("collaboration", ["none", "concatenate"])
@torch.no_grad()
def test_exits_where_nobody_may_leave_are_not_asked(collaboration):
    _, model = make(MSDNET, {}, [pliant.Exits(collaboration=collaboration)])
    asked = []

    def first_leaves(number: int, logits: torch.Tensor) -> torch.Tensor:
        asked.append(number)
        return torch.arange(len(logits)) == 0

    logits, exits = model.leave_early(images(), decide=first_leaves, at=[3])
    assert asked == [3] and exits.tolist() == [3, 4, 4]
    every = model(images(), exits=True)
    torch.testing.assert_close(logits, torch.cat([every[2][:1], every[3][1:]]), rtol=1e-4, atol=1e-5)
    last = count_operators(lambda: model(images()))["aten.addmm"]
    early = count_operators(lambda: model.leave_early(images(), decide=first_leaves, at=[3]))["aten.addmm"]
    # Where exits take the answers of those before them, all have to answer.
    assert early - last == (1 if collaboration == "none" else 0)


@pytest.mark.parametrize("at", [None, (1, 2)])
def test_gradient_equilibrium_scales_each_block_by_the_formula(at):
    """IMTA paper, section 3.1: of k exits, exit j gives a block in front of exit i <= j the factor 1 / (k - i + 1)."""
    torch.manual_seed(0)
    plain = pliant.adapt_(pliant.create_model(RESNET), pliant.Exits(at=at, equilibrium="none"))
    model = pliant.adapt_(pliant.create_model(RESNET), pliant.Exits(at=at, equilibrium="coarsest"))
    model.load_state_dict(plain.state_dict())
    exits, labels = 3, torch.tensor([1, 2, 3])
    blocks = ["layer1.0.conv1", "layer2.0.conv1", "layer3.0.conv1"]  # block i lies in front of exit i

    def gradients(network, exit_number):
        network.zero_grad()
        F.cross_entropy(network(images(), exits=True)[exit_number - 1], labels).backward()
        return [network.get_submodule(path).weight.grad for path in blocks]

    for exit_number in range(1, exits + 1):
        pairs = zip(gradients(model, exit_number), gradients(plain, exit_number), strict=True)
        for i, (scaled, whole) in enumerate(pairs, start=1):
            if i <= exit_number:
                torch.testing.assert_close(scaled, whole / (exits - i + 1), rtol=1e-4, atol=1e-6)
            else:
                assert scaled is None and whole is None


def test_equilibrium_of_the_coarsest_scale_leaves_the_others_alone():
    def finest_gradient(equilibrium: str) -> torch.Tensor:
        torch.manual_seed(0)
        model = pliant.adapt_(pliant.create_model(MSDNET), pliant.Exits(equilibrium=equilibrium))
        seen = {}
        model.get_submodule("steps.0").register_forward_hook(lambda _m, _i, output: seen.update(scales=output))
        loss = sum(F.cross_entropy(logits, torch.tensor([1, 2, 3])) for logits in model(images(), exits=True))
        assert isinstance(loss, torch.Tensor)
        return torch.autograd.grad(loss, seen["scales"][0])[0]

    assert torch.allclose(finest_gradient("coarsest"), finest_gradient("coarsest"))
    assert not torch.allclose(finest_gradient("coarsest"), finest_gradient("all"), rtol=1e-3, atol=0)


@pytest.mark.parametrize(("name", "options", "configs"), COLLABORATIONS)
def test_collaboration_sends_no_gradient_to_the_exit_before(name, options, configs):
    _, model = make(name, options, configs)
    model.train()
    F.cross_entropy(model(images(), exits=True)[1], torch.tensor([1, 2, 3])).backward()
    path = "steps.0.exit.linear" if name == MSDNET else "layer1.2.exit.linear"
    first: torch.nn.Linear = model.get_submodule(path)
    assert first.weight.grad is None
    with torch.no_grad():
        before = model.eval()(images(), subnet="exit=2")
        first.weight.mul_(3)
        if configs[0].collaboration != "linear":  # which begins as zero
            assert not torch.allclose(model(images(), subnet="exit=2"), before)  # but its answer is taken


def test_collaboration_that_begins_as_zero_changes_nothing():
    original, model = make(RESNET, {}, [pliant.Exits(collaboration="linear")])
    with torch.no_grad():
        assert torch.equal(model(images()), original(images()))


@pytest.mark.parametrize(("name", "options", "configs"), [*NETWORKS, *COLLABORATIONS])
@torch.no_grad()
def test_saved_and_loaded_it_is_the_same(name, options, configs, tmp_path):
    _, model = make(name, options, configs)
    pliant.save(model, tmp_path, source=ModelSource(name=name, options=options) if options else None)
    loaded = pliant.load(tmp_path)
    assert loaded.configs == model.configs
    torch.testing.assert_close(loaded(images(), exits=True), model(images(), exits=True), rtol=0, atol=0)


def test_sub_networks_are_named_by_exit_and_depth():
    _, model = make(*NETWORKS[1])
    assert [str(subnet) for subnet in model.subnets][:3] == ["depth=TFF,exit=1", "depth=FFF,exit=1", "depth=TTF,exit=2"]
    assert len(model.subnets) == 2 + 4 + 8
    space = model.space
    assert space.parse("exit=2, depth=TFT") == space.parse(
        "depth=TFF,exit=2"
    )  # what is skipped behind makes no difference
    assert space.parse("exit=2") == pliant.SubNet(depth=(False, False, False), exit=2)
    assert str(space.smallest) == "depth=TFF,exit=1" and str(space.largest) == "depth=FFF,exit=3"
    assert pliant.adapt_(pliant.create_model(RESNET), pliant.Exits()).space.parse("2") == pliant.SubNet(exit=2)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("exit=4", "no sub-network 'exit=4': allowed are exit=1 to exit=3"),
        ("exit=0", "allowed are exit=1 to exit=3"),
        ("depth=TTT,exit=1", "allowed are exit=1 to exit=3"),
        ("exit=1,exit=2", "allowed are exit=1 to exit=3"),
    ],
)
def test_unknown_exits_are_refused(given, message):
    _, model = make(*NETWORKS[0])
    with pytest.raises(ValueError, match=message):
        model(images(), subnet=given)


@pytest.mark.parametrize(
    ("name", "config", "message"),
    [
        (RESNET, {"at": (3,)}, "got 3, but this CIFAR ResNet has 3 stages.*allowed are 1 to 2"),
        (RESNET, {"at": ("layer1",)}, "'layer1' is no block.*such as 'layer1.0' to 'layer3.1'"),
        (RESNET, {"at": ("layer3.2",)}, "'layer3.2' is the network's own end"),
        (MSDNET, {"at": (1,)}, "MSDNet brings its exits; leave it out"),
        (VIT, {"classifier": "convolutions"}, "'convolutions' needs feature maps"),
        ("torchvision:squeezenet1_0", {}, "supported"),
    ],
)
def test_places_where_no_exit_can_stand_are_refused(name, config, message):
    model = pliant.create_model(name)
    keys = list(model.state_dict())
    with pytest.raises(ValueError, match=message):
        pliant.adapt_(model, pliant.Exits(**config))
    assert list(model.state_dict()) == keys


def test_a_network_without_exits_says_so():
    model = pliant.adapt_(pliant.create_model(RESNET), pliant.Depth()).eval()
    with pytest.raises(ValueError, match=r"one classifier; adapt it with pliant\.Exits"):
        model(images(), exits=True)


@pytest.mark.slow
@pytest.mark.parametrize("configs", [[pliant.Exits()], [pliant.Depth(), pliant.Exits()]])
@torch.no_grad()
def test_it_compiles_in_one_graph(configs):
    _, model = make(RESNET, {}, configs)
    compiled = torch.compile(model, fullgraph=True, backend="eager")
    for subnet in ("exit=1", "exit=2", "largest"):
        torch.testing.assert_close(compiled(images(), subnet=subnet), model(images(), subnet=subnet))
    torch.testing.assert_close(compiled(images(), exits=True), model(images(), exits=True))


@pytest.mark.parametrize("ending", ["onnx", "pt2"])
def test_an_exit_is_exported_as_a_file_of_its_own(ending, tmp_path):
    _, model = make(RESNET, {}, [pliant.Depth(), pliant.Exits()])
    report = pliant.export(model, tmp_path / f"net.{ending}", subnet="exit=1")
    assert report.difference < 1e-4 and report.subnet == "depth=FFF,exit=1"
    whole = pliant.export(model, tmp_path / f"whole.{ending}")
    assert report.size_mb < whole.size_mb / 2


def test_describe_lists_the_exits_with_the_papers_counting():
    """IMTA paper, Table 1: MSDNet with seven exits for CIFAR-100, within 0.5 %."""
    from pliant.measure.describe import describe

    model = pliant.adapt_(pliant.create_model("pliant:msdnet_cifar100_k7"), pliant.Exits())
    table = describe(model, 32)
    assert [row["subnet"] for row in table.rows] == [f"exit={number}" for number in range(1, 8)]
    mmacs = [6.86, 14.35, 27.29, 48.45, 76.43, 108.9, 137.3]
    params_m = [0.30, 0.65, 1.11, 1.73, 2.385, 3.05, 3.97]
    for row, printed_mmacs, printed_params_m in zip(table.rows, mmacs, params_m, strict=True):
        assert row["paper_gmacs"] * 1e3 == pytest.approx(printed_mmacs, rel=0.005)
        assert row["paper_params_m"] == pytest.approx(printed_params_m, rel=0.005)
        assert row["gmacs"] < row["paper_gmacs"] and row["params_m"] < row["paper_params_m"]
    assert table.info["stages"][0] == "steps.0: 1 Step, 88 channels, exit 1"


def test_gradient_checkpointing_gives_the_same_gradients():
    options = {"img_size": 32, "depth": 4, "embed_dim": 48, "num_heads": 2}
    labels = torch.tensor([1, 2, 3])

    def gradients(checkpointing: bool):
        torch.manual_seed(0)
        plain: Any = pliant.create_model(VIT, **options)
        plain.set_grad_checkpointing(checkpointing)
        model = pliant.adapt_(plain, pliant.Exits(at=(1, 3))).train()
        pliant.Objective(model)(images(), labels).backward()
        return {name: parameter.grad for name, parameter in model.named_parameters()}

    plain, checkpointed = gradients(False), gradients(True)
    for name, gradient in plain.items():
        torch.testing.assert_close(checkpointed[name], gradient, msg=name)


def test_an_exit_in_a_checkpoint_that_has_no_gradient_is_refused():
    model: Any = pliant.adapt_(pliant.create_model(RESNET), pliant.Exits()).train()
    inner = model.layer2.forward
    model.layer2.forward = lambda x: checkpoint(inner, x, use_reentrant=True)
    with pytest.raises(ValueError, match=r"exit 2 has no gradient.*use_reentrant=False"):
        pliant.Objective(model)(images(), torch.tensor([1, 2, 3]))
