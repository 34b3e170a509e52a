"""The sentences of a run's report: its result, recipe, cost and calibration."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from peewit.data.duplicates import also_training
from peewit.evaluation.metrics import imbalance
from peewit.report.network_sentence import model_sentence
from peewit.runs.comparison import VALIDATED_ON_TEST_SET, validated_on_test_set
from peewit.runs.folder import SPLIT
from peewit.runs.run import Run
from peewit.system import text
from peewit.system.text import counted, duration, minutes
from peewit.training.imbalance import POWERS
from peewit.training.optimizers import OPTIMIZERS

# metrics["split"] of a run that was tested by cross-validation
CROSS_VALIDATION = "cross-validation"
# From this ratio of the largest class to the smallest on, the accuracy mainly tells about the
# larger classes, and the balanced accuracy is shown as well
IMBALANCED = 1.5
# Unreadable pictures that a sentence names
NAMED = 10


def percent(value: float) -> str:
    """Return a fraction, 0 to 1, as a percentage with one digit.

    >>> percent(0.7089)
    '70.9%'
    """
    return f"{value:.1%}"


def with_unit_prefix(value: float) -> str:
    """Return a large number with three digits and a unit prefix.

    >>> with_unit_prefix(4.7e13), with_unit_prefix(512), with_unit_prefix(2.85e15)
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
    """Return what the accuracy means, as the rest of a sentence that begins with the number."""
    metrics = run.metrics
    low, high = metrics["accuracy_interval"]
    return (
        f"of {images_tested(metrics)} are classified correctly. For new "
        f"images of the same kind, expect {percent(low)} to {percent(high)} (95% confidence "
        "interval)."
    )


def images_tested(metrics: Mapping[str, Any]) -> str:
    """Return what the accuracy was measured on.

    >>> images_tested({"images": 1000, "split": "test"})
    '1,000 test images'
    >>> images_tested({"images": 60, "split": "cross-validation", "fold_accuracies": [0.5] * 5})
    '60 images in 5-fold cross-validation'
    """
    if metrics["split"] == CROSS_VALIDATION:
        folds = len(metrics.get("fold_accuracies", ()))
        return f"{metrics['images']:,} images in {folds}-fold cross-validation"
    return f"{metrics['images']:,} {metrics['split']} images"


def untested(run: Run) -> str:
    """Return why there is no accuracy yet."""
    if run.status == "imported":
        return "This run was imported and has not been tested yet: run peewit evaluate."
    done = counted(run.epochs, "epoch")
    if run.recipe.epochs is not None:
        done = f"{run.epochs} of {counted(run.recipe.epochs, 'epoch')}"
    return f"This run is {run.status} after {done} and has not been tested yet."


def imbalanced_result(metrics: Mapping[str, Any]) -> str:
    """Return the balanced accuracy and the lowest recall; empty if the classes are balanced.

    Parameters
    ----------
    metrics : mapping
        Those of ``metrics.json``; without ``balanced_accuracy`` in older runs.
    """
    tested = [scores for scores in metrics.get("classes", ()) if scores["images"]]
    if "balanced_accuracy" not in metrics:
        return ""
    if imbalance([scores["images"] for scores in tested]) < IMBALANCED:
        return ""
    worst = min(tested, key=lambda scores: float(scores["recall"]))
    return (
        f"balanced accuracy {metrics['balanced_accuracy']:.2%} (mean recall of the classes; "
        f"lowest: {text.printable(worst['name'])} {percent(worst['recall'])} of "
        f"{counted(worst['images'], 'image')})"
    )


def cautions(run: Run) -> list[str]:
    """Return why the accuracy may be useless or optimistic; empty if it is neither."""
    found = []
    useless = no_better_than_baseline(run.metrics, run.history, run.recipe.lr)
    if useless:
        found.append(f"Caution: {useless}.")
    if validated_on_test_set(run):
        found.append(f"Caution: {VALIDATED_ON_TEST_SET}.")
    elif run.metrics.get("split") == "validation":
        found.append(
            "Caution: there was no test set. This is the accuracy on the validation images, which "
            "is optimistic if any choice was based on them."
        )
    elif run.metrics.get("split") == CROSS_VALIDATION:
        found.append(
            "Each image was classified by a network that was not trained on its fold. The final "
            "network was trained on all images; as it had more of them, it is probably a little "
            "better than this accuracy says."
        )
    copies = run.metrics.get("also_in_training")
    if copies:
        split, images = run.metrics["split"], run.metrics["images"]
        found.append(f"Caution: {copies_sentence(split, copies, images)}.")
    return found


