"""The network that a command is given: a run folder, one on the Hub, a file of other people, or a model's name."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pliant.cli.show import note

if TYPE_CHECKING:
    from torch import nn

    from pliant.core.config import Config
    from pliant.core.inputs import InputSpec
    from pliant.measure.table import Table

__all__ = ["Network", "beside_table", "load_run", "named_or_loaded", "table_path", "write_table"]


@dataclass(frozen=True)
class Network:
    """A network that a command was given.

    Attributes:
        model: adaptive, or plain if a run folder holds one sub-network.
        inputs: what it takes.
        found: what a checkpoint file was found to be; empty for everything else.
    """

    model: nn.Module
    inputs: InputSpec
    found: dict[str, Any] = field(default_factory=dict)


def load_run(run: Path, model: str | None = None) -> tuple[nn.Module, dict[str, Any]]:
    """Load the network of a run folder and what was written down with it, such as `image_size`.

    Besides there is `model`, the name it was made from, `only`: which sub-network it is, for a network
    that was trained on its own, and `example`: what is known of its inputs. A checkpoint file of other people will do
    too.

    Args:
        run: folder or file, or `hf:USER/NAME` on the Hugging Face Hub.
        model: of a file, which network it is; of a run of one's own network, its `FILE.py:FUNCTION`.

    Raises:
        FileNotFoundError: no such folder, or nothing was trained in it.
    """
    import torch

    from pliant.checkpoint import example_of, load, read_info
    from pliant.repository import is_repository

    if run.is_file():
        network = _recognised(run, model, None)
        known = {"image_size": network.inputs.size, "model": network.found["model"]}
        return network.model, known | {"only": None, "example": None}
    if not run.is_dir() and not is_repository(run):
        raise FileNotFoundError(f"{run}: no such run folder; train one with `pliant train --recipe ... --out {run}`")
    card = read_info(run)
    name = card["model"]["name"] if card["model"] else model
    # In float32, as the files that are measured and written.
    known = card["info"] | {"model": name, "only": card["only"], "example": example_of(card)}
    return load(run, model=model, dtype=torch.float32), known


def table_path(run: Path) -> Path:
    """Where the table of a run lies: in its folder, beside a checkpoint file, or for a repository right here."""
    from pliant.repository import is_repository

    if is_repository(run):
        return Path(f"{run.name}.table.json")
    return run.with_name(f"{run.name}.table.json") if run.is_file() else run / "table.json"


def write_table(table: Table, run: Path) -> Path:
    """Write the table of a run. One that has sub-networks which this one lacks is kept as `table.before.json`.

    Returns:
        Where it lies.
    """
    from pliant.measure.table import TableError

    path = table_path(run)
    try:
        lost = {row["subnet"] for row in type(table).load(path).rows} - {row["subnet"] for row in table.rows}
    except TableError:  # there is none, or none that can be read
        lost = set()
    if lost:
        before = path.with_suffix(".before.json")
        path.replace(before)
        note(f"{path.name} had {len(lost)} more sub-networks: it is {before.name} now.")
    table.save(path)
    return path


def beside_table(run: Path, name: str) -> Path:
    """Where something else that was measured lies: `name` in the folder of a run, or beside a checkpoint file."""
    table = table_path(run)
    return table.with_name(table.name.removesuffix("table.json") + name)


def named_or_loaded(
    model_or_run: str,
    *,
    image_size: int | None = None,
    model: str | None = None,
    ema: bool | None = None,
    axes: str | None = None,
) -> Network:
    """Return an adaptive model, from a run folder, a repository, a checkpoint file or a name.

    Args:
        model_or_run: folder, repository, file or name.
        image_size: pixels of a side, or tokens of a text; none = what the model was adapted with or is made for.
        model: of a file, which network it is; none = find out. Of a run of one's own network, its name.
        ema: of a file, whether to take the averaged weights; none = where there are any.
        axes: in which ways a network that is none yet becomes adaptive, such as `width+depth`; none = as is usual.

    Raises:
        ValueError: neither a folder or file nor the name of a model that can be adapted.
    """
    import torch

    from pliant.adapt import adapt_, usual_config
    from pliant.axes import Axes
    from pliant.create import create_model
    from pliant.repository import is_repository

    path = Path(model_or_run)
    is_run = path.is_dir() or is_repository(path)
    configs = Axes.named(axes) if axes is not None else ()
    if path.is_file():
        return _recognised(path, model, ema, configs, image_size)
    if ema is not None or (model is not None and not is_run):
        raise ValueError(f"{model_or_run} is no file; --model and --ema are for checkpoint files of other people")
    if is_run:
        if configs:
            raise ValueError(f"--axes: got {axes!r}, but {model_or_run} is a run, whose network is adapted")
        loaded, info = load_run(path, model)
        return Network(loaded, _inputs_of(loaded, image_size, info["example"], info.get("image_size")))
    if ":" not in model_or_run:
        raise ValueError(
            f"{model_or_run}: neither a run folder nor a model such as torchvision:resnet50, nor a checkpoint file"
        )
    created = create_model(model_or_run)
    inputs = _inputs_of(created, image_size)
    configs = configs or (usual_config(created),)
    return Network(adapt_(created, *configs, example=inputs.random(1, torch.Generator().manual_seed(0))), inputs)


def _recognised(
    path: Path, name: str | None, ema: bool | None, configs: tuple[Config, ...] = (), image_size: int | None = None
) -> Network:
    """Load a checkpoint file, and adapt what its authors did not."""
    from pliant.adapt import adapt_, usual_config
    from pliant.foreign import recognise

    foreign = recognise(path, model=name, ema=ema)
    model = foreign.load()
    found = {
        "model": foreign.source.name,
        "checkpoint": foreign.origin,
        "weights": foreign.entry or "state dict",
        "num_classes": foreign.source.num_classes,
    }
    if foreign.configs and configs:
        raise ValueError(f"--axes: the network in {path} is adapted by its authors; leave it out")
    if not foreign.configs:
        model = adapt_(model, *(configs or (usual_config(model),)))
    return Network(
        model, _inputs_of(model, image_size), {key: value for key, value in found.items() if value is not None}
    )


def _inputs_of(
    model: nn.Module, said: int | None, example: InputSpec | None = None, trained: int | None = None
) -> InputSpec:
    from pliant.core.taken import inputs_of
    from pliant.create import usual_image_size

    if said is not None and said < 1:
        raise ValueError(f"--image-size: got {said}, expected at least 1")
    inputs = inputs_of(model, image_size=said, example=example, usual=trained or usual_image_size(model))
    if inputs is None:
        raise ValueError(f"nobody knows what images a {type(model).__name__} takes: say it with --image-size")
    return inputs
