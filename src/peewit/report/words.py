"""A run in plain words: how it was trained, what it cost, how to do it again."""

from __future__ import annotations

from typing import Any

from peewit.models.registry import MODELS
from peewit.runs.run import Run
from peewit.system import text as spoken
from peewit.system.text import counted, duration, minutes, rounded


def share(value: float) -> str:
    """Return a share, 0 to 1, in percent with one digit.

    >>> share(0.7089)
    '70.9%'
    """
    return f"{value:.1%}"


def large(value: float) -> str:
    """Return a large number with the unit prefix that keeps it short.

    >>> large(4.7e13), large(512), large(2.85e15)
    ('47.0 T', '512 ', '2.85 P')
    """
    for size, prefix in ((1e18, "E"), (1e15, "P"), (1e12, "T"), (1e9, "G"), (1e6, "M")):
        if value >= size:
            return (
                f"{value / size:.3g} {prefix}"
                if value / size < 10
                else f"{value / size:.1f} {prefix}"
            )
    return f"{value:,.0f} "


def headline(run: Run) -> str:
    """Return what the accuracy means, in a sentence that goes on after the number."""
    metrics = run.metrics
    low, high = metrics["accuracy_interval"]
    return (
        f"of {metrics['images']:,} {metrics['split']} pictures got the right class. Of many more "
        f"pictures of the same kind it would be {share(low)} to {share(high)} (95 % interval)."
    )


def untested(run: Run) -> str:
    """Return why there is no accuracy yet, in a sentence."""
    if run.status == "imported":
        return "This run was imported, and has not been tested yet: peewit evaluate does that."
    done = counted(run.epochs, "epoch")
    if run.recipe.epochs is not None:
        done = f"{run.epochs} of {counted(run.recipe.epochs, 'epoch')}"
    return f"This run is {run.status} after {done}: it has not been tested yet."


def cautions(run: Run) -> list[str]:
    """Return what makes the accuracy say less than it seems to."""
    said = []
    if run.recipe.validate_on == "test":
        said.append(
            "The training was watched with the test set. Whatever was chosen by watching it "
            "makes this accuracy too hopeful."
        )
    elif run.metrics.get("split") == "validation":
        said.append(
            "There was no test set: this is the accuracy on the pictures that were held out to "
            "watch the training. Whatever was chosen by watching them makes it too hopeful."
        )
    return said


def recipe(run: Run, parameters: int | None) -> list[str]:
    """Return how the run was trained, in sentences.

    Parameters
    ----------
    run : Run
    parameters : int or None
        How many numbers the network has learned; None if it has no weights yet.
    """
    values, rule = run.recipe.to_dict(), run.preprocessing
    info = MODELS.get(run.recipe.model)
    about = f" ({info.description})" if info else ""
    size = f", with {parameters:,} learned numbers" if parameters else ""
    kind = "grey" if rule.channels == 1 else "colour"
    plain = not any(rule.mean) and all(value == 1 for value in rule.std)
    scaled = (
        "their values divided by 255"
        if plain
        else "less the mean of the training pictures, divided by their deviation"
    )
    images = run.dataset.get("images", {})
    network = (
        f"The network is {run.recipe.model}{about}{size}. It reads {kind} pictures of "
        f"{rule.width} x {rule.height} pixels, {scaled}."
    )
    if run.status == "imported":
        origin = "Its weights come from another program; how they were trained is not known."
        return [network, origin]
    return [
        network,
        _passes(run, values, images),
        _variation(values),
        _watching(values, images),
        _repeatable(run),
    ]


def _repeatable(run: Run) -> str:
    seed = f"Everything random comes from the seed {run.recipe.seed}"
    if not run.recipe.by_epochs:
        return f"{seed}, but how many steps there is time for is the machine's."
    threads = run.recipe.threads or "one a core"
    return (
        f"{seed}: the same recipe with the same number of threads ({threads}) gives the same "
        "weights."
    )


def _passes(run: Run, values: dict[str, Any], images: dict[str, int]) -> str:
    of = f" of {images['training']:,} pictures" if images.get("training") else ""
    done = _times(run.epochs)
    if values.get("until_accuracy"):
        times = f"until it got {share(values['until_accuracy'])} of held-out pictures right"
        times += f" ({done})"
    elif values.get("minutes"):
        times = f"for as long as {minutes(values['minutes'])} allowed ({done})"
    elif run.status == "finished":
        times = done
    else:
        times = f"{done} of {run.recipe.epochs} so far"
    optimizer = {"adam": "Adam", "muon": "Muon"}.get(values["optimizer"], values["optimizer"])
    falling = " falling to 0" if values.get("schedule") == "linear" else ""
    # a recipe that has not been trained may leave the rate open
    rate = f" at a learning rate of {values['lr']:g}{falling}" if values.get("lr") else falling
    extra = []
    if values.get("label_smoothing"):
        extra.append(f"label smoothing {values['label_smoothing']:g}")
    if values.get("precision") not in (None, "float32"):
        extra.append(f"{values['precision']} arithmetic")
    text = (
        f"It went through the training set{of} {times}, {values['batch_size']} pictures "
        f"a step, following the gradient with {optimizer}{rate}"
        f"{''.join(f', with {one}' for one in extra)}."
    )
    if values.get("skip_easy"):
        text += (
            f" After the first epoch it left out the {values['skip_easy']:.0%} of them that it "
            "knew best and saw the others more often; the accuracy in training is theirs."
        )
    return text


