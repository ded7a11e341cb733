"""Files of `pliant export` as arguments of commands."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pliant.cli.networks import write_table
from pliant.cli.show import headline, note, progress_bar, show
from pliant.runtime.runtimes import RUNTIMES

__all__ = ["RUNTIME_NAMES", "is_exported", "measure_exported"]

RUNTIME_NAMES = f"{', '.join(RUNTIMES)}."


def is_exported(path: Path) -> bool:
    """Whether a path has an ending that `pliant export` writes."""
    return path.suffix.lower() in {runtime.ending for runtime in RUNTIMES.values()} and not path.is_dir()


def measure_exported(
    path: Path,
    data: str | None,
    *,
    runtime: str | None,
    subnets: Sequence[str] | None,
    beside: Sequence[Path],
    batch_size: int,
    as_json: bool,
    **how: Any,
) -> None:
    """Measure a file, write the table beside it and show it; the options are those of `measure_file`.

    Raises:
        ValueError: as `measure_file` does, or no data is named for a file of images.
    """
    from pliant.data import load_data
    from pliant.measure.file import measure_file
    from pliant.runtime import load

    info = load(path, runtime=runtime).info
    if data is None and "image_size" in info:
        raise ValueError(f"{path} does not say what it was trained on: name the data with --data")
    options = info.get("data_options") or {}
    images = None if data is None else load_data(data, image_size=info.get("image_size"), **options)
    with progress_bar() as on_progress:
        table = measure_file(
            path,
            images,
            runtime=runtime,
            subnets=subnets,
            beside=beside,
            batch_size=info.get("batch") if batch_size == 1 else batch_size,
            on_progress=on_progress,
            **how,
        )
    written = write_table(table, path)
    show(table.rows, as_json=as_json, title=f"{headline(table.info)}, {table.info['runtime']}")
    for what in ("memory", "energy"):
        if why := table.info.get(f"no_{what}"):
            note(f"No {what}: {why}.")
    note(f"Written to {written}. Next: pliant pick {path} --latency-ms ...")
