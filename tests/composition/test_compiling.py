"""Contract 5. torch.compile: one graph a sub-network, whole; torch.export: one program a sub-network."""

from __future__ import annotations

import copy
import logging

import pytest
import torch
from torch._dynamo.utils import counters

import pliant
from pliant.core.inputs import logits_of
from pliant.core.subnet import SubNet, SubNetSpace
from pliant.core.switch import Switch

LIBRARIES = [
    "own",
    "timm ViT",
    pytest.param("transformers Llama", marks=pytest.mark.slow),
    pytest.param("timm ResNet", marks=pytest.mark.slow),
    pytest.param("transformers ViT", marks=pytest.mark.slow),
    pytest.param("transformers Swin", marks=pytest.mark.slow),
    pytest.param("transformers BERT", marks=pytest.mark.slow),
]

pytestmark = [
    # Of torch's own making: what its compiler imports and calls.
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::FutureWarning"),
    pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf"),
    # The switch is put back before a pass ends; strict tracing says that it was touched.
    pytest.mark.filterwarnings("ignore:While compiling, we found certain side effects"),
]


@pytest.fixture(autouse=True)
def fresh():
    torch._dynamo.reset()
    counters.clear()
    # Where something listens to all messages, as pytest does, the compiler writes down what it does, at length.
    logging.getLogger("torch.__trace").setLevel(logging.WARNING)


def graphs() -> int:
    return counters["stats"]["unique_graphs"]


@pytest.mark.parametrize("library", LIBRARIES)
def test_one_whole_graph_a_sub_network_and_none_on_return(library, make, inputs):
    model, x = make(library), inputs(library)
    # `aot_eager`: everything that torch.compile does, but no code for the processor, which takes long to make.
    compiled = torch.compile(model, backend="aot_eager", fullgraph=True)
    subnets = ("smallest", "largest")
    with torch.no_grad():
        for number, subnet in enumerate(subnets, start=1):
            torch.testing.assert_close(logits_of(compiled(x, subnet=subnet)), logits_of(model(x, subnet=subnet)))
            assert graphs() == number
        for subnet in subnets:
            compiled(x, subnet=subnet)
        assert graphs() == 2
        output, features = compiled(x, subnet="smallest", features=True)
        expected, expected_features = model(x, subnet="smallest", features=True)
        torch.testing.assert_close(logits_of(output), logits_of(expected))
        torch.testing.assert_close(features, expected_features)
    assert graphs() == 3
    assert not counters["graph_break"]


@torch.no_grad()
def test_a_sub_network_by_any_name_and_an_unknown_one(make, inputs):
    model, x = make("own"), inputs("own")
    compiled = torch.compile(model, backend="eager", fullgraph=True)
    expected = model(x, subnet="TFFF")
    for name in ("TFFF", "depth=TFFF", SubNet(depth=(True, False, False, False))):
        assert torch.equal(compiled(x, subnet=name), expected)
    with pytest.raises(ValueError, match="no sub-network 'TFF'"):
        torch.compile(model, backend="eager")(x, subnet="TFF")
    assert torch.equal(compiled(x, subnet="TFFF"), expected)


@torch.no_grad()
def test_others_that_run_meanwhile_and_copies_make_no_new_graphs(make, inputs):
    model, x = make("own"), inputs("own")
    compiled = torch.compile(model, backend="eager", fullgraph=True)
    values = [SubNet(depth=(True, True, False, False)), SubNet(depth=(True, True, False, False))]
    for subnet in ("TTFF", *values, "TFFF", "TTFF", *values, "TFFF"):
        model(x, subnet=model.subnets[3])  # which the switch gets to know now, or knows
        model(x, subnet=str(subnet))
        assert torch.equal(compiled(x, subnet=subnet), model(x, subnet=subnet))
    assert graphs() == 3, "of two texts and of one value, whichever object it is"
    twin = copy.deepcopy(model)
    assert torch.equal(torch.compile(twin, backend="eager", fullgraph=True)(x, subnet="TFFF"), twin(x, subnet="TFFF"))
    assert graphs() == 3


@torch.no_grad()
def test_a_text_is_read_anew_for_another_space():
    def first_width(switch, x):
        with switch.running("smallest"):
            return x * switch.widths[0]

    compiled = torch.compile(first_width, backend="eager", fullgraph=True)
    for width in (0.25, 0.5):
        switch = Switch(SubNetSpace(widths=((width,), (1.0,))))
        assert compiled(switch, torch.ones(1)) == width


@pytest.mark.slow
@torch.no_grad()
def test_more_than_eight_sub_networks_need_torch_s_limit_raised(make, inputs):
    model, x = make("own"), inputs("own")
    compiled = torch.compile(model, backend="eager", fullgraph=True)
    with torch._dynamo.config.patch(recompile_limit=len(model.subnets)):
        for subnet in model.subnets:
            assert torch.equal(compiled(x, subnet=str(subnet)), model(x, subnet=subnet))
        assert graphs() == len(model.subnets) == 16


@torch.no_grad()
@pytest.mark.parametrize("library", LIBRARIES)
def test_extracted_networks_compile(library, make, inputs):
    plain, x = pliant.extract(make(library), "smallest"), inputs(library)
    torch.testing.assert_close(
        logits_of(torch.compile(plain, backend="aot_eager", fullgraph=True)(x)), logits_of(plain(x))
    )
    assert graphs() == 1


