"""A network of many widths: trained, resumed, measured, chosen and shipped."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import onnxruntime
import pytest
import torch

import pliant
from pliant.checkpoint import CheckpointError
from pliant.core.adaptive import AdaptiveModule
from pliant.data import ImageData
from pliant.train.engine import train
from pliant.train.passes import Passes
from pliant.train.recipe import Recipe

Tiny = Callable[..., Recipe]

MODEL = {"name": "pliant:resnet20", "options": {"shortcut": "projection"}}
WIDTH: dict[str, Any] = {
    "model": MODEL,
    "adapt": {"depth": None, "width": {"choices": [0.25, 0.5, 0.75, 1.0]}},
    "plan": {"name": "sandwich"},
}


def test_from_a_recipe_to_a_file(tiny: Tiny, images: ImageData, tmp_path: Path) -> None:
    result = train(tiny(**WIDTH), data=images, out=tmp_path / "run", log=None)
    assert {"loss_random-1<-width=1.0/logits", "val_acc1_width=0.25", "val_acc1_width=1.0"} <= set(result.rows[-1])
    model = pliant.load(result.out)
    assert isinstance(model, AdaptiveModule)
    assert isinstance(result.model, AdaptiveModule)
    x = torch.randn(2, 3, 8, 8)
    for subnet in model.subnets:
        assert torch.equal(model(x, subnet=subnet), result.model(x, subnet=subnet))

    table = pliant.measure(model, images, recalibrate=24, latency=False, memory=False)
    assert [row["subnet"] for row in table.rows] == ["width=0.25", "width=0.5", "width=0.75", "width=1.0"]
    gmacs = [row["gmacs"] for row in table.rows]
    assert gmacs == sorted(gmacs)
    assert table.pick(gmacs=gmacs[0])["subnet"] == "width=0.25"

    path = tmp_path / "net.onnx"
    pliant.export(model, path, subnet="width=0.5", image_size=8)
    session = onnxruntime.InferenceSession(path)
    (logits,) = session.run(None, {session.get_inputs()[0].name: x.numpy()})
    torch.testing.assert_close(torch.from_numpy(logits), model(x, subnet="width=0.5"), rtol=1e-3, atol=1e-4)


def test_a_resumed_training_draws_the_same_widths(tiny: Tiny, images: ImageData, tmp_path: Path) -> None:
    whole = train(tiny(**WIDTH), data=images, out=tmp_path / "whole", log=None)
    interrupted = tmp_path / "interrupted"

    def stop_after_the_first(text: str) -> None:
        if text.startswith("epoch 1/"):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(tiny(**WIDTH), data=images, out=interrupted, log=stop_after_the_first)
    resumed = train(tiny(**WIDTH), data=images, out=interrupted, resume=True, log=None)
    for one, other in zip(whole.rows, resumed.rows, strict=True):
        assert one["train_loss"] == other["train_loss"]
    for name, tensor in whole.model.state_dict().items():
        assert torch.equal(tensor, resumed.model.state_dict()[name]), name


def test_the_moving_average_teaches(tiny: Tiny, images: ImageData, tmp_path: Path) -> None:
    ema = {"decay": 0.5}
    live = train(tiny(**WIDTH, ema=ema), data=images, out=tmp_path / "live", log=None)
    bootstrapped = train(tiny(**WIDTH, ema=ema, teacher="ema"), data=images, out=tmp_path / "ema", log=None)
    own, taught = "loss_width=1.0<-labels", "loss_width=0.25<-width=1.0/logits"
    assert bootstrapped.rows[0][taught] != live.rows[0][taught]
    assert own in bootstrapped.rows[0]
    again = train(tiny(**WIDTH, ema=ema, teacher="ema"), data=images, out=tmp_path / "again", log=None)
    assert again.rows[-1]["train_loss"] == bootstrapped.rows[-1]["train_loss"]


def test_without_a_moving_average_it_cannot_teach(tiny: Tiny) -> None:
    with pytest.raises(ValueError, match=r"Recipe\.teacher: got 'ema', but 'ema' is none"):
        tiny(**WIDTH, teacher="ema")


def test_one_width_on_its_own_is_a_plain_smaller_network(tiny: Tiny, images: ImageData, tmp_path: Path) -> None:
    result = train(tiny(**WIDTH, only="width=0.5", epochs=1), data=images, out=tmp_path / "run", log=None)
    assert not isinstance(result.model, AdaptiveModule)
    assert result.model.get_submodule("conv1").weight.shape == (8, 3, 3, 3)
    x = torch.randn(2, 3, 8, 8)
    assert torch.equal(pliant.load(result.out)(x), result.model(x))


def test_other_widths_than_the_checkpoints_are_refused(tiny: Tiny, images: ImageData, tmp_path: Path) -> None:
    train(tiny(**WIDTH, epochs=1), data=images, out=tmp_path / "run", log=None)
    other = WIDTH | {"adapt": {"depth": None, "width": {"choices": [0.5, 1.0]}}}
    with pytest.raises(ValueError, match=r"adapt\.width\.choices"):
        train(tiny(**other, epochs=1), data=images, out=tmp_path / "run", resume=True, log=None)


def test_widths_unlike_the_checkpoint_are_refused(tiny: Tiny, images: ImageData, tmp_path: Path) -> None:
    """Their weights are the same where norms are shared, but other slices of them were trained."""
    width = {"choices": [0.25, 0.5, 1.0], "norms": "shared"}
    one = WIDTH | {"plan": {"name": "sandwich", "random": 1}}
    start = train(tiny(**one | {"adapt": {"depth": None, "width": width}}), data=images, out=tmp_path / "a", log=None)
    model = MODEL | {"start_from": str(start.out)}
    other = tiny(**one | {"model": model, "adapt": {"depth": None, "width": width | {"choices": [0.25, 0.75, 1.0]}}})
    with pytest.raises(
        CheckpointError, match=r"width=0.75 was not trained there; its widths are width=0.25, width=0.5"
    ):
        train(other, data=images, out=tmp_path / "b", log=None)


def test_other_slices_than_the_checkpoints_are_refused(tiny: Tiny, images: ImageData, tmp_path: Path) -> None:
    width = {"choices": [0.25, 0.5, 1.0], "norms": "shared"}
    one = WIDTH | {"plan": {"name": "sandwich", "random": 1}}
    start = train(tiny(**one | {"adapt": {"depth": None, "width": width}}), data=images, out=tmp_path / "a", log=None)
    model = MODEL | {"start_from": str(start.out)}
    other = tiny(**one | {"model": model, "adapt": {"depth": None, "width": width | {"divisor": 8}}})
    with pytest.raises(CheckpointError, match=r"cannot start from .*: Width\.divisor was 1 there, and is 8"):
        train(other, data=images, out=tmp_path / "b", log=None)


TWO = WIDTH | {"views": 2, "data": {"source": "photos", "val_fraction": 0.25, "augment": {"padding": 2, "mixup": 0.2}}}


@pytest.mark.parametrize("changes", [{}, {"ema": {"decay": 0.5}, "teacher": "ema", "backward": "sequential"}])
def test_students_see_another_view_and_a_resumed_training_the_same_ones(
    tiny: Tiny, images: ImageData, tmp_path: Path, changes: dict[str, Any]
) -> None:
    whole = train(tiny(**TWO | changes), data=images, out=tmp_path / "whole", log=None)
    one = train(tiny(**TWO | changes | {"views": 1}), data=images, out=tmp_path / "one", log=None)
    taught = "loss_width=0.25<-width=1.0/logits"
    assert whole.rows[0][taught] != one.rows[0][taught]

    def stop_after_the_first(text: str) -> None:
        raise KeyboardInterrupt

    interrupted = tmp_path / "interrupted"
    with pytest.raises(KeyboardInterrupt):
        train(tiny(**TWO | changes), data=images, out=interrupted, log=stop_after_the_first)
    resumed = train(tiny(**TWO | changes), data=images, out=interrupted, resume=True, log=None)
    for name, tensor in whole.model.state_dict().items():
        assert torch.equal(tensor, resumed.model.state_dict()[name]), name


def test_the_model_gets_both_views(
    tiny: Tiny, images: ImageData, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[tuple[str, torch.Tensor]] = []
    run = Passes.run

    def noted(self: Passes, network: Any, x: torch.Tensor, members: Any, *rest: Any, **options: Any) -> Any:
        seen.append((members[-1], x))
        return run(self, network, x, members, *rest, **options)

    monkeypatch.setattr(Passes, "run", noted)
    train(tiny(**TWO, epochs=1), data=images, out=tmp_path / "run", log=None)
    largest = [x for name, x in seen if name == "width=1.0"]
    smallest = [x for name, x in seen if name == "width=0.25"]
    batches = [
        [
            x
            for x, _ in images.train.batches(
                12, augment=tiny(**TWO).data.augment, shuffle=True, drop_last=True, view=view
            )
        ]
        for view in (1, 2)
    ]
    for passes, expected in zip((largest, smallest), batches, strict=True):
        assert len(passes) == 3
        assert all(torch.equal(x, batch) for x, batch in zip(passes, expected, strict=True))


@pytest.mark.parametrize(
    ("plan", "message"),
    [
        ({"name": "slimmable"}, r"^two views: in plan 'slimmable' nobody learns from a teacher$"),
        ({"name": "sandwich", "labels": 1.0}, "nobody learns from a teacher"),
    ],
)
def test_two_views_without_a_teacher_are_refused_before_the_training(
    tiny: Tiny, images: ImageData, tmp_path: Path, plan: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        train(tiny(**TWO | {"plan": plan}), data=images, out=tmp_path / "run", log=None)
    assert not (tmp_path / "run").exists()
    with pytest.raises(ValueError, match=r"Recipe\.views: got 3, expected one of 1, 2"):
        tiny(**WIDTH, views=3)
