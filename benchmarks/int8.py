"""Measure int8 exports: accuracy, size and speed before and after (ONNX Runtime, NNCF).

usage: python benchmarks/int8.py RUN... --data cifar-10-python.tar.gz [--log FILE]
       python benchmarks/int8.py --table [--log FILE]

For each RUN and format this does what `peewit export RUN --to FORMAT --int8` does: quantise the
network with value ranges from training images, then test both files in their own runtime on the
test images. Each export appends one line to the log.
"""

import argparse
import tempfile
from pathlib import Path

import rawlog

from peewit import Run
from peewit.export import int8


def measure(folder, to, data):
    """Export once and return the log row."""
    run = Run.open(folder)
    with tempfile.TemporaryDirectory() as place:
        found = int8.export(run, to, out=Path(place) / f"model.{'xml' if to == 'openvino' else to}",
                            data=data)  # fmt: skip
    row = {"model": run.recipe.model, "epochs": run.epochs, "to": to}
    for name, judged in (("before", found.before), ("after", found.after)):
        row |= {
            f"{name}_accuracy": judged.accuracy,
            f"{name}_seconds": judged.seconds,
            f"{name}_bytes": judged.bytes,
        }
    return row | {"pictures": found.pictures, **rawlog.machine()}


def table(rows):
    """Return the Markdown table."""
    lines = [
        "| network | format | accuracy before | after | MB before | after | speedup |",
        "|---|---|---:|---:|---:|---:|---:|",
    ]
    for row in rows:
        lines.append(
            f"| {row['model']} | {row['to']} | {row['before_accuracy']:.2%} "
            f"| {row['after_accuracy']:.2%} | {row['before_bytes'] / 1e6:.2f} "
            f"| {row['after_bytes'] / 1e6:.2f} "
            f"| {row['before_seconds'] / row['after_seconds']:.1f} |"
        )
    return "\n".join(lines)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("runs", nargs="*", metavar="RUN")
    parser.add_argument("--data", help="CIFAR-10 archive or folder")
    parser.add_argument("--log", type=Path, help="(default: today's; with --table the newest)")
    parser.add_argument("--table", action="store_true", help="print the table and run nothing")
    options = parser.parse_args()
    if not options.table:
        if not (options.runs and options.data):
            parser.error("give RUN and --data, or --table")
        options.log = options.log or rawlog.today("int8")
        for folder in options.runs:
            for to in int8.TOOLS:
                rawlog.append(options.log, measure(folder, to, options.data))
    print(table(rawlog.read(options.log or rawlog.newest("int8"))))


if __name__ == "__main__":
    main()