@pytest.mark.slow
@torch.no_grad()
def test_code_for_the_processor(make, inputs):
    model, x = make("timm ViT"), inputs("timm ViT")
    compiled = torch.compile(model, fullgraph=True)
    for subnet in ("smallest", "largest", "smallest"):
        torch.testing.assert_close(compiled(x, subnet=subnet), model(x, subnet=subnet), rtol=1e-3, atol=1e-4)


def training_step(model, x, labels=None):
    model.zero_grad(set_to_none=True)
    pliant.Objective(model)(x, torch.tensor([0, 3, 9]) if labels is None else labels).backward()
    return {name: p.grad for name, p in model.named_parameters()}


@pytest.mark.parametrize("checkpointing", [None, {"use_reentrant": False}], ids=["plain", "checkpointed"])
@pytest.mark.parametrize("wrapped", [False, True], ids=["in place", "wrapped"])
def test_training_steps_of_compiled_models(wrapped, checkpointing, make, inputs):
    model, x = make("own").double().train(), inputs("own").double()
    expected = training_step(model, x)
    quick = copy.deepcopy(model)
    quick.checkpointing = checkpointing
    # Features are put into a list within the checkpoint, which torch wants to be told is no harm.
    with torch._dynamo.config.patch(skip_fwd_side_effects_in_bwd_under_checkpoint=checkpointing is not None):
        if wrapped:
            training_step(torch.compile(quick, backend="aot_eager", fullgraph=True), x)
        else:
            quick.compile(backend="aot_eager", fullgraph=True)
            training_step(quick, x)
    for name, parameter in quick.named_parameters():
        torch.testing.assert_close(parameter.grad, expected[name], rtol=1e-8, atol=1e-10, msg=name)
    assert graphs() == 2
    assert type(pliant.extract(quick, "smallest")).__name__ == "OwnNetwork"


def test_blocks_compiled_one_by_one(make, inputs):
    """Also within a reentrant checkpoint; a non-reentrant one compares what it keeps, and says that it differs."""
    model, x = make("own").double().train(), inputs("own").double().requires_grad_()

    def passes(model):
        model.zero_grad()
        (model(x, subnet="TTFF").sum() + model(x, subnet="FFTT").square().sum()).backward()

    def compiled(checkpointing):
        quick = copy.deepcopy(model)
        quick.checkpointing = checkpointing
        for block in quick.blocks:
            block.compile(backend="aot_eager")
        return quick

    passes(model)
    with torch._dynamo.config.patch(recompile_limit=32):
        for checkpointing in (None, {"use_reentrant": True}):
            quick = compiled(checkpointing)
            passes(quick)
            for name, parameter in quick.named_parameters():
                torch.testing.assert_close(parameter.grad, model.get_parameter(name).grad, msg=name)
        torch._dynamo.reset()
        with pytest.raises(torch.utils.checkpoint.CheckpointError):
            passes(compiled({"use_reentrant": False}))


@pytest.mark.parametrize("use_reentrant", [True, False])
def test_gradients_where_the_compiler_skips_what_is_checkpointed(use_reentrant, make, inputs):
    """It then runs the pass around that part in eager mode, and compiles the functions that are called there."""
    model, x = make("own").train(), inputs("own")
    for subnet in ("smallest", "largest"):
        model(x, subnet=subnet).square().sum().backward()
    quick = copy.deepcopy(model)
    quick.zero_grad()
    quick.checkpointing = {"use_reentrant": use_reentrant}
    quick.pair = torch.compiler.disable(quick.pair)
    quick.train()  # looks for parts that no longer follow
    compiled = torch.compile(quick, backend="eager")
    first, second = compiled(x, subnet="smallest"), compiled(x, subnet="largest")
    second.square().sum().backward()
    first.square().sum().backward()
    for name, parameter in quick.named_parameters():
        torch.testing.assert_close(parameter.grad, model.get_parameter(name).grad, msg=name)


EXPORTED = [
    ("own", False),
    ("own", True),
    ("timm ViT", False),
    ("timm ResNet", False),
    ("transformers Llama", False),
    *(pytest.param(f"transformers {family}", False, marks=pytest.mark.slow) for family in ("ViT", "Swin", "BERT")),
]


@torch.no_grad()
@pytest.mark.parametrize(("library", "strict"), EXPORTED)
def test_exported_programs_compute_the_same(library, strict, make, inputs):
    model, x = make(library), inputs(library)
    # A cache of keys and values is nothing that torch.export returns.
    fixed = {"use_cache": False} if library == "transformers Llama" else {}
    for subnet in ("smallest", "largest"):
        expected = logits_of(model(x, subnet=subnet, **fixed))
        options = {"subnet": subnet, **fixed}
        adapted = torch.export.export(model, (x,), options, strict=strict).module()
        torch.testing.assert_close(logits_of(adapted(x, **options)), expected)
    plain = torch.export.export(pliant.extract(model, "largest"), (x,), fixed, strict=strict).module()
    torch.testing.assert_close(logits_of(plain(x, **fixed)), expected)


@torch.no_grad()
def test_an_exported_program_is_for_its_sub_network_alone(make, inputs):
    model, x = make("own"), inputs("own")
    program = torch.export.export(model, (x,), {"subnet": "TTTT", "features": True}).module()
    output, features = program(x, subnet="TTTT", features=True)
    torch.testing.assert_close((output, features), model(x, subnet="TTTT", features=True))
    with pytest.raises(Exception, match="TTTT"):
        program(x, subnet="FFFF", features=True)