def _variation(values: dict[str, Any]) -> str:
    done = []
    if values.get("flip") == "alternating":
        done.append("mirrored every other time")
    elif values.get("flip") == "random":
        done.append("mirrored at random")
    if values.get("translate"):
        done.append(f"moved by up to {counted(values['translate'], 'pixel')}")
    if values.get("cutout"):
        done.append(f"shown with a hole of {values['cutout']} x {values['cutout']} pixels")
    varied = (
        f"Each time a picture was shown in training it was {_listed(done)}."
        if done
        else "The training pictures were always shown as they are: not mirrored, moved or cut."
    )
    if values.get("tta"):
        ways = "moved" if values.get("flip") == "none" else "mirrored, moved"
        varied += (
            " In the test, pictures that it was unsure of were looked at in several ways "
            f"({ways}), and the answers averaged."
        )
    return varied


def _watching(values: dict[str, Any], images: dict[str, int]) -> str:
    if values.get("validate_on") == "test":
        return "After each epoch it was watched with the test set, as the tutorial does."
    held = f"{images['validation']:,} pictures" if images.get("validation") else "Pictures"
    tested = (
        f" The {images['test']:,} test pictures were used once, at the end."
        if images.get("test")
        else ""
    )
    return (
        f"{held} ({100 * values['validation_fraction']:g} % of the training set) were held out to "
        f"watch it.{tested}"
    )


def cost(run: Run) -> list[tuple[str, str, str]]:
    """Return what the training cost: name, value, remark. What was not measured is left out."""
    if not run.history:
        return []
    last, rows = run.history[-1], run.history
    seconds = sum(row["seconds"] for row in rows)
    speeds = sorted(row["images_per_second"] for row in rows)
    found = [
        ("Time", duration(seconds), f"{counted(run.epochs, 'epoch')}, validation included"),
        ("An epoch", duration(seconds / run.epochs), "on average"),
        ("Speed", f"{speeds[len(speeds) // 2]:,.0f} pictures/s", "in training, validation apart"),
    ]
    flops = run.metrics.get("flops") or last.get("flops")
    if flops:
        found.append(
            ("Work", f"{large(flops)}FLOP", "additions and multiplications of the training")
        )
    rate = run.metrics.get("gflops") or last.get("gflops")
    if rate:
        found.append(("Rate", f"{rate:,.0f} GFLOP/s", "while training"))
    best = run.metrics.get("share_of_best") or last.get("share_of_best")
    if best:
        found.append(
            ("Share of the machine", share(best), "of its fastest large convolution's rate")
        )
    return found


def calibration(bins: list[dict[str, float]]) -> str:
    """Return in a sentence whether the confidence can be taken at its word."""
    images = sum(part["images"] for part in bins)
    confidence = sum(part["images"] * part["confidence"] for part in bins) / images
    accuracy = sum(part["images"] * part["accuracy"] for part in bins) / images
    gap = 100 * (confidence - accuracy)
    if abs(gap) < 1:
        verdict = "as sure as it is right"
    else:
        which = "surer" if gap > 0 else "less sure"
        verdict = f"{abs(gap):.1f} points {which} than it is right"
    return (
        f"Its answers have a mean confidence of {share(confidence)}, and {share(accuracy)} of them "
        f"are right: on the whole it is {verdict}."
    )


def temperature(run: Run) -> str:
    """Return how the network was calibrated, in sentences; nothing where it was not to be."""
    found = run.metrics.get("temperature_scaling")
    if not found:
        left = (
            "Its confidence is as it was trained: there were no held-out pictures to calibrate it "
            "by, or too few, or it has learned too little."
        )
        return left if run.recipe.calibrate else ""
    said = (
        "After the training it was calibrated (Guo et al. 2017): its outputs, before they become "
        f"percentages, are divided by {found['temperature']:.2f}, the temperature that suits the "
        f"{found['images']:,} held-out pictures best. On those the calibration error was "
        f"{share(found['error_before'])} before and is {share(found['error_after'])} now. A "
        "temperature changes how sure an answer is, never which answer it is."
    )
    if run.metrics.get("split") == "validation":
        said += " It is judged by the same pictures here: on others it fits a little less well."
    return said


def command(run: Run) -> str:
    """Return the command that trains the same again from the run's own recipe file."""
    source = run.source.get("source")
    words = ["peewit", "train", str(source) if source else "SOURCE"]
    if run.source.get("data"):
        words += ["--data", str(run.source["data"])]
    if run.source.get("coarse"):
        words.append("--coarse")
    words += ["--recipe", str(run.path / "recipe.yaml")]
    return spoken.command(words)


def _times(count: float) -> str:
    number = rounded(count)
    return "once" if number == "1" else f"{number} times"


def _listed(parts: list[str]) -> str:
    return ", ".join(parts[:-1]) + f" and {parts[-1]}" if len(parts) > 1 else parts[0]
