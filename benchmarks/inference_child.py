"""Measure one engine in its own process, on request from ``inference.py``.

    python inference_child.py FOLDER ENGINE

FOLDER is what ``inference.py`` has prepared. Each line on stdin is a request in JSON, each line on
stdout its result. Engines used by hand need no Peewit, only their own package.
"""

import json
import sys
import time
from pathlib import Path

import by_hand
import numpy as np

WARM_UP = 3


def used_by_hand(folder, name):
    """Return a function from task and files or pixels to class names and probabilities."""
    rule, forward = by_hand.Preprocessing(folder), by_hand.ENGINES[name](folder)

    def answers(images):
        shares = by_hand.probabilities(forward(rule.scaled(images)))
        return [
            (rule.class_names[best], float(shares[at, best]))
            for at, best in enumerate(shares.argmax(1))
        ]

    def work(task, given):
        if task != "pixels":
            given = np.stack([rule.read(path) for path in given])
        return answers(given)

    return work


def peewit(folder, tta):
    """Return the same for the engine that Peewit picks for the number of images."""
    from dataclasses import replace

    from peewit.prediction.engines import fastest
    from peewit.prediction.predict import predict
    from peewit.runs.run import Run

    facts = json.loads((Path(folder) / "facts.json").read_text(encoding="utf-8"))
    run = replace(Run.open(facts["run"]), unsure_below=facts["unsure_below"] * tta)
    engines = {}

    def work(task, given):
        # as `peewit predict` does
        size = 1 if len(given) < 32 else 64
        if size not in engines:
            engines[size] = fastest(run, size)
        engine = engines[size]
        work.engine = engine.name
        if task != "pixels":
            return [answer.labels[0] for answer in predict(engine, given)]
        shares = engine.probabilities(given)
        return [
            (run.class_names[best], float(shares[at, best]))
            for at, best in enumerate(shares.argmax(1))
        ]

    return work


def measure(work, task, given, seconds):
    """Return the predictions and the seconds of each call, repeated for about ``seconds``."""
    answers = [work(task, given) for _ in range(WARM_UP)][-1]
    taken, end = [], time.perf_counter() + seconds
    while not taken or time.perf_counter() < end:
        began = time.perf_counter()
        work(task, given)
        taken.append(time.perf_counter() - began)
    return answers, taken


def main():
    """Serve requests until stdin is closed."""
    folder, name = Path(sys.argv[1]), sys.argv[2]
    if name.startswith("peewit"):
        work = peewit(folder, tta=name != "peewit")
    else:
        work = used_by_hand(folder, name)
    pixels = np.load(folder / "pixels.npy")
    for line in sys.stdin:
        request = json.loads(line)
        task, batch = request["task"], request["batch"]
        files = [] if task == "pixels" else sorted((folder / task).iterdir())
        given = files[:batch] if files else pixels[:batch]
        answers, taken = measure(work, task, given, request["seconds"])
        found = {"answers": answers, "taken": taken, "uses": getattr(work, "engine", name)}
        print(json.dumps(found), flush=True)


if __name__ == "__main__":
    main()
