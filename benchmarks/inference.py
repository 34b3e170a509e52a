"""Measure inference: the engine that Peewit picks, each engine used by hand, and Keras.

    python benchmarks/inference.py RUN [--seconds 1] [--rounds 5] [--keras PYTHON]

RUN is any run with weights. ``by_hand.py`` is the code a user would write for the exported network.
PYTHON is an interpreter with TensorFlow and Keras, if this one lacks them.

Batches of 1, 32 and 256 images are measured from input to classes and probabilities:

- pixels: uint8 images of the network's size, in memory;
- small: PNG files of the network's size;
- photographs: JPEG files of 640 x 480.

Each engine is a process that runs throughout. In each round the engines take turns in a changing
order while the others are idle, so a slowdown of the machine affects all of them. "peewit" uses one
view, like the other engines; "peewit with TTA" averages six views of the least certain quarter, as
runs trained with ``tta`` do. Predictions are compared: the table shows how many of the 256 images
each engine classifies differently from Peewit.

Finally, cold starts: a new process classifies one image file, with ``peewit predict`` and by hand
in ONNX Runtime; the interpreter alone and with the imports are measured too.

Every single time is written to results/inference-DATE.jsonl, and a table is printed.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import rawlog
from PIL import Image

BATCHES = (1, 32, 256)
TASKS = ("pixels", "small", "photographs")
PHOTOGRAPH = (480, 640)
MODULES = {
    "ONNX Runtime": ("onnxruntime",),
    "OpenVINO": ("openvino",),
    "OpenVINO by default": ("openvino",),
    "Keras predict": ("keras", "tensorflow"),
}
OURS = ("peewit", "peewit with TTA")
BY_HAND = """
import sys
import by_hand
rule = by_hand.Preprocessing(sys.argv[1])
x = rule.scaled(rule.read(sys.argv[2])[None])
shares = by_hand.probabilities(by_hand.onnx_runtime(sys.argv[1])(x))[0]
print(rule.class_names[shares.argmax()], shares.max())
"""
IMPORTS = (
    "import peewit.__main__, peewit.cli.runs, peewit.prediction.engines, "
    "peewit.prediction.predict, peewit.runs.run, onnxruntime"
)


def synthetic(random, count, height, width, channels):
    """Return images that compress about as well as photographs: uint8 (N, H, W, C)."""
    found = np.empty((count, height, width, channels), np.uint8)
    for picture in found:
        coarse = random.integers(0, 256, (6, 6, channels), np.uint8)
        for channel in range(channels):
            smooth = Image.fromarray(coarse[:, :, channel]).resize((width, height), 3)
            noisy = np.asarray(smooth, float) + random.normal(0, 6, (height, width))
            picture[:, :, channel] = noisy.clip(0, 255)
    return found


def prepare(run, folder):
    """Write the network in every format, the images and ``facts.json`` to ``folder``."""
    from peewit.errors import PeewitError
    from peewit.evaluation.inference import confidence_threshold
    from peewit.export import job, keras, onnx, torch

    content, rule = job.contents(run, raw=True), run.preprocessing
    for form in (onnx, torch, keras):
        try:
            form.write(content, folder / "network")
        except PeewitError as error:  # Keras cannot express the fast networks
            print(f"skipped: {error}", file=sys.stderr)
    random = np.random.default_rng(0)
    pixels = synthetic(random, max(BATCHES), rule.height, rule.width, rule.channels)
    np.save(folder / "pixels.npy", pixels)
    files = {"small": (pixels, "png", {})}
    large = synthetic(random, 16, *PHOTOGRAPH, 3)
    large = np.concatenate([large] * (max(BATCHES) // len(large)))
    files["photographs"] = (large, "jpg", {"quality": 90})
    for name, (pictures, kind, options) in files.items():
        (folder / name).mkdir()
        for number, picture in enumerate(pictures):
            file = folder / name / f"{number:03}.{kind}"
            Image.fromarray(picture.squeeze()).save(file, **options)
    facts = rule.to_dict() | {
        "class_names": list(run.class_names),
        "run": str(run.path.resolve()),
        # test-time augmentation for a quarter of these images
        "unsure_below": confidence_threshold(run.logits(pixels)),
    }
    (folder / "facts.json").write_text(json.dumps(facts), encoding="utf-8")


class Engine:
    """A process that measures one engine on request."""

    def __init__(self, python, folder, name):
        script = Path(__file__).with_name("inference_child.py")
        self.name = name
        self.process = subprocess.Popen(
            [str(python), str(script), str(folder), name],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def ask(self, task, batch, seconds):
        """Request one measurement and return it."""
        request = {"task": task, "batch": batch, "seconds": seconds}
        self.process.stdin.write(json.dumps(request) + "\n")
        self.process.stdin.flush()
        line = self.process.stdout.readline()
        if not line:
            raise SystemExit(f"{self.name} failed: see its output above")
        return json.loads(line)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.stdin.close()
        self.process.wait(60)


def engines(folder, run, keras_python):
    """Return the engines that can be measured, with their interpreters."""
    found = {"PyTorch": sys.executable}
    for name, modules in MODULES.items():
        if all(find_spec(module) for module in modules):
            found[name] = sys.executable
    if keras_python:
        found["Keras predict"] = keras_python
    if not (folder / "network.keras").is_file():
        found.pop("Keras predict", None)
    return found | dict.fromkeys(OURS if run.unsure_below else OURS[:1], sys.executable)


def compare(rows):
    """Replace the answers in rows of one round, task and batch by their difference to Peewit's."""
    ours = next(row["answers"] for row in rows if row["engine"] == "peewit")
    for row in rows:
        pairs = list(zip(ours, row.pop("answers"), strict=True))
        row["other_classes"] = sum(mine[0] != theirs[0] for mine, theirs in pairs)
        row["largest_difference"] = max(
            (abs(mine[1] - theirs[1]) for mine, theirs in pairs if mine[0] == theirs[0]), default=0
        )