def unreadable(run: Run) -> str:
    """Return which pictures could not be read; empty if all could, or if nothing is recorded."""
    for found in run.findings.get("kinds", []):
        if found["kind"] == "unreadable":
            names = [text.printable(name) for one in found["sets"] for name in one][:NAMED]
            rest = found["pictures"] > len(names)
            more = f", ... (all are in {SPLIT})" if rest else ""
            were = "was" if found["pictures"] == 1 else "were"
            count = counted(found["pictures"], "picture")
            return f"{count} could not be read and {were} left out: {', '.join(names)}{more}"
    return ""


def no_better_than_baseline(
    metrics: Mapping[str, Any], history: Sequence[Mapping[str, float]], lr: float | None
) -> str:
    """Return a sentence if always predicting the most frequent class is as good, and what to do.

    Parameters
    ----------
    metrics : mapping
        Those of ``metrics.json``; may be empty.
    history : sequence of mapping
        The rows of the history; empty for an imported model.
    lr : float or None
        The learning rate.
    """
    if not metrics:
        return ""
    baseline = max(scores["images"] for scores in metrics["classes"]) / metrics["images"]
    if metrics["accuracy_interval"][0] > baseline:
        return ""
    sentence = (
        f"the accuracy of {percent(metrics['accuracy'])} is no better than always predicting the "
        f"most frequent class ({percent(baseline)})"
    )
    if metrics["accuracy"] > baseline:
        sentence += f", as far as {counted(metrics['images'], 'image')} can tell: test on more"
    elif not history:
        sentence += "; check the order of the class names and the preprocessing"
    elif history[-1]["accuracy"] > (1 + baseline) / 2:  # most training images were learned
        sentence += (
            f", although the training accuracy is {percent(history[-1]['accuracy'])}; train on "
            "more images, and check that the test images are of the same kind"
        )
    else:
        rate = f" than {lr:g}" if lr else ""
        sentence += f"; train with a lower learning rate (--lr){rate}, or for more epochs"
    return sentence


def copies_sentence(split: str, copies: Mapping[str, Any], images: int) -> str:
    """Return how many images of the final test are also training images, and what it means.

    Parameters
    ----------
    split : str
        "test" or "validation".
    copies : mapping
        The metric ``also_in_training``.
    images : int
        Number of images in the test.

    Examples
    --------
    >>> copies = {"images": 30, "indices": [4], "accuracy_without": 0.712}
    >>> copies_sentence("test", copies, 90)
    '30 of 90 test images are also training images; without them, the accuracy is 71.2%'
    """
    if copies["accuracy_without"] is None:
        return (
            f"all {split} images are also training images, so the accuracy does not apply to "
            "other images"
        )
    count = copies["images"]
    also = also_training(count, copies.get("groups", False))
    interval = ""
    if "interval_without" in copies:
        low, high = copies["interval_without"]
        interval = f" (95% interval {percent(low)} to {percent(high)})"
    return (
        f"{count:,} of {images:,} {split} images {also}; without "
        f"{'it' if count == 1 else 'them'}, the accuracy is {percent(copies['accuracy_without'])}"
        f"{interval}"
    )


def recipe(run: Run, parameters: int | None) -> list[str]:
    """Return how the run was trained.

    Parameters
    ----------
    run : Run
    parameters : int or None
        Number of trainable parameters; None if the run has no weights yet.
    """
    values = run.recipe.to_dict()
    images = run.dataset.get("images", {})
    model = model_sentence(run, parameters)
    if run.status == "imported":
        return [model, "The weights were imported; how they were trained is not known."]
    return [
        model,
        _training(run, values, images),
        _augmentation(run, values),
        _validation(values, images),
        *_statistics(run),
        _reproducibility(run),
    ]


def _training(run: Run, values: dict[str, Any], images: dict[str, int]) -> str:
    if run.recipe.start != "pretrained":
        return _optimisation(run, values, images)
    on = f" of {images['training']:,} images" if images.get("training") else ""
    head = (
        f"Its last layer was fitted to the features{on} that the pretrained network computes, by "
        "logistic regression, whose regularisation was chosen by cross-validation."
    )
    return f"{head} {_optimisation(run, values, images)}" if run.epochs else head


