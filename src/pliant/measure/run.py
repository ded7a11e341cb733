"""`measure`: every sub-network of a model, on this machine, as a `Table`."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import nn

from pliant.core.inputs import InputSpec, arguments_of, placed
from pliant.core.modes import evaluating
from pliant.core.subnet import SubNet
from pliant.core.taken import inputs_of
from pliant.core.wrapped import refuse_wrapped
from pliant.measure.accuracy import measure_accuracy
from pliant.measure.candidates import Candidate, find_candidates, model_name, ship_
from pliant.measure.describe import needed_inputs, structure_info, structure_row
from pliant.measure.energy import Meter, read_joules
from pliant.measure.environment import describe_environment, device_name, resolve_device
from pliant.measure.memory import peak_memory_mb
from pliant.measure.operators import count_operators
from pliant.measure.paper import paper_rows
from pliant.measure.table import Table
from pliant.measure.timing import Progress, Timing, at_least_one
from pliant.recalibrate import training_images, why_not

if TYPE_CHECKING:
    from pliant.data import Augment, ImageData, Split

__all__ = ["measure"]

Row = dict[str, Any]

_DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


def measure(
    model: nn.Module,
    data: ImageData | None = None,
    *,
    subnets: Sequence[str | SubNet] | None = None,
    name: str | None = None,
    split: Literal["test", "val"] = "test",
    image_size: int | None = None,
    example: Any = None,
    batch_size: int = 1,
    eval_batch_size: int = 256,
    threads: int | None = None,
    dtype: torch.dtype | str | None = None,
    device: torch.device | str | None = None,
    latency: bool = True,
    memory: bool = True,
    energy: bool = True,
    meter: Meter | None = None,
    rounds: int | None = None,
    budget_seconds: float | None = None,
    warmup: int = 3,
    through: Literal["extracted", "switched"] = "extracted",
    recalibrate: int = 0,
    augment: Augment | None = None,
    on_progress: Progress = lambda what, done, total: None,
) -> Table:
    """Measure every sub-network: accuracy, MACs, parameters, latency, energy, memory and operators.

    Accuracy and operators are those of `model(x, subnet=...)`; latency, energy and memory by default those of the
    extracted sub-network, which is what ships. The model stays as it is, on its device and in its mode.

    Args:
        model: adaptive, or plain (then there is one row, called by its name).
        data: where accuracy is measured; none = accuracy is left out.
        subnets: which sub-networks; none = all, of a model that has 4096 at most. Of more, name some, such as
            `model.subnets.evenly_spaced(16)`.
        name: what the model is called; none = the name that makes it, such as `torchvision:resnet50`.
        split: of the data; data without a test split is measured on `val`, and the table says so.
        image_size: height and width in pixels, or number of tokens; none = that of the data, or as the example is.
        example: one input, as for `adapt_`; none = the one that the model was adapted with. Needed where there is
            neither data, nor an image size, nor that one.
        batch_size: images in a pass that is timed.
        eval_batch_size: images in a pass that measures accuracy.
        threads: CPU threads of the timed passes; none = as many as PyTorch uses now.
        dtype: `float32`, `bfloat16` or `float16`; none = the model's own. The model is copied for another.
        device: none = the model's own. The model is copied for another.
        latency: measure latency.
        memory: measure peak memory.
        energy: measure energy where it can be read; where not, `no_energy` in the table's `info` says why. Each
            sub-network runs for 2 s or more.
        meter: called without arguments, returns the joules used since some start, for instance by a meter at the
            plug; none = the counters of the processor (RAPL) or of the GPU (NVML).
        rounds: times each sub-network is timed; none = 100, or as many as fit.
        budget_seconds: time all sub-networks for so long together, in as many rounds as fit, 6 at least; and measure
            energy for as long again.
        warmup: rounds before that, not recorded.
        through: time the extracted sub-networks, or the model switched to each.
        recalibrate: measure the sub-networks that were not trained with norm statistics taken anew from so
            many training images, as `pliant.recalibrated` does; 0 = with those of the model. Where there are none,
            as in a network without batch norms, nothing is taken anew and the table says nothing of it.
        augment: for `recalibrate`, how the training varied its images. It matters: a network that saw crops
            of padded images has other means than plain images give.
        on_progress: called with what is being measured, how much is done, of how much.

    Returns:
        A table with one row a sub-network, smallest first; see `Table` for its keys.

    Raises:
        ValueError: an option or sub-network that is not allowed, more sub-networks than 4096, a wrapped model, a
            device that is not here, inputs that the network does not take, or data with another number of classes than
            it has outputs.
    """
    refuse_wrapped(model, "measure")
    if through not in ("extracted", "switched"):
        raise ValueError(f"through={through!r}: allowed are 'extracted' and 'switched'")
    # Refused here, not where they are used, because minutes of measuring accuracy may lie between.
    at_least_one(batch_size=batch_size, eval_batch_size=eval_batch_size)
    timing = Timing(threads=threads, rounds=rounds, budget_seconds=budget_seconds, warmup=warmup)
    if meter is not None:
        read_joules(meter)
    image_size = data.image_size if image_size is None and data is not None else image_size
    inputs = needed_inputs(inputs_of(model, image_size=image_size, example=example), "measure")
    parameter = _first_parameter(model)
    resolved_dtype = _dtype(parameter.dtype if dtype is None else dtype)
    resolved_device = resolve_device(parameter.device if device is None else device)
    name = name or model_name(model)
    info = structure_info(model, name, inputs)
    model = _placed(model, resolved_device, resolved_dtype)
    with evaluating(model):
        batches = None
        if recalibrate:
            batches = training_images(data, recalibrate, augment, resolved_device, resolved_dtype)
            info |= {} if why_not(model) else {"recalibrated_on": recalibrate}
        candidates = find_candidates(model, subnets, name, batches)
        rows = _structure_rows(candidates, inputs, on_progress)
        for row, printed in zip(rows, paper_rows(model, [row["subnet"] for row in rows], inputs.size), strict=True):
            row |= printed
        if through == "extracted":
            ship_(candidates)
        if data is not None:
            info |= _add_accuracy(rows, candidates, data, split, eval_batch_size, on_progress)
        batch, single = (
            placed(inputs.random(size, torch.Generator().manual_seed(0)), resolved_device, resolved_dtype)
            for size in (batch_size, 1)
        )
        calls = {candidate.name: _call(_timed(candidate, through), batch) for candidate in candidates}
        if latency:
            latencies, circumstances = timing.latencies(calls, on_progress, resolved_device)
            info |= circumstances | {"latency_of": through}
            for row in rows:
                row |= latencies[row["subnet"]]
        if energy:
            used_mj, said = timing.energies(calls, meter, on_progress, resolved_device)
            for row in rows if used_mj else ():
                row["energy_mj"] = used_mj[row["subnet"]] / batch_size
            info |= said
        if memory:
            _add_memory(rows, candidates, batch, through, on_progress)
        _add_operators(rows, candidates, single)
    info |= {"batch_size": batch_size, "dtype": str(resolved_dtype).removeprefix("torch.")}
    info |= {"device": device_name(resolved_device)} | describe_environment()
    return Table(rows, info)


def _structure_rows(candidates: Sequence[Candidate], inputs: InputSpec, on_progress: Progress) -> list[Row]:
    rows = []
    for done, candidate in enumerate(candidates, start=1):
        rows.append(structure_row(candidate, inputs))
        on_progress("MACs", done, len(candidates))
    return rows


def _add_accuracy(
    rows: list[Row],
    candidates: Sequence[Candidate],
    data: ImageData,
    split: str,
    batch_size: int,
    on_progress: Progress,
) -> dict[str, Any]:
    chosen, used = split_of(data, split)
    done = 0

    def on_batch(images: int) -> None:
        nonlocal done
        done += images
        on_progress("accuracy", done, len(chosen))

    parameter = next(candidates[0].network.parameters())
    accuracies = measure_accuracy(
        {candidate.name: candidate.run for candidate in candidates},
        chosen,
        len(data.class_names),
        batch_size=batch_size,
        device=parameter.device,
        dtype=parameter.dtype,
        on_batch=on_batch,
    )
    for row in rows:
        row |= accuracies[row["subnet"]]
    return {"data": data.name, "split": used, "images": done}


def _add_memory(
    rows: list[Row], candidates: Sequence[Candidate], batch: Any, through: str, on_progress: Progress
) -> None:
    for done, (row, candidate) in enumerate(zip(rows, candidates, strict=True), start=1):
        held = candidate.network if through == "extracted" else candidate.model
        row["peak_memory_mb"] = peak_memory_mb(held, batch, _timed(candidate, through))
        on_progress("memory", done, len(candidates))


def _timed(candidate: Candidate, through: str) -> Callable[..., Any]:
    return candidate.network if through == "extracted" else candidate.run


def _call(run: Callable[..., Any], example: Any) -> Callable[[], Any]:
    args, kwargs = arguments_of(example)
    return partial(run, *args, **kwargs)


def _add_operators(rows: list[Row], candidates: Sequence[Candidate], single: Any) -> None:
    for row, candidate in zip(rows, candidates, strict=True):
        row["operators"] = count_operators(_call(candidate.run, single)).total()


def split_of(data: ImageData, split: str) -> tuple[Split, str]:
    """Return the split to measure on, and its name; data may be without test images."""
    if split not in ("test", "val"):
        raise ValueError(f"split={split!r}: allowed are 'test' and 'val'")
    if split == "test" and data.test is not None:
        return data.test, "test"
    return data.val, "val"


def _first_parameter(model: nn.Module) -> nn.Parameter:
    parameter = next(model.parameters(), None)
    if parameter is None:
        raise ValueError(f"this {type(model).__name__} has no parameters; there is nothing to measure")
    return parameter


def _dtype(dtype: torch.dtype | str) -> torch.dtype:
    resolved = _DTYPES.get(dtype) if isinstance(dtype, str) else dtype
    if resolved is None or resolved not in _DTYPES.values():
        raise ValueError(f"dtype={dtype}: allowed are {', '.join(_DTYPES)}")
    return resolved


def _placed(model: nn.Module, device: torch.device, dtype: torch.dtype) -> nn.Module:
    """Return the model itself if it is on that device in that type, else a copy that is."""
    tensors = [*model.parameters(), *model.buffers()]
    same_type = all(tensor.dtype == dtype for tensor in tensors if tensor.is_floating_point())
    if same_type and all(tensor.device == device for tensor in tensors):
        return model
    return copy.deepcopy(model).to(device, dtype)
