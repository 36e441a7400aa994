"""Publish a run of yours: `python -m bench.publish [FOLDER]`.

Takes the newest run of the main job in the folder, and the newest inference of the trained network, worlds of
processes, training of another network, run of each study, of the lesson and of the calibration that are there. Each
must be complete, measured on a clean commit and an idle machine, and not with `--quick`; a training of another network,
which takes hours, only with `builtin`, A/A, without batch norm, and with whom `--impl` chose. Others are refused with
the reason, and an earlier published version of them stays. Then pages, index and README are rebuilt.

Exit codes: 0 everything is published, 1 some of it was refused, 2 nothing could be read or written.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import torch

import kernels
from bench import ROOT, calibrate, report
from bench.measure import environment, worlds
from bench.measure.inference import BATCHES
from bench.record.labels import AA, BASELINE, PLAIN
from bench.record.load import busy_others
from bench.record.networks import LENET, by_network, network_of, title_of
from bench.record.operations import operation_of, operations, standard_passes
from bench.record.records import FILE, OK, Record, RecordsError, read_all, write
from bench.record.runs import main_run, newest, of_main, of_one_run
from bench.studies.registry import studies
from bench.studies.study import Point, Study
from bench.view.model_records import by_model, choose, survey
from bench.view.model_records import part as part_of
from bench.view.tables import MOST_OTHERS, counted
from models import deployed
from models.alternatives.registry import ALTERNATIVES


@dataclass(frozen=True)
class Part:
    """A part of the results that is published as a whole or not at all.

    Attributes:
        name: Shown to the user.
        records: Of one run.
        missing: Measurements that the run lacks.
        kinds: Kinds of records that it replaces.
    """

    name: str
    records: list[Record]
    missing: list[str]
    replaces: Callable[[Record], bool]

    def why_not(self) -> str | None:
        """None, or in one line why it is not published."""
        conditions = newest(self.records)["conditions"]
        if conditions["quick"]:
            return "measured with --quick: a smoke run, no result"
        if conditions["commit"] in (None, "unknown"):
            return "measured outside a git checkout, so its code is unknown"
        if conditions["dirty"]:
            return f"measured with uncommitted changes on {conditions['commit']}: commit them and measure again"
        if self.missing:
            first = ", ".join(self.missing[:3])
            return f"incomplete, {counted(len(self.missing), 'measurement')} missing ({first}, ...): --resume adds them"
        return why_busy(self.records)


def why_busy(records: list[Record]) -> str | None:
    """None, or one line on how busy other programs kept the machine."""
    states = [(r["state_before"], r["state_after"]) for r in records if "state_before" in r and "state_after" in r]
    others = [busy for before, after in states if (busy := busy_others(before, after)) is not None]
    if others and median(others) > MOST_OTHERS:
        return f"measured on a busy machine: other programs kept {median(others):.2f} processors busy"
    return None


def parts(records: list[Record]) -> Iterator[Part]:
    """All publishable parts of a folder's records."""
    run = main_run(records)
    if "latency" in run:
        yield Part("the main job", [r for kind in run.values() for r in kind], missing_of_main(run), of_main)
    for network, epochs in by_network([r for r in records if r["kind"] == "epoch"]).items():
        if network != LENET:
            own = of_one_run(epochs)
            missing = missing_of_training(own, [BASELINE, AA, PLAIN, *sorted({r["implementation"] for r in own})])
            yield Part(f"training of {title_of(own[-1])}", own, missing, of_training(network))
    for study in studies():
        if own := study.run(records):
            yield Part(f"the study {study.name}", own, missing_of_study(study, own), of_study(study.name))
    networks = by_model([r for r in records if r["kind"] == "model"])
    for name, of_network in networks.items():
        own = choose(of_network)
        yield Part(f"the network {name}", own, missing_of_network(own), of_network_called(name))
    if own := of_one_run([r for r in records if r["kind"] == "inference"]):
        yield Part("inference of the trained network", own, missing_of_inference(own), of_kinds("inference"))
    if own := of_one_run([r for r in records if r["kind"] == "distributed"]):
        yield Part("the worlds of processes", own, missing_of_worlds(own), of_kinds("distributed"))
    for name, wanted in (("calibration", calibrate.COMPARISONS), ("lesson", None)):
        own = [r for r in records if r["kind"] == name]
        if own:
            last = [r for r in own if r["run"] == newest(own)["run"]]
            few = [f"{wanted - len(last)} comparisons"] if wanted and len(last) < wanted else []
            yield Part(f"the {name}", last, few, of_kinds(name))