def _optimisation(run: Run, values: dict[str, Any], images: dict[str, int]) -> str:
    on = f" on {images['training']:,} images" if images.get("training") else ""
    done = counted(run.epochs, "epoch")
    if values.get("until_accuracy"):
        length = f"until {percent(values['until_accuracy'])} validation accuracy ({done})"
    elif values.get("minutes"):
        length = f"with a time budget of {minutes(values['minutes'])} ({done})"
    elif run.status == "finished":
        length = f"for {done}"
    else:
        length = f"for {run.epochs} of {counted(run.recipe.epochs or 0, 'epoch')} so far"
    details = [f"batch size {values['batch_size']}"]
    # A recipe that has not been resolved yet may leave the learning rate open
    rate = f" {values['lr']:g}" if values.get("lr") else ""
    decay = " decaying linearly to 0" if values.get("schedule") == "linear" else ""
    if rate or decay:
        details.append(f"learning rate{rate}{decay}")
    if values.get("label_smoothing"):
        details.append(f"label smoothing {values['label_smoothing']:g}")
    if values.get("precision") not in (None, "float32"):
        details.append(f"{values['precision']} precision")
    optimizer = OPTIMIZERS[values["optimizer"]].title
    sentence = f"It was trained{on} {length} with {optimizer}: {', '.join(details)}."
    if values.get("class_weights") in POWERS:
        root = " square root of the" if values["class_weights"] == "sqrt" else ""
        sentence += (
            f" The loss was weighted by the inverse of the{root} number of images in each class."
        )
    if values.get("skip_easy"):
        sentence += (
            f" Every epoch after the first skipped the {values['skip_easy']:.0%} of images with "
            "the lowest loss and repeated harder ones instead, so the training accuracy is that of "
            "the harder images."
        )
    return sentence


def _augmentation(run: Run, values: dict[str, Any]) -> str:
    if run.recipe.start == "pretrained" and not run.epochs:
        return "The training images were not augmented."
    done = []
    if values.get("flip") == "alternating":
        done.append("horizontal flips in every other epoch")
    elif values.get("flip") == "random":
        done.append("random horizontal flips")
    if values.get("translate"):
        done.append(f"random translation by up to {counted(values['translate'], 'pixel')}")
    if values.get("random_crop", 1) < 1:
        done.append(f"random crops of at least {values['random_crop']:.0%} of the area")
    if values.get("cutout"):
        done.append(f"cutout of {values['cutout']} x {values['cutout']} pixels")
    sentence = (
        f"Data augmentation: {_listed(done)}."
        if done
        else "The training images were not augmented."
    )
    if values.get("tta"):
        views = "translated" if values.get("flip") == "none" else "flipped and translated"
        sentence += (
            " The final test used test-time augmentation: predictions for uncertain images are "
            f"averaged over {views} views."
        )
    return sentence


def _validation(values: dict[str, Any], images: dict[str, int]) -> str:
    if values.get("validate_on") == "test":
        return "The test set was used for validation after each epoch, as in the tutorial."
    if not images.get("validation") and values.get("folds"):
        return (
            "No images were held out. The validation figures are the means of those that the "
            f"networks of the {values['folds']} folds of the cross-validation reached at the same "
            "point of their training."
        )
    held_out = f"{images['validation']:,} images" if images.get("validation") else "Images"
    tested = (
        f" The {images['test']:,} test images were used once, at the end."
        if images.get("test")
        else ""
    )
    return (
        f"{held_out} ({100 * values['validation_fraction']:g}% of the training set) were held out "
        f"for validation.{tested}"
    )


def _statistics(run: Run) -> list[str]:
    estimated_from = run.metrics.get("batch_norm_images")
    if not estimated_from:
        return []
    return [
        "The moving statistics of batch normalisation follow the weights slowly, and there were "
        "too few training steps for them: validation and test used statistics estimated from "
        f"{counted(estimated_from, 'training image')} (Wu and Johnson 2021), and so does the saved "
        "model."
    ]


def _reproducibility(run: Run) -> str:
    seed = f"The random seed was {run.recipe.seed}"
    if not run.recipe.by_epochs:
        return f"{seed}; the number of steps depends on the speed of the machine."
    threads = run.recipe.threads or "one per core"
    return (
        f"{seed}: the same recipe with the same number of threads ({threads}) gives the same "
        "weights."
    )


