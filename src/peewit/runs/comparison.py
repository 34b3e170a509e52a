"""Comparison of runs: results, differences in their settings, and significance."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import median
from typing import Any

from peewit.runs.run import Run, names_of
from peewit.system.text import duration, rounded

# These differ between any two runs and add nothing to the other settings
IGNORED = ("command", "date")

# Stands for the settings of an imported run, which are not known
UNKNOWN = object()

# The warning for runs that validated on the test set, also shown in the report
VALIDATED_ON_TEST_SET = (
    "the test set was also used for validation during training, so the accuracy is optimistic if "
    "any choice was based on it"
)

# The columns that every table has, however narrow: run, status, epochs and accuracy
ALWAYS_SHOWN = 4


def facts(run: Run) -> dict[str, Any]:
    """Return the results of a run, ready for JSON; None for values that it does not have (yet).

    Returns
    -------
    dict
        ``run`` (path), ``date`` (of the start), ``status``, ``source``, ``recipe`` (name),
        ``epochs`` (trained so far), ``of_epochs``, ``minutes`` and ``until_accuracy`` (the
        recipe's limits), ``seconds`` (total time of the finished epochs), ``images_per_second``
        (median of the epochs), ``validation_accuracy`` (after the last epoch); and from the final
        test ``accuracy``, ``accuracy_interval`` (95%), ``loss`` and ``split`` ("test" or
        "validation").
    """
    history, metrics = run.history, run.metrics
    return {
        "run": str(run.path),
        "date": run.environment.get("date"),
        "status": run.status,
        "source": run.source.get("source"),
        # An imported run has a recipe for further training, not the one that it was trained by
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


def epochs_text(run: Run) -> str:
    """Return the number of epochs trained and the recipe's limit, as text.

    For example "2/10", "2.3 in 5 min", "2.3 until 90%" or "0.4 so far"; "-" for an imported run.
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
    """Return the results of ``runs`` as a text table, one line per run.

    The accuracy is from the final test, with half of its 95% interval; the validation accuracy is
    from the last finished epoch. If the table is wider than ``width`` characters, columns are
    dropped from the right, where the less important ones are.
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
                epochs_text(run),
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
        Setting, such as ``recipe.lr``, to a list of one value per run. None if a run does not have
        the setting, or if it is not known; an unknown value alone is not a difference.
    """
    settings = [
        _prefixed("recipe", _recipe(run))
        | _prefixed("data", {"source": run.source.get("source"), **_data(run)})
        | _prefixed("environment", _without(run.environment, IGNORED))
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


def validated_on_test_set(run: Run) -> bool:
    """Return whether the final test used the same images as validation during the training.

    Not known, so False, for an imported run.
    """
    watched = run.recipe.validate_on == "test" and run.status != "imported"
    return watched and run.metrics.get("split") == "test"


def readings(runs: Sequence[Run]) -> list[str]:
    """Return sentences that compare each run's accuracy with that of the first.

    They say whether the difference is significant, and which accuracies are optimistic because the
    test set was used for validation.
    """
    base, *names = names_of(runs)
    compared = zip(runs[1:], names, strict=True)
    sentences = [_reading(runs[0], base, run, name) for run, name in compared]
    for run, name in zip(runs, (base, *names), strict=True):
        if validated_on_test_set(run):
            sentences.append(f"{name}: {VALIDATED_ON_TEST_SET}.")
    return sentences


def comparison(runs: Sequence[Run], width: int | None = None) -> str:
    """Return the comparison as text: results, differences, and whether they are significant.

    ``width`` limits the table of results, see :func:`table`.
    """
    from peewit.system.terminal import text_table

    differing = [[name, *map(_text, row)] for name, row in differences(runs).items()]
    header = ["difference", *names_of(runs)]
    parts = [
        table(runs, width),
        text_table(header, differing, "l" * len(header))
        if differing
        else "The runs have the same recipe, data and environment.",
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
            f"{name} and {base} were tested on different images, so their accuracies cannot be "
            "compared: run peewit evaluate for both on the same source."
        )
    gain = other.metrics["accuracy"] - first.metrics["accuracy"]
    if gain == 0:
        return f"{name} and {base} have the same accuracy."
    which = "more" if gain > 0 else "less"
    (low, high), (other_low, other_high) = (
        run.metrics["accuracy_interval"] for run in (first, other)
    )
    disjoint = other_low > high or low > other_high
    # Two 95% intervals of equally good models are disjoint in less than 1 of 100 cases
    # (Schenker and Gentleman, The American Statistician 55 (2001), 182-186)
    meaning = (
        "their 95% intervals do not overlap, so the difference is statistically significant"
        if disjoint
        else "their 95% intervals overlap, so the difference may be due to chance"
    )
    return (
        f"{name} is {abs(gain) * 100:.2f} percentage points {which} accurate than {base}: "
        f"{meaning} (variation between seeds is not included: repeat with other seeds)."
    )


def _tested_on(run: Run) -> tuple[Any, ...]:
    """Return a key that identifies the images of the final test.

    The fingerprint of the test set, or, for held-out images, also how they were drawn.
    """
    prints = run.dataset.get("fingerprints", {})
    if run.metrics.get("split") == "test":
        # An imported run only knows the data that it was tested on
        return ("test", run.metrics.get("fingerprint") or prints.get("test") or None)
    return (
        run.metrics.get("split"),
        prints.get("training"),
        run.recipe.seed,
        run.recipe.validation_fraction,
    )


def _recipe(run: Run) -> dict[str, Any]:
    values = run.recipe.to_dict()
    if run.status != "imported":
        return values
    # The recipe is for further training; how the model was trained is not known
    return dict.fromkeys(values, UNKNOWN) | {"model": values["model"]}


def _data(run: Run) -> dict[str, Any]:
    # 12 digits are enough to tell data sets apart, and fit into a table
    prints = run.dataset.get("fingerprints", {})
    return {f"{part} fingerprint": str(print_)[:12] for part, print_ in prints.items() if print_}


def _prefixed(prefix: str, values: Mapping[str, Any]) -> dict[str, Any]:
    return {f"{prefix}.{name}": value for name, value in values.items()}


def _without(values: Mapping[str, Any], names: Sequence[str]) -> dict[str, Any]:
    return {name: value for name, value in values.items() if name not in names}


def _text(value: Any) -> str:
    return "-" if value is None else str(value)


def _number(value: float | None, form: str) -> str:
    return "-" if value is None else format(value, form)