def of_kinds(*kinds: str) -> Callable[[Record], bool]:
    """Whether a record is of one of these kinds."""
    return lambda record: record["kind"] in kinds


def of_training(network: str) -> Callable[[Record], bool]:
    """Whether a record is one of a training of that network."""
    return lambda record: bool(record["kind"] == "epoch" and network_of(record) == network)


def of_study(name: str) -> Callable[[Record], bool]:
    """Whether a record is one of that study."""
    return lambda record: bool(record["kind"] == "study" and record["key"]["study"] == name)


def of_network_called(name: str) -> Callable[[Record], bool]:
    """Whether a record is one of that network."""
    return lambda record: bool(record["kind"] == "model" and record["key"]["model"] == name)


def missing_of_network(records: list[Record]) -> list[str]:
    """What the run of a network lacks: who has a step has all blocks, A/A among them."""
    listed = survey(records)
    if listed is None:
        return ["its batch norms"]
    stepped = {r["implementation"] for r in part_of(records, "step")}
    have = {(operation_of(r["key"]), r["implementation"]) for r in part_of(records, "block")}
    missing = [f"step of {name}" for name in (BASELINE, AA) if name not in stepped]
    wanted = itertools.product(map(operation_of, listed["uses"]), sorted(stepped | {BASELINE, AA}))
    return missing + [f"{operation.name}, {name}" for operation, name in wanted if (operation, name) not in have]


def missing_of_main(run: dict[str, list[Record]]) -> list[str]:
    """Measurements that a run of the main job lacks, over all implementations in `kernels/` and all alternatives."""
    have = {kind: {r["implementation"] for r in records} for kind, records in run.items()}
    everyone = _everyone()
    device = newest(run["latency"])["conditions"]["device"]
    cells = {(operation_of(r["key"]), r["key"]["pass"], r["implementation"]) for r in run["latency"]}
    missing = [
        f"{operation.name}, {pass_name}, {name}"
        for operation in operations(gpu=torch.device(device).type == "cuda")
        for pass_name, name in itertools.product(standard_passes(operation), everyone)
        if (operation, pass_name, name) not in cells
    ]
    others = [alternative.name for alternative in ALTERNATIVES]
    missing += [f"step of {name}" for name in (*everyone, PLAIN, *others) if name not in have.get("step", set())]
    epochs = run.get("epoch", [])
    missing += missing_of_training(epochs, [*everyone, PLAIN])
    missing += missing_of_training([r for r in epochs if r["key"]["seed"] == 0], others)
    profiled = {(r["key"]["of"], r["implementation"]) for r in run.get("profile", [])}
    able = {r["implementation"] for r in run.get("profile", []) if r["key"]["of"] == "step" and r["status"] == OK}
    for of, names in (("step", {*everyone, PLAIN}), ("memory", able), ("scaling", set(everyone))):
        missing += [f"{of} profile of {name}" for name in sorted(names - {AA}) if (of, name) not in profiled]
    return missing


def missing_of_inference(records: list[Record]) -> list[str]:
    """What a run of the trained network lacks: each implementation and each way at each batch size."""
    have = {(r["key"]["batch"], r["implementation"]) for r in records}
    wanted = itertools.product(BATCHES, (*_everyone(), *deployed.names()))
    return [f"inference of {batch} with {name}" for batch, name in wanted if (batch, name) not in have]


