"""What share of whole architectures is prunable, what keeps the rest, and whether pruning them is right.

    python benchmarks/coverage.py [--only REGEX] [--exporter torchscript|dynamo|NAME] [--zoo PATH] [--record]

A row is a family of networks with random weights as one exporter writes it, from tests/architectures; with --zoo or
$ONNXPRUNE_ZOO, a second table holds the zoo's trained models. Each is canonicalised, analysed, pruned by 30 % random
units of every group, and held against the oracle. The share is 1 - MACs (parameters) at every group's min_keep over
those of the model. Needs the extras torch and sklearn.
Exit code 1 where the oracle does not hold, parameters do not fall as predicted, or a family's share is under what its
definition promises.
"""

from __future__ import annotations

import argparse
import os
import re
import sys
import time
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from recording import ZOO_VARIABLE, machine, machines_text, markdown_table, record, zoo_path

if TYPE_CHECKING:
    from examine import Examination

SECTION = "coverage"
TESTS = Path(__file__).resolve().parents[1] / "tests"
HEAD = ("exporter", "nodes", "groups", "MACs", "params", "what keeps the rest of the MACs", "oracle error", "seconds")
ZOO = (
    "ad01_toycar_ae/model", "dtln_denoise/model_1", "dtln_denoise/model_2", "espcn_superres/model",
    "fastestdet_coco/model", "kws_dscnn_tiny/model", "magika_v3_3/model", "minilm_l6/model", "mnist_cntk/model",
    "mobilenetv1_025_128/model", "ppocr_cls_v2/model", "resnet20/model", "resnet20/model_dynamo", "resnet56/model",
    "resnet56/model_dynamo", "resnet8_keras/model", "silero_vad/model", "sinet_portrait/model", "skl_mlp_digits/model",
    "squeezenet11/model", "ultraface_rfb320/model", "unet_sed/model",
)  # fmt: skip
REASONS, LONGEST, LEAST = 3, 60, 0.005


@dataclass(frozen=True)
class Row:
    """One model. macs, params: prunable shares; promised: the least share of MACs. frozen: the share of MACs that each
    cause keeps, largest first. error: of the oracle in units of its tolerance. failed: why the row does not hold.
    """

    name: str
    exporter: str
    nodes: int
    groups: int
    macs: float
    params: float
    frozen: Mapping[str, float] = field(default_factory=dict)
    error: float = 0.0
    seconds: float = 0.0
    failed: str = ""


def main() -> int:
    """Examines what is asked for, prints the tables, and says whether all rows hold."""
    asked = _arguments()
    for folder in (TESTS / "architectures", TESTS / "oracle"):
        sys.path.append(str(folder))
    warnings.simplefilter("ignore")  # exporters warn about themselves
    facts = machine(1)
    families = list(_families(asked))
    trained = list(_trained(asked))
    text = "\n\n".join([machines_text([{"machine": facts}]), *_tables(families, trained)])
    print(text)
    if asked.record:
        record(SECTION, f"## Coverage\n\nBy `python benchmarks/coverage.py --record`.\n\n{text}")
    return int(any(row.failed for row in (*families, *trained)))


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", metavar="REGEX", default="", help="only families and models whose name has this")
    parser.add_argument("--exporter", help="only what this exporter writes; zoo: the trained models alone")
    parser.add_argument("--zoo", help=f"folder with the zoo of trained models; default: ${ZOO_VARIABLE}")
    parser.add_argument("--record", action="store_true", help="put the tables into RESULTS.md")
    return parser.parse_args()


def _families(asked: argparse.Namespace) -> Iterator[Row]:
    """The families that PyTorch exports, then those of other converters."""
    from all_families import FAMILIES
    from examine import examine
    from families_foreign import FAMILIES as FOREIGN
    from families_sklearn import FAMILIES as SKLEARN
    from family import export

    for family in FAMILIES:
        for exporter in family.exporters:
            if _asked_for(asked, family.name, exporter):
                start = time.perf_counter()
                yield row_of(family.name, exporter, examine(*export(family, exporter)), family.share, start)
    for foreign in (*FOREIGN, *SKLEARN):
        if _asked_for(asked, foreign.name, foreign.exporter):
            start = time.perf_counter()
            yield row_of(foreign.name, foreign.exporter, examine(*foreign.build()), foreign.share, start)