def cost(run: Run) -> list[tuple[str, str, str]]:
    """Return the cost of the training as (name, value, remark); only what was measured."""
    if not run.history:
        return []
    last, rows = run.history[-1], run.history
    seconds = sum(row["seconds"] for row in rows)
    speeds = sorted(row["images_per_second"] for row in rows)
    if not run.epochs:
        return [("Time", duration(seconds), "fitting the last layer, including validation")]
    found = [
        ("Time", duration(seconds), f"{counted(run.epochs, 'epoch')}, including validation"),
        ("Time per epoch", duration(seconds / run.epochs), "mean"),
        ("Throughput", f"{speeds[len(speeds) // 2]:,.0f} images/s", "median, training steps only"),
    ]
    flops = run.metrics.get("flops") or last.get("flops")
    if flops:
        found.append(("Compute", f"{with_unit_prefix(flops)}FLOP", "total of all training steps"))
    rate = run.metrics.get("gflops") or last.get("gflops")
    if rate:
        found.append(("Compute rate", f"{rate:,.0f} GFLOP/s", "mean of the training steps"))
    best = run.metrics.get("share_of_best") or last.get("share_of_best")
    if best:
        found.append(
            ("Efficiency", percent(best), "of the rate of this machine's fastest large convolution")
        )
    return found


def calibration(bins: list[dict[str, float]]) -> str:
    """Return whether the model is overconfident or underconfident on average."""
    images = sum(part["images"] for part in bins)
    confidence = sum(part["images"] * part["confidence"] for part in bins) / images
    accuracy = sum(part["images"] * part["accuracy"] for part in bins) / images
    gap = 100 * (confidence - accuracy)
    if abs(gap) < 1:
        verdict = "neither overconfident nor underconfident"
    else:
        which = "overconfident" if gap > 0 else "underconfident"
        verdict = f"{which} by {abs(gap):.1f} percentage points"
    return (
        f"The mean confidence is {percent(confidence)} and the accuracy {percent(accuracy)}: on "
        f"average, the model is {verdict}."
    )


def temperature(run: Run) -> str:
    """Return how the confidence was calibrated; empty if the recipe does not calibrate."""
    found = run.metrics.get("temperature_scaling")
    if not found:
        missing = (
            "The confidence was not calibrated: there were no held-out images, too few of them, or "
            "the model had learned too little."
        )
        return missing if run.recipe.calibrate else ""
    sentences = (
        "After the training, the confidence was calibrated by temperature scaling (Guo et al. "
        f"2017): the logits are divided by {found['temperature']:.2f}, the best fit for the "
        f"{found['images']:,} held-out images. This changed the calibration error on those images "
        f"from {percent(found['error_before'])} to {percent(found['error_after'])}. Temperature "
        "scaling changes how confident a prediction is, never the predicted class."
    )
    if run.metrics.get("split") in ("validation", CROSS_VALIDATION):
        sentences += (
            " The results here are on the same images: expect a slightly larger error on others."
        )
    return sentences


def rejection(metrics: Mapping[str, Any]) -> str:
    """Return what rejecting pictures of no class costs; empty without a threshold.

    >>> print(rejection({"split": "test", "images": 500, "accuracy": 0.92, "rejection":
    ...     {"threshold": 0.5, "images": 200, "rejected": 0.052, "accuracy": 0.95}}))
    ... # doctest: +NORMALIZE_WHITESPACE
    Pictures of none of the classes: with --reject, peewit predict rejects those whose most probable
    class has less than 50.0%, which 95% of the 200 held-out images reach. 5.2% of the 500 test
    images would be rejected; of the others, 95.0% are classified correctly.
    """
    found = metrics.get("rejection")
    if not found:
        return ""
    rule = found.get("by_features")
    which = f"whose most probable class has less than {percent(found['threshold'])}, which 95% of"
    if rule:
        which = "whose features are further from those of every class than those of 95% of"
    found = found | (rule or {})
    reached = "" if rule else " reach"
    sentence = (
        f"Pictures of none of the classes: with --reject, peewit predict rejects those {which} the "
        f"{found['images']:,} held-out images{reached}. {percent(found['rejected'])} of the "
        f"{images_tested(metrics)} would be rejected"
    )
    if found["accuracy"] is not None:
        sentence += f"; of the others, {percent(found['accuracy'])} are classified correctly"
    if metrics["split"] != "test":
        sentence += ". The threshold was chosen on the same images"
    return sentence + "."


def command(run: Run) -> str:
    """Return the command that repeats the training from the run's own recipe file."""
    source = run.source.get("source")
    words = ["peewit", "train", str(source) if source else "SOURCE"]
    if run.source.get("data"):
        words += ["--data", str(run.source["data"])]
    if run.source.get("coarse"):
        words.append("--coarse")
    if run.source.get("group"):
        words += ["--group", str(run.source["group"])]
    words += ["--recipe", str(run.path / "recipe.yaml")]
    return text.command(words)


def _listed(parts: list[str]) -> str:
    return ", ".join(parts[:-1]) + f" and {parts[-1]}" if len(parts) > 1 else parts[0]
