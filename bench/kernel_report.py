"""Examine a Triton batch norm without a GPU: `python -m bench.kernel_report`.

Every kernel that LeNet, larger shapes and ResNet's residual blocks launch is compiled ahead of time for several GPUs;
the bytes that it moves are counted in Triton's interpreter; its error is measured there against float64.
`--impl my_bn.py` does the same for your own file. Writes `kernels.md` and `kernels.csv`.
"""

from __future__ import annotations

import argparse
import os
import pickle
import subprocess
import sys
import tempfile
from pathlib import Path

import kernels
from bench import ROOT
from bench.record.operations import LARGER_SHAPES, LENET_SHAPES, RESIDUAL, RESNET_SHAPES, Operation
from bench.triton.kernel_compile import TARGETS, Target, compile_launch
from bench.triton.kernel_launches import CHANNELS_LAST, CONTIGUOUS, Reply, Request
from bench.triton.kernel_tables import COUNTED, Row, csv_page, page
from kernels.registry import label
from kernels.triton_fused import interpreted

BAD_INPUT, FAILED = 2, 1


def cells(shapes: str) -> list[tuple[Operation, str]]:
    """Operations and layouts of "lenet" or "all" shapes; images in channels-last as blocks only."""
    operations = []
    for shape in LENET_SHAPES + (LARGER_SHAPES if shapes == "all" else ()):
        operations += [(Operation(shape, kind), CONTIGUOUS) for kind in ("norm", "block")]
        if len(shape) == 4 and shapes == "all":
            operations.append((Operation(shape, "block"), CHANNELS_LAST))
    for shape in RESNET_SHAPES if shapes == "all" else ():
        operations += [(Operation(shape, RESIDUAL), layout) for layout in (CONTIGUOUS, CHANNELS_LAST)]
    return operations


def ask(request: Request) -> Reply:
    """Examine an implementation in a process with Triton's interpreter."""
    with tempfile.TemporaryDirectory() as folder:
        question, answer = Path(folder) / "request", Path(folder) / "reply"
        question.write_bytes(pickle.dumps(request))
        environment = {**os.environ, "TRITON_INTERPRET": "1"}
        command = [sys.executable, "-m", "bench.triton.kernel_launches", str(question), str(answer)]
        subprocess.run(command, cwd=ROOT, env=environment, check=True)
        reply: Reply = pickle.loads(answer.read_bytes())  # noqa: S301 - of our own making
        return reply


def compile_all(name: str, reply: Reply, targets: list[Target]) -> list[Row]:
    """Compile each launch of the reply for its target."""
    rows = []
    by_name = {target.name: target for target in targets}
    for (operation, layout, pass_name, target), launches in reply.launches.items():
        for launch in launches:
            compiled = compile_launch(launch, by_name[target])
            rows.append(Row(name, operation, layout, pass_name, launch, by_name[target], compiled))
        print(
            f"{name}: compiled {operation.shape_text} {operation.kind}, {layout}, {pass_name}, {target}",
            file=sys.stderr,
        )
    return rows


def parser() -> argparse.ArgumentParser:
    """The command line."""
    made = argparse.ArgumentParser("python -m bench.kernel_report", description=__doc__.partition(":")[0])
    add = made.add_argument
    add("--impl", action="append", metavar="NAME", help="an implementation or FILE.py:FUNCTION; repeatable")
    add("--shapes", choices=("lenet", "all"), default="all", help="LeNet's only, or larger ones too (default: all)")
    add(
        "--targets",
        nargs="+",
        choices=list(TARGETS),
        default=["sm_90", "sm_80", "sm_100", "gfx942"],
        metavar="NAME",
        help=f"GPUs to compile for, out of {', '.join(TARGETS)} (default: all); the first one's table is on the page",
    )
    add("--no-count", action="store_true", help="compile only: seconds in place of minutes")
    add("--results-dir", metavar="DIR", help="default: results/static")
    return made


def main(argv: list[str] | None = None) -> int:
    """Run the command line and return its exit code."""
    options = parser().parse_args(argv)
    specs = options.impl or ["triton_fused"]
    try:
        if interpreted():
            raise ValueError("TRITON_INTERPRET is set: unset it, the interpreter gets a process of its own")
        for spec in specs:
            kernels.load(spec)
    except (ValueError, kernels.UnknownImplementationError, kernels.BrokenImplementationError) as error:
        print(f"python -m bench.kernel_report: error: {error}", file=sys.stderr)
        return BAD_INPUT
    targets = [TARGETS[name] for name in options.targets]
    counted = None if options.no_count else COUNTED
    asked = list(dict.fromkeys([*targets, *([counted] if counted else [])]))
    replies: dict[str, Reply] = {}
    rows: list[Row] = []
    for spec in specs:
        name = label(spec)
        absolute = str(Path(spec).resolve()) if ".py" in spec else spec
        replies[name] = ask(Request(absolute, cells(options.shapes), asked, counted))
        if not replies[name].failure:
            wanted = {key: seen for key, seen in replies[name].launches.items() if TARGETS[key[-1]] in targets}
            replies[name].launches = wanted
            rows += compile_all(name, replies[name], targets)
    rows.sort(key=lambda row: options.targets.index(row.target.name))
    folder = Path(options.results_dir or ROOT / "results" / "static")
    folder.mkdir(parents=True, exist_ok=True)
    for file, text in {
        "kernels.md": page(replies, rows),
        "kernels.csv": csv_page(replies, rows),
    }.items():
        (folder / file).write_text(text, encoding="utf-8")
        print(f"wrote {os.path.relpath(folder / file)}")
    for name, reply in replies.items():
        if reply.failure:
            print(f"python -m bench.kernel_report: error: {name}: {reply.failure}", file=sys.stderr)
    return FAILED if any(reply.failure for reply in replies.values()) else 0


if __name__ == "__main__":
    sys.exit(main())