def _trained(asked: argparse.Namespace) -> Iterator[Row]:
    """The zoo's models with their real weights and inputs from their own data."""
    if not (asked.zoo or os.environ.get(ZOO_VARIABLE)):
        return
    from examine import examine_model
    from zoo_models import calls_of, canonical_model

    zoo = zoo_path(asked.zoo)
    for name in ZOO:
        if _asked_for(asked, name, "zoo"):
            start = time.perf_counter()
            model = canonical_model(zoo / f"{name}.onnx")
            found = examine_model(model, calls_of(zoo, name.split("/")[0], model))
            producer = model.header.producer_name.partition(" ")[0]
            yield row_of(name.removesuffix("/model"), producer, found, 0.0, start)


def _asked_for(asked: argparse.Namespace, name: str, exporter: str) -> bool:
    if not re.search(asked.only, name, re.IGNORECASE) or asked.exporter not in (None, exporter):
        return False
    print(f"{name} {exporter} ...", file=sys.stderr, flush=True)
    return True


def row_of(name: str, exporter: str, found: Examination, promised: float, start: float) -> Row:
    """What an examination that began at `start` (`time.perf_counter`) says, and what of it does not hold."""
    before, after, predicted = found.params
    failed = found.failure
    if not failed and after != predicted:
        failed = f"{after} parameters are left, {predicted} were predicted"
    if not failed and found.macs_share < promised:
        failed = f"{found.macs_share:.3f} of the MACs are prunable, {promised} are promised"
    if not failed and found.groups and not found.moved:
        failed = "pruning moves no output: the weights are dead"
    return Row(
        name, exporter, found.nodes, found.groups, found.macs_share, found.params_share if before else 0.0,
        found.frozen, found.error, time.perf_counter() - start, failed,
    )  # fmt: skip


def _tables(families: Sequence[Row], trained: Sequence[Row]) -> Iterator[str]:
    for what, rows in (("family", families), ("trained model", trained)):
        if rows:
            yield table(what, rows)
            yield summary(rows)


def table(what: str, rows: Sequence[Row]) -> str:
    """A line a row; what does not hold stands in bold where the error would."""
    return markdown_table((what, *HEAD), [_line(row) for row in rows])


def _line(row: Row) -> list[str]:
    counts = [str(row.nodes), str(row.groups), f"{row.macs:.1%}", f"{row.params:.1%}"]
    error = f"**{row.failed}**" if row.failed else f"{row.error:.2g}"
    return [row.name, row.exporter, *counts, reasons_text(row.frozen), error, f"{row.seconds:.1f}"]


def reasons_text(frozen: Mapping[str, float]) -> str:
    """The largest causes with the share of MACs that each keeps; a model without MACs has causes without a share."""
    shown = [(reason, share) for reason, share in frozen.items() if share >= LEAST][:REASONS]
    if not any(frozen.values()):
        return "; ".join(shortened(reason) for reason in list(frozen)[:REASONS])
    return "; ".join(f"{shortened(reason)} {share:.1%}" for reason, share in shown)


def shortened(reason: str) -> str:
    """At most LONGEST characters."""
    return reason if len(reason) <= LONGEST else reason[: LONGEST - 3].rstrip() + "..."


def summary(rows: Sequence[Row]) -> str:
    """How many rows hold, and how many reach 90 %."""
    holding, wide = sum(not row.failed for row in rows), sum(row.macs >= 0.9 for row in rows)
    names = len({row.name for row in rows})
    return (
        f"{names} names in {len(rows)} rows; {holding} hold; in {wide} of them at least 90 % of the MACs are prunable."
    )


if __name__ == "__main__":
    sys.exit(main())
