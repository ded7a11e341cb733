"""What a report is made of: a run folder, a file that measuring wrote, or policies in memory."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from pliant.core.files import read_text
from pliant.measure.policy_table import PolicyTable
from pliant.report.content import ReportError, Run, read_run, read_table_file
from pliant.report.gated import Gated, read_gated
from pliant.report.policies import Policies, read_policies

__all__ = ["Source", "find"]

PathLike = str | os.PathLike[str]


@dataclass(frozen=True, kw_only=True)
class Source:
    """What was found.

    Attributes:
        run: what was measured of every sub-network, and how it was trained; none = there is no table.
        policies: what was measured of policies; none = there are none.
        gated: what was measured of a gate; none = there is none.
        page: where the page goes unless someone says otherwise; none = that has to be said.
        is_folder: a whole run folder, whose images bear the same names in every folder.
    """

    run: Run | None = None
    policies: Policies | None = None
    gated: Gated | None = None
    page: Path | None = None
    is_folder: bool = False


def find(given: PathLike | PolicyTable, baselines: Sequence[PathLike]) -> Source:
    """Read what a person gave.

    Raises:
        ReportError: there is nothing to report, or a baseline cannot be compared.
        ValueError: a file is there but cannot be read.
    """
    if isinstance(given, PolicyTable):
        source = Source(policies=read_policies(given))
    elif Path(given).is_file():
        source = _file(Path(given), baselines)
    else:
        source = _folder(Path(given), baselines)
    if baselines and source.run is None:
        raise ReportError("baselines are compared with table.json, and there is none: leave them out")
    return source


def _folder(folder: Path, baselines: Sequence[PathLike]) -> Source:
    file, gate_file = folder / "policies.json", folder / "gate.json"
    policies = read_policies(file) if file.is_file() else None
    gated = read_gated(gate_file) if gate_file.is_file() else None
    # Where all are missing, reading the run says so.
    needed = policies is None and gated is None
    run = read_run(folder, baselines) if needed or (folder / "table.json").exists() else None
    return Source(run=run, policies=policies, gated=gated, page=folder / "report.html", is_folder=True)


def _file(path: Path, baselines: Sequence[PathLike]) -> Source:
    beside = path.with_name(f"{path.name}.table.json")  # of a file that was measured
    if beside.is_file():
        path = beside
    try:
        document = json.loads(read_text(path, "measurement", ReportError))
    except json.JSONDecodeError:
        document = None
    keys = set(document) if isinstance(document, dict) else set()
    page = path.with_suffix(".html")
    if {"gated", "static"} <= keys:
        return Source(gated=read_gated(path), page=page)
    if {"rows", "policies"} <= keys:
        return Source(policies=read_policies(path), page=page)
    if {"rows", "info"} <= keys:
        if path.name == "table.json":
            return Source(run=read_run(path.parent, baselines), page=path.with_name("report.html"), is_folder=True)
        return Source(run=read_table_file(path, baselines), page=page)
    raise ReportError(f"{path} is neither a table nor policies nor of a gate, the files that pliant measure writes")