def cold(run, folder, rounds):
    """Yield the seconds of new processes that classify one image file, interleaved."""
    picture = str(folder / "photographs" / "000.jpg")
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parent)}
    commands = {
        "peewit predict": ["-m", "peewit", "predict", str(run.path), picture],
        "interpreter and imports": ["-c", IMPORTS],
        "interpreter": ["-c", "pass"],
    }
    if find_spec("onnxruntime"):
        commands["ONNX Runtime by hand"] = ["-c", BY_HAND, str(folder), picture]
    for turn in range(rounds + 1):
        for name, command in commands.items():
            began = time.perf_counter()
            subprocess.run(
                [sys.executable, *command], check=True, stdout=subprocess.DEVNULL, env=environment
            )
            taken = time.perf_counter() - began
            if turn:  # the first fills the system's file cache
                yield {"kind": "cold", "command": name, "seconds": taken}


def rounds(folder, run, arguments):
    """Yield the rows of all rounds; the engines take turns, so a slow minute affects all."""
    with ExitStack() as stack:
        all_engines = [
            stack.enter_context(Engine(python, folder, name))
            for name, python in engines(folder, run, arguments.keras).items()
        ]
        for number in range(arguments.rounds):
            for task in TASKS:
                for batch in BATCHES:
                    # a new order each time, so that none always follows the same engine
                    order = np.random.default_rng((number, batch)).permutation(len(all_engines))
                    rows = []
                    for engine in (all_engines[at] for at in order):
                        found = engine.ask(task, batch, arguments.seconds)
                        place = {"task": task, "batch": batch, "round": number}
                        rows.append({"kind": "answers", "engine": engine.name, **place, **found})
                    compare(rows)
                    yield from rows


def table(rows):
    """Return the lines of the tables: median time per call and the throughput it implies."""
    lines = []
    answers = [row for row in rows if row["kind"] == "answers"]
    names = list(dict.fromkeys(row["engine"] for row in answers))
    best_by_hand = {}
    for task in TASKS:
        lines += ["", f"{task:22}" + "".join(f"{f'batch of {batch}':>22}" for batch in BATCHES)]
        for name in sorted(names, key=lambda name: name in OURS):
            cells = []
            for batch in BATCHES:
                mine = [
                    row
                    for row in answers
                    if (row["task"], row["batch"], row["engine"]) == (task, batch, name)
                ]
                median = float(np.median([seconds for row in mine for seconds in row["taken"]]))
                cells.append(f"{median * 1e3:8.2f} ms {batch / median:8,.0f}/s".rjust(22))
                if name not in OURS and name != "OpenVINO by default":
                    key = (task, batch)
                    best_by_hand[key] = min(median, best_by_hand.get(key, median))
                if name == "peewit":
                    best_by_hand[task, batch] /= median
            lines.append(f"{name:22}" + "".join(cells))
        ratios = "".join(f"{best_by_hand[task, batch]:.2f}".rjust(22) for batch in BATCHES)
        lines.append(f"{'best by hand / peewit':22}{ratios}")
    lines.append("")
    for name in names:
        mine = [row for row in answers if row["engine"] == name and row["batch"] == max(BATCHES)]
        others = {row["task"]: row["other_classes"] for row in mine}
        lines.append(f"{name}: classified differently from peewit, of {max(BATCHES)}: {others}")
    cold_rows = [row for row in rows if row["kind"] == "cold"]
    for name in dict.fromkeys(row["command"] for row in cold_rows):
        seconds = [row["seconds"] for row in cold_rows if row["command"] == name]
        lines.append(f"cold, {name}: median {np.median(seconds):.2f} s, best {min(seconds):.2f} s")
    return lines


def main():
    """Measure everything, write the log and print the tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("run", type=Path)
    parser.add_argument("--seconds", type=float, default=1.0, help="per engine and round")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--keras", type=Path, metavar="PYTHON")
    parser.add_argument(
        "--dry-run", action="store_true", help="run everything once and write no log"
    )
    arguments = parser.parse_args()
    if arguments.dry_run:
        arguments.seconds, arguments.rounds = 0.0, 1
    from peewit.runs.run import Run

    run, rows, log = Run.open(arguments.run), [], rawlog.today("inference")

    def keep(row):
        rows.append(row)
        if not arguments.dry_run:
            rawlog.append(log, row)

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        keep({"kind": "machine", "model": run.recipe.model, **rawlog.machine()})
        prepare(run, folder)
        for row in rounds(folder, run, arguments):
            keep(row)
        for row in cold(run, folder, arguments.rounds):
            keep(row)
    print("\n".join(table(rows)))


if __name__ == "__main__":
    main()
