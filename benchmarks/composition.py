"""Try what people do to a model, before and after `adapt_`, on every axis: the table of docs/composition.md.

    OMP_NUM_THREADS=1 python benchmarks/composition.py && python benchmarks/tables.py

The operations are those of tests/composition/matrix.py. About 10 minutes on two cores. Ends with an error where a
sub-network computes something wrong, and writes nothing then.
"""

from __future__ import annotations

import logging
import sys
from typing import Any

import torch
from provenance import ROOT, write_result

sys.path.append(str(ROOT / "tests" / "composition"))
from matrix import AXES, MOMENTS, OPERATIONS, outcome  # type: ignore[import-not-found]


def main() -> None:
    torch.set_num_threads(1)
    logging.getLogger("torch").setLevel(logging.ERROR)
    found: dict[str, Any] = {}
    for operation in OPERATIONS:
        print(operation.name, flush=True)
        found[operation.name] = {
            axis: {
                moment: {family: outcome(operation, family, axis, moment) for family in operation.families}
                for moment in MOMENTS
            }
            for axis in AXES
        }
    write_result("results/composition.json", {"operations": found})


if __name__ == "__main__":
    main()
