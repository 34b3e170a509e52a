"""Several runs side by side: what each came to, in what they differ, and what that says."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import median
from typing import Any

from peewit.runs.run import Run, names_of
from peewit.system.text import duration, rounded

# the command line and the time differ between any two runs, and say nothing that the rest does not
UNREMARKABLE = ("command", "date")

# what nobody can say of a network that comes from another program
UNKNOWN = object()

# the columns of the table without which it would say nothing: run, status, epochs and accuracy
ALWAYS_SHOWN = 4


def facts(run: Run) -> dict[str, Any]:
    """Return what a run came to, as JSON has it; None stands for what it has not come to yet.

    Returns
    -------
    dict
        ``run`` (its path), ``date`` (when it began), ``status``, ``source``, ``recipe``,
        ``epochs`` (passes over the training images), of which the recipe asks for ``of_epochs``,
        or for what fits in ``minutes`` or is needed for ``until_accuracy``, ``seconds`` (of the
        finished epochs together), ``images_per_second`` (median of the epochs),
        ``validation_accuracy`` (after the last epoch), and of the final test: ``accuracy``,
        ``accuracy_interval`` (95 %), ``loss``, and ``split``, the images that it was made on.
    """
    history, metrics = run.history, run.metrics
    return {
        "run": str(run.path),
        "date": run.environment.get("date"),
        "status": run.status,
        "source": run.source.get("source"),
        # how an imported network was trained is not known
        "recipe": None if run.status == "imported" else run.recipe.name,
        "epochs": run.epochs,
        "of_epochs": None if run.status == "imported" else run.recipe.epochs,
        "minutes": run.recipe.minutes,
        "until_accuracy": run.recipe.until_accuracy,
        "seconds": sum(row["seconds"] for row in history) if history else None,
        "images_per_second": (
            median(row["images_per_second"] for row in history) if history else None
        ),
        "validation_accuracy": history[-1]["validation_accuracy"] if history else None,
        "accuracy": metrics.get("accuracy"),
        "accuracy_interval": metrics.get("accuracy_interval"),
        "loss": metrics.get("loss"),
        "split": metrics.get("split"),
    }


def passes(run: Run) -> str:
    """Return how many epochs a run has been trained for, and of what.

    Such as "2/10", "2.3 in 5 min", "2.3 until 90%", "0.4 so far", or "-" for a network that comes
    from another program.
    """
    recipe, done = run.recipe, rounded(run.epochs)
    if run.status == "imported":
        return "-"
    if recipe.epochs is not None:
        return f"{done}/{recipe.epochs}"
    if run.status != "finished":
        return f"{done} so far"
    if recipe.until_accuracy is not None:
        return f"{done} until {100 * recipe.until_accuracy:g}%"
    return f"{done} in {recipe.minutes:g} min"


def table(runs: Sequence[Run], width: int | None = None) -> str:
    """Return what each of ``runs`` came to as text, a line a run.

    The accuracy is that of the final test with half its 95 % interval; the validation accuracy is
    that of the last finished epoch. Where ``width`` characters are not enough, columns are left
    out from the right: what matters most stands left.
    """
    from peewit.system.terminal import text_table

    rows = []
    for run in runs:
        fact = facts(run)
        low, high = fact["accuracy_interval"] or (0.0, 0.0)
        tested = fact["accuracy"] is not None
        rows.append(
            [
                fact["run"],
                fact["status"],
                passes(run),
                f"{fact['accuracy']:.2%} ± {(high - low) / 2:.2%}" if tested else "-",
                _number(fact["loss"], ".4f"),
                _number(fact["validation_accuracy"], ".2%"),
                "-" if fact["seconds"] is None else duration(fact["seconds"]),
                fact["source"] or "-",
                fact["recipe"] or "-",
                str(fact["date"] or "-")[:16].replace("T", " "),
            ]
        )
    header = ["run", "status", "epochs", "accuracy", "loss", "validation", "time", "source"]
    header += ["recipe", "date"]
    for columns in range(len(header), ALWAYS_SHOWN - 1, -1):
        text = text_table(header[:columns], [row[:columns] for row in rows], "llrrrrrlll"[:columns])
        if width is None or max(map(len, text.splitlines())) <= width:
            break
    return text


def differences(runs: Sequence[Run]) -> dict[str, list[Any]]:
    """Return the settings in which ``runs`` differ: recipe, data, machine and versions.

    Returns
    -------
    dict
        From a name such as ``recipe.lr`` to one value a run; None where a run has no such value,
        or where it is not known, which alone is no difference.
    """
    settings = [
        _prefixed("recipe", _recipe(run))
        | _prefixed("data", {"source": run.source.get("source"), **_data(run)})
        | _prefixed("environment", _without(run.environment, UNREMARKABLE))
        for run in runs
    ]
    names = list(dict.fromkeys(name for one in settings for name in one))
    found = {}
    for name in names:
        row = [one.get(name) for one in settings]
        known = [value for value in row if value is not UNKNOWN]
        if any(value != known[0] for value in known):
            found[name] = [None if value is UNKNOWN else value for value in row]
    return found


def readings(runs: Sequence[Run]) -> list[str]:
    """Return, for each run after the first, what its accuracy against the first one's says.

    And of which runs the accuracy says less than it seems to.
    """
    base, *names = names_of(runs)
    compared = zip(runs[1:], names, strict=True)
    said = [_reading(runs[0], base, run, name) for run, name in compared]
    for run, name in zip(runs, (base, *names), strict=True):
        # of an imported run it is not known
        watched = run.recipe.validate_on == "test" and run.status != "imported"
        if watched and run.metrics.get("split") == "test":
            said.append(
                f"{name} was watched with the test set while it was trained: whatever was chosen "
                "by watching it makes its accuracy too hopeful."
            )
    return said


def comparison(runs: Sequence[Run], width: int | None = None) -> str:
    """Return the whole comparison as text: what they came to, in what they differ, what it says.

    ``width`` is that of :func:`table`.
    """
    from peewit.system.terminal import text_table

    differing = [[name, *map(_said, row)] for name, row in differences(runs).items()]
    header = ["difference", *names_of(runs)]
    parts = [
        table(runs, width),
        text_table(header, differing, "l" * len(header))
        if differing
        else "They have the same recipe, data and environment.",
        "\n".join(readings(runs)),
    ]
    return "\n\n".join(parts)


def _reading(first: Run, base: str, other: Run, name: str) -> str:
    if not (first.metrics and other.metrics):
        untested = base if not first.metrics else name
        return f"{name} cannot be compared with {base}: {untested} has not been tested yet."
    images = _tested_on(first)
    if None in images or images != _tested_on(other):
        return (
            f"{name} and {base} were tested on different images: their accuracies cannot be "
            "compared; run peewit evaluate for both on the same source."
        )
    gain = other.metrics["accuracy"] - first.metrics["accuracy"]
    if gain == 0:
        return f"{name} is as accurate as {base}."
    which = "more" if gain > 0 else "less"
    (low, high), (other_low, other_high) = (
        run.metrics["accuracy_interval"] for run in (first, other)
    )
    apart = other_low > high or low > other_high
    # two 95 % intervals that do not touch: by chance in less than 1 of 100 pairs of equal models
    # (Schenker and Gentleman, The American Statistician 55 (2001), 182-186)
    meaning = (
        "their 95 % intervals do not overlap, so this is more than luck with the test images"
        if apart
        else "their 95 % intervals overlap, so this may be luck with the test images"
    )
    return (
        f"{name} is {abs(gain) * 100:.2f} points {which} accurate than {base}: {meaning} "
        "(luck with the seed comes on top: repeat with other seeds)."
    )


def _tested_on(run: Run) -> tuple[Any, ...]:
    """Return what identifies the images of the final test.

    The test set by its pixels; held-out images also by how they were drawn.
    """
    prints = run.dataset.get("fingerprints", {})
    if run.metrics.get("split") == "test":
        # an imported run has no data of its own, only what it was tested on
        return ("test", run.metrics.get("fingerprint") or prints.get("test") or None)
    return ("validation", prints.get("training"), run.recipe.seed, run.recipe.validation_fraction)


def _recipe(run: Run) -> dict[str, Any]:
    values = run.recipe.to_dict()
    if run.status != "imported":
        return values
    # its recipe is for training it on, and says nothing of how it was trained
    return dict.fromkeys(values, UNKNOWN) | {"model": values["model"]}


def _data(run: Run) -> dict[str, Any]:
    # 12 digits are enough to tell data sets apart, and fit a table
    prints = run.dataset.get("fingerprints", {})
    return {f"{part} fingerprint": str(print_)[:12] for part, print_ in prints.items() if print_}


def _prefixed(prefix: str, values: Mapping[str, Any]) -> dict[str, Any]:
    return {f"{prefix}.{name}": value for name, value in values.items()}


def _without(values: Mapping[str, Any], names: Sequence[str]) -> dict[str, Any]:
    return {name: value for name, value in values.items() if name not in names}


def _said(value: Any) -> str:
    return "-" if value is None else str(value)


def _number(value: float | None, form: str) -> str:
    return "-" if value is None else format(value, form)