def missing_of_worlds(records: list[Record]) -> list[str]:
    """The numbers of processes that a run lacks, of those that are measured unasked, and those that failed."""
    device, cores = torch.device(newest(records)["conditions"]["device"]), newest(records)["conditions"]["cores"]
    done = {r["key"]["processes"] for r in records if r["status"] == OK}
    wanted = {*worlds.usual(device, cores, quick=False), *(r["key"]["processes"] for r in records)}
    return [f"{processes} processes" for processes in sorted(wanted - done)]


def _everyone() -> list[str]:
    """The rows of a whole run."""
    return [BASELINE, AA, *(name for name in kernels.names() if name != BASELINE)]


def missing_of_training(epochs: list[Record], names: list[str]) -> list[str]:
    """Whose training, of these, a run lacks."""
    return [f"training with {name}" for name in dict.fromkeys(names) if not _trained(epochs, name)]


def _trained(epochs: list[Record], name: str) -> bool:
    """Whether each training has all epochs, or a reason why it ended early."""
    seeds = {r["key"]["seed"] for r in epochs}
    for seed in seeds:
        own = [r for r in epochs if r["implementation"] == name and r["key"]["seed"] == seed]
        if not own or (all(r["status"] == OK for r in own) and len(own) < own[0]["key"]["epochs"]):
            return False
    return bool(seeds)


def missing_of_study(study: Study, records: list[Record]) -> list[str]:
    """The points that a study lacks."""
    have = [{name: r["key"].get(name) for name in r["key"]} for r in records]
    norms = {r["implementation"] for r in records} - {PLAIN}
    lacking = []
    for norm in sorted(norms):
        points = study.points(norm, False)
        lacking.append([_words(point) for point in points if not any(point.items() <= key.items() for key in have)])
    return min(lacking, key=len, default=["everything"])


def _words(point: Point) -> str:
    return " ".join(f"{name} {value}" for name, value in point.items())


def machine_of(records: list[Record]) -> str:
    """The name of the folder that records are published in, from their own conditions."""
    c = newest(records)["conditions"]
    kind = c["machine"].partition("-")[0]
    return environment.machine_name(kind, c["device_name"], c.get("processor") or "", c["cores"])


def publish(folder: Path, results: Path) -> tuple[list[str], list[str]]:
    """Copy what may be published of a folder.

    Args:
        folder: One machine's own runs.
        results: Where `published/` is.

    Returns:
        What was published, and what was refused and why, a line each.

    Raises:
        RecordsError: The folder has no records or an invalid one, or can't be written.
    """
    records = read_all(folder)
    accepted, refused = [], []
    for part in parts(records):
        if reason := part.why_not():
            refused.append(f"{part.name}: {reason}")
        else:
            accepted.append(part)
    if not accepted:
        return [], refused
    target = results / report.PUBLISHED / machine_of(accepted[0].records)
    kept = read_all(target) if (target / FILE).is_file() else []
    for part in accepted:
        kept = [r for r in kept if not part.replaces(r)]
    lines = [json.dumps(record) for record in [*kept, *(r for part in accepted for r in part.records)]]
    target.mkdir(parents=True, exist_ok=True)
    write(target / FILE, "\n".join(lines) + "\n")
    report.build(target)
    return [f"{part.name}: {os.path.relpath(target)}" for part in accepted], refused


def main(arguments: list[str] | None = None) -> int:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m bench.publish", description=__doc__.partition(":")[0])
    parser.add_argument(
        "folder", nargs="?", type=Path, help="a machine's folder in results/ (default: that of this CPU)"
    )
    folder = parser.parse_args(arguments).folder
    results = ROOT / "results"
    try:
        published, refused = publish(folder or results / environment.machine(torch.device("cpu")), results)
        if published:
            report.build_index(results)
            report.build_readme(ROOT / "README.md", results)
    except RecordsError as error:
        print(f"python -m bench.publish: error: {error}", file=sys.stderr)
        return 2
    for line in published:
        print(f"published {line}")
    for line in refused:
        print(f"refused {line}", file=sys.stderr)
    if not published and not refused:
        print("refused: the folder has no latencies, study, lesson or calibration to publish", file=sys.stderr)
    return 0 if published and not refused else 1


if __name__ == "__main__":
    raise SystemExit(main())
