"""`pliant demo`: the whole path on real handwritten digits, in about two minutes."""

from __future__ import annotations

import shutil
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pliant.cli.show import headline, note, progress_bar, show

if TYPE_CHECKING:
    from pliant.measure.table import Table
    from pliant.train.recipe import Recipe

__all__ = ["demo", "demo_recipe"]


def demo(
    out: Annotated[Path, typer.Option(help="The run folder to write.")] = Path("runs/demo"),
    epochs: Annotated[int, typer.Option(help="Passes over the training images.")] = 20,
    threads: Annotated[int, typer.Option(help="CPU threads.")] = 1,
) -> None:
    """Train, measure, pick, report and export one adaptive network on real handwritten digits."""
    # One thread: a network this small gains little from a second one, and on a busy machine waits for it.
    started = time.perf_counter()
    _say("1/5 Train one network that has eight depths on real handwritten digits")
    from pliant.data import load_data
    from pliant.export.ship import export
    from pliant.measure.latency import using_threads
    from pliant.measure.run import measure
    from pliant.report.page import report
    from pliant.train.engine import train

    recipe = demo_recipe(epochs)
    digits = load_data("digits", image_size=recipe.data.image_size, seed=recipe.seed)
    assert digits.test is not None
    if (out / "last.ckpt").exists():
        note(f"{out} holds this training, or a part of it: going on from there. Delete it to start anew.")
    with using_threads(threads):
        trained = train(recipe, data=digits, out=out, resume=True, device="cpu")

    _say(f"\n2/5 Measure all of them on {len(digits.test)} digits that were held out, and time them here")
    with progress_bar() as on_progress:
        table = measure(trained.model, digits, threads=threads, on_progress=on_progress)
    table.save(out / "table.json")
    show(table.rows, as_json=False, title=headline(table.info))

    _say("\n3/5 Pick the best one for a budget")
    chosen = _pick(table, "latency_ms", "ms")
    _pick(table, "gmacs", "GMACs")

    _say("\n4/5 Report")
    page = report(out)
    print(f"    {page}")

    _say(f"\n5/5 Export {chosen['subnet']} to ONNX, run the file and compare")
    written = export(
        trained.model,
        out / f"digits-{chosen['subnet']}.onnx",
        subnet=chosen["subnet"],
        image_size=digits.image_size,
        info={"class_names": digits.class_names, "mean": digits.mean, "std": digits.std, **chosen},
    )
    print(f"    {written}")
    print(_next_steps(out, page, time.perf_counter() - started))


def demo_recipe(epochs: int) -> Recipe:
    """Return what the demo trains, a CIFAR ResNet-20 on digits of 16 x 16 pixels: recipes/digits_resnet20.yaml.

    Recipes lie outside the library; this one has to be there wherever the library is installed.
    """
    from pliant.train.recipe import Data, Model, Optimizer, PlanChoice, Recipe, Schedule

    return Recipe(
        model=Model(name="pliant:resnet20"),
        data=Data(source="digits", image_size=16),
        epochs=epochs,
        plan=PlanChoice(name="adn-sum", options={"features": True}),
        batch_size=64,
        optimizer=Optimizer(name="sgd", lr=0.1, nesterov=True, weight_decay=5e-4),
        schedule=Schedule(name="one_cycle"),
        validate_every=5,
        channels_last=True,
    )


def _pick(table: Table, key: str, unit: str) -> dict[str, Any]:
    """Pick for a budget in the middle between the smallest and the largest, and say so."""
    costs = [row[key] for row in table.rows]
    budget = (min(costs) + max(costs)) / 2
    row = table.pick(**{key: budget})
    print(f"    at most {budget:.3g} {unit}: {row['subnet']} with {row[key]:.3g} {unit}, {row['acc1']:.2f} % correct")
    return row


def _next_steps(out: Path, page: Path, seconds: float) -> str:
    program = "pliant" if shutil.which("pliant") else sys.argv[0]
    steps = {
        f"{program} pick {out} --acc1 98": "the cheapest with that accuracy",
        f"{program} export {out} digits.pt2 --subnet smallest": "another one, as a PyTorch program",
        f"{program} describe torchvision:resnet50": "a network of your own choice",
        f"{program} train --help": "your own images",
    }
    width = max(map(len, steps))
    lines = [f"    {command:{width}}   {purpose}" for command, purpose in steps.items()]
    return "\n".join([f"\nDone in {seconds:.0f} s. Open {page}, or go on:", *lines])


def _say(heading: str) -> None:
    """Print at once, also into a pipe: what follows takes its time."""
    print(heading, flush=True)
