"""What the exits of an MSDNet cost, as its papers count and as it runs, beside what is printed.

    python benchmarks/msdnet_sizes.py

The network is the MSDNet with seven exits for CIFAR-100 of IMTA, Table 1. `paper_gmacs` counts as that table: ReLUs,
pools and all earlier classifiers are in it. `gmacs` is what runs when a pass ends at the exit: multiply-accumulates
alone, and no earlier classifier. `distance_percent` is that of `paper_gmacs` from the printed figure. Everything is
counted on PyTorch's meta device, without weights. Writes results/msdnet_sizes.json.
"""

from __future__ import annotations

import argparse
from typing import Any

import torch
from provenance import write_result

import pliant
from pliant.measure.describe import describe

MODEL = "pliant:msdnet_cifar100_k7"
IMAGE_SIZE = 32
# IMTA, Table 1: 10^9 multiply-adds and 10^6 parameters of each exit.
PRINTED_GMACS = (0.00686, 0.01435, 0.02729, 0.04845, 0.07643, 0.1089, 0.1373)
PRINTED_PARAMS_M = (0.3, 0.65, 1.11, 1.73, 2.38, 3.05, 4.0)


def count() -> list[dict[str, Any]]:
    """One row an exit."""
    with torch.device("meta"):
        model = pliant.adapt_(pliant.create_model(MODEL), pliant.Exits()).eval()
    rows = []
    for row, gmacs, params_m in zip(describe(model, IMAGE_SIZE).rows, PRINTED_GMACS, PRINTED_PARAMS_M, strict=True):
        counted = {key: row[key] for key in ("gmacs", "paper_gmacs")}
        counted |= {"printed_gmacs": gmacs, "distance_percent": round(100 * (row["paper_gmacs"] / gmacs - 1), 2) + 0.0}
        parameters = {key: row[key] for key in ("params_m", "paper_params_m")}
        rows.append({"subnet": row["subnet"], **counted, **parameters, "printed_params_m": params_m})
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", default="results/msdnet_sizes.json")
    arguments = parser.parse_args()
    rows = count()
    for row in rows:
        print(row)
    write_result(arguments.out, {"model": MODEL, "image_size": IMAGE_SIZE, "rows": rows})


if __name__ == "__main__":
    main()
