"""``peewit.ImageClassifier``: scikit-learn's conventions, over every form of pictures."""

from __future__ import annotations

import copy
import gc
import importlib
import pickle
import re
import signal
import sys
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sklearn.model_selection import GridSearchCV, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import MinMaxScaler
from sklearn.utils.estimator_checks import check_estimator

from made_data import brightness
from made_pictures import folder_of_pictures
from peewit import estimator as module
from peewit import plots, report
from peewit.data import caches
from peewit.errors import PeewitError
from peewit.estimator import ImageClassifier
from peewit.training.budget import benchmark
from peewit.training.callbacks import Callback
from peewit.training.recipe import Recipe

# the smallest network on the smallest images; a mirrored row of features is another row
QUICK = Recipe.preset("fast", model="fast-xs", image_size=8, epochs=1, threads=1, flip="none")
# check -> why it does not apply
NOT_APPLICABLE = {"check_class_weight_classifiers": "class_weight cannot be a dict"}
# checks that need packages or settings that are not there
SKIPPED = {"check_array_api_input", "check_classifier_data_not_an_array"}

DATA = brightness(60, 8, 1, seed=0)
X: npt.NDArray[np.uint8] = np.asarray(DATA.images)  # (60, 8, 8, 1)
Y = np.array(["dark", "middle", "bright"])[DATA.labels]


@pytest.fixture(scope="module")
def fitted() -> ImageClassifier:
    return ImageClassifier(QUICK, epochs=3).fit(X, Y)


@pytest.fixture
def files(tmp_path: Path) -> tuple[list[Path], list[str]]:
    paths = sorted(folder_of_pictures(tmp_path / "pictures", 20).glob("*/*.png"))
    return paths, [path.parent.name for path in paths]


def test_the_estimator_checks_that_apply_pass() -> None:
    classifier = ImageClassifier(QUICK, image_shape=(1, -1), pixel_range=(-4, 4))
    results = check_estimator(
        classifier, expected_failed_checks=NOT_APPLICABLE, on_skip=None, on_fail=None
    )
    names: dict[str, set[str]] = {"passed": set(), "failed": set(), "skipped": set()}
    for one in results:
        names.setdefault(one["status"], set()).add(one["check_name"])
    assert not names["failed"], [one for one in results if one["status"] == "failed"]
    assert names["xfail"] == set(NOT_APPLICABLE)
    assert names["skipped"] <= SKIPPED
    assert len(names["passed"]) > 40


def test_it_learns_labels_of_any_kind(fitted: ImageClassifier) -> None:
    assert fitted.classes_.tolist() == ["bright", "dark", "middle"]
    assert fitted.score(X, Y) > 0.95
    probabilities = fitted.predict_proba(X)
    assert probabilities.shape == (60, 3)
    assert probabilities.sum(1) == pytest.approx(1)
    numbers = np.array([7, -2, 10])[DATA.labels]
    classifier = ImageClassifier(QUICK, epochs=3).fit(X, numbers)
    assert classifier.classes_.tolist() == [-2, 7, 10]
    assert classifier.score(X, numbers) > 0.95


def test_all_images_are_for_training_and_validation(files: tuple[list[Path], list[str]]) -> None:
    # the caller tests, so that no test part and no folds are made
    run = ImageClassifier(QUICK).fit(*files).run_
    images = run.dataset["images"]
    assert images["training"] + images["validation"] == 60
    assert images["validation"] == 6
    assert not run.recipe.folds


@pytest.mark.parametrize(
    "form",
    [
        X[..., 0],
        np.repeat(X, 3, 3),
        np.repeat(X, 3, 3).transpose(0, 3, 1, 2),
        X / 255,
        X.astype(np.int64),
        list(X),
        X.tolist(),
    ],
    ids=["grey", "colour", "channels first", "fractions", "integers", "arrays", "lists"],
)
def test_arrays_in_other_forms_are_the_same_images(form: Any, fitted: ImageClassifier) -> None:
    np.testing.assert_allclose(fitted.predict_proba(form), fitted.predict_proba(X), atol=1e-5)
    assert ImageClassifier(QUICK, epochs=3).fit(form, Y).score(form, Y) > 0.95


def test_files_pictures_and_arrays_of_several_sizes(files: tuple[list[Path], list[str]]) -> None:
    paths, labels = files
    Image.open(paths[0]).resize((20, 10)).save(paths[0])
    pictures = [Image.open(path) for path in paths]
    arrays = [np.asarray(picture) for picture in pictures]
    forms: list[Any] = [paths, list(map(str, paths)), np.array(paths), pictures, arrays]
    classifier = ImageClassifier(QUICK, epochs=3)
    expected = classifier.fit(paths, labels).predict_proba(paths)
    assert classifier.score(paths, labels) > 0.95
    for form in forms:
        np.testing.assert_array_equal(classifier.predict_proba(form), expected)
    for form in (pictures, arrays):
        np.testing.assert_array_equal(clone(classifier).fit(form, labels).predict(form), labels)


def test_a_file_may_be_in_the_sample_twice(files: tuple[list[Path], list[str]]) -> None:
    paths, labels = [*files[0], files[0][0], files[0][3]], [*files[1], files[1][0], files[1][3]]
    run = ImageClassifier(QUICK).fit(paths, labels).run_
    assert sum(run.dataset["images"].values()) == 62


def test_rows_need_a_shape(fitted: ImageClassifier) -> None:
    rows = X.reshape(60, 64)
    with pytest.raises(ValueError, match="image_shape"):
        ImageClassifier(QUICK).fit(rows, Y)
    with pytest.raises(ValueError, match=r"64 .* \(7, 7\)"):
        ImageClassifier(QUICK, image_shape=(7, 7)).fit(rows, Y)
    classifier = ImageClassifier(QUICK, epochs=3, image_shape=(8, 8)).fit(rows, Y)
    assert classifier.n_features_in_ == 64
    np.testing.assert_array_equal(classifier.predict_proba(rows), fitted.predict_proba(X))
    with pytest.raises(ValueError, match="10 features"):
        classifier.predict(rows[:, :10])
    assert not hasattr(classifier.fit(X, Y), "n_features_in_")  # not of the earlier fit


def test_the_range_of_pixels_does_not_depend_on_the_batch(fitted: ImageClassifier) -> None:
    # a dark image of whole numbers has only zeros and ones, as a black and white one of fractions
    dark = np.zeros((1, 8, 8), np.int64)
    dark[0, :4] = 1
    both = np.concatenate([dark, X[2:3, ..., 0]])
    np.testing.assert_allclose(
        fitted.predict_proba(dark)[0], fitted.predict_proba(both)[0], atol=1e-5
    )
    with pytest.raises(ValueError, match="pixel_range"):
        fitted.predict(X.astype(float))
    ranged = clone(fitted).set_params(pixel_range=(100, 355)).fit(X.astype(float) + 100, Y)
    np.testing.assert_allclose(
        ranged.predict_proba(X.astype(float) + 100), fitted.predict_proba(X), atol=1e-4
    )
    # what is beyond is clipped
    white = ranged.predict_proba(np.full((1, 8, 8), 1e6))
    np.testing.assert_array_equal(white, ranged.predict_proba(np.full((1, 8, 8), 355)))


@pytest.mark.parametrize(
    ("settings", "images", "labels", "match"),
    [
        ({}, X, Y[:-1], "inconsistent"),
        ({}, X, ["same"] * 60, "one class"),
        ({}, X, np.linspace(0, 1, 60), "continuous"),
        ({}, np.where(X > 9, np.nan, X), Y, "NaN"),
        ({}, X.astype(int) - 1, Y, "255"),
        ({}, X[:0], Y[:0], "0 sample"),
        ({"image_shape": (8, 8)}, [], [], "1D array"),
        ({}, "folder", Y, "list"),
        ({}, [X[0], "a.png"], Y[:2], "only"),
        ({}, ["a.png", "b.png"], Y[:2], "a.png"),
        ({"epochs": 1, "minutes": 1}, X, Y, "epochs and minutes"),
        ({"recipe": "none"}, X, Y, "recipe"),
        ({"model": "none"}, X, Y, "model"),
        ({"class_weight": "sqrt"}, X, Y, "balanced"),
        ({"pixel_range": (1, 0)}, X, Y, "pixel_range"),
        ({"random_state": -1}, X, Y, "seed"),
    ],
)
def test_what_nothing_can_be_learned_from_is_a_value_error(
    settings: dict[str, Any], images: Any, labels: Any, match: str
) -> None:
    with pytest.raises(ValueError, match=match):
        ImageClassifier(**{"recipe": QUICK, **settings}).fit(images, labels)


def test_its_own_errors_are_those_of_peewit_too() -> None:
    with pytest.raises(PeewitError, match="one class"):
        ImageClassifier(QUICK).fit(X, ["same"] * 60)


def test_an_unreadable_picture_is_named(files: tuple[list[Path], list[str]]) -> None:
    paths, labels = files
    paths[5].write_bytes(b"no picture")
    with pytest.raises(ValueError, match=re.escape(paths[5].name)):
        ImageClassifier(QUICK).fit(paths, labels)
    classifier = ImageClassifier(QUICK).fit(paths[:5] + paths[6:], labels[:5] + labels[6:])
    with pytest.raises(ValueError, match=re.escape(paths[5].name)):
        classifier.predict(paths)


def test_it_must_be_fitted_first() -> None:
    for method in (ImageClassifier().predict, ImageClassifier().predict_proba):
        with pytest.raises(NotFittedError):
            method(X)
    with pytest.raises(NotFittedError):
        ImageClassifier().score(X, Y)


def test_the_same_state_gives_the_same_network() -> None:
    def probabilities(random_state: Any) -> npt.NDArray[np.float32]:
        return ImageClassifier(QUICK, random_state=random_state).fit(X, Y).predict_proba(X)

    assert (probabilities(1) == probabilities(1)).all()
    assert (probabilities(1) != probabilities(2)).any()
    first, second = (probabilities(np.random.RandomState(5)) for _ in range(2))
    assert (first == second).all()


def test_the_settings_become_a_recipe() -> None:
    chosen = ImageClassifier(QUICK, epochs=2, class_weight="balanced", random_state=7, threads=1)
    recipe = chosen.fit(X, Y).run_.recipe
    assert (recipe.epochs, recipe.class_weights, recipe.seed, recipe.threads) == (
        *(2, "balanced"),
        *(7, 1),
    )


@pytest.mark.parametrize(
    ("settings", "minutes", "epochs", "start"),
    [
        ({}, module.MINUTES, None, "auto"),
        ({"epochs": 2}, None, 2, "auto"),
        ({"minutes": 3}, 3, None, "auto"),
        ({"model": "efficientnet-lite0", "epochs": 0}, None, 0, "pretrained"),
        ({"recipe": "digits"}, None, 20, "scratch"),
        ({"recipe": QUICK}, None, 1, "scratch"),
        ({"recipe": QUICK, "minutes": 3}, 3, None, "scratch"),
    ],
)
def test_recipe_and_length_of_a_fit(
    settings: dict[str, Any],
    minutes: float | None,
    epochs: int | None,
    start: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    seen = []

    def train(data: Any, recipe: Recipe, **options: Any) -> None:
        seen.append((recipe.minutes, recipe.epochs, recipe.start))
        raise PeewitError("that is enough")

    monkeypatch.setattr(module, "train", train)
    with pytest.raises(ValueError, match="enough"):
        ImageClassifier(**settings).fit(X, Y)
    assert seen == [(minutes, epochs, start)]


@pytest.mark.parametrize("way", ["pickle", "copy"])
def test_copies_predict_without_the_original(way: str) -> None:
    classifier = ImageClassifier(QUICK).fit(X, Y)
    expected, place = classifier.predict_proba(X), classifier.run_.path
    other = pickle.loads(pickle.dumps(classifier)) if way == "pickle" else copy.deepcopy(classifier)
    del classifier
    gc.collect()
    assert not place.parent.exists()
    np.testing.assert_array_equal(other.predict_proba(X), expected)
    assert other.run_.metrics["split"] == "validation"
    assert other.get_params() == ImageClassifier(QUICK).get_params()


def test_the_run_folder_is_temporary_unless_it_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # drawing takes longer than all the training here
    drawn = []
    for name in ("save_curves", "save_confusion", "save_mistakes"):
        monkeypatch.setattr(plots, name, lambda path, *rest: drawn.append(path.name))
    monkeypatch.setattr(report, "after_training", lambda run, *rest: drawn.append(run.path.name))
    monkeypatch.setattr(benchmark, "best_rate", lambda *rest: 1e9)
    classifier = ImageClassifier(QUICK).fit(X, Y)
    first = classifier.run_.path
    second = classifier.fit(X, Y).run_.path
    gc.collect()
    assert not first.exists()
    assert second.is_dir()
    assert drawn == []
    kept = ImageClassifier(QUICK, out=tmp_path / "run").fit(X, Y)
    del classifier, kept
    gc.collect()
    assert not second.parent.exists()
    assert (tmp_path / "run" / "model.safetensors").is_file()
    assert drawn == ["confusion.png", "mistakes.png", "curves.png", "run"]
    with pytest.raises(ValueError, match="taken"):
        ImageClassifier(QUICK, out=tmp_path / "run").fit(X, Y)


def test_a_failed_fit_leaves_no_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    with pytest.raises(ValueError, match="threads"):
        ImageClassifier(QUICK, threads=100_000).fit(X, Y)
    assert list(tmp_path.iterdir()) == []


def test_ctrl_c_stops_a_search_and_not_only_one_fit(monkeypatch: pytest.MonkeyPatch) -> None:
    class Stop(Callback):
        def on_step_end(self, state: Any) -> None:
            signal.raise_signal(signal.SIGINT)

    monkeypatch.setattr(module, "Callback", Stop)
    with pytest.raises(KeyboardInterrupt):
        cross_val_score(ImageClassifier(QUICK), X, Y, cv=2)


def test_verbose_shows_the_progress(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    ImageClassifier(QUICK).fit(X, Y)
    assert capsys.readouterr() == ("", "")
    ImageClassifier(QUICK, verbose=1).fit(X, Y)
    shown = capsys.readouterr()
    assert shown.out == ""
    assert "accuracy" in shown.err


def test_cross_validation_over_files(files: tuple[list[Path], list[str]]) -> None:
    scores = cross_val_score(ImageClassifier(QUICK), *files, cv=2, error_score="raise")
    assert ((scores >= 0) & (scores <= 1)).all()
    assert list(caches.folder_of_pictures().glob("*/about.json"))  # decoded once


def test_a_search_over_a_pipeline() -> None:
    data = brightness(120, 8, 1)
    rows = data.images.reshape(120, 64).astype(float)
    classifier = ImageClassifier(QUICK, image_shape=(8, 8))
    pipeline = make_pipeline(MinMaxScaler(clip=True), classifier)
    search = GridSearchCV(
        pipeline, {"imageclassifier__epochs": [1, 3]}, cv=2, error_score="raise"
    ).fit(rows, data.labels)
    assert search.best_score_ > 0.9
    assert (
        search.best_estimator_[-1].run_.recipe.epochs
        == search.best_params_["imageclassifier__epochs"]
    )


def test_without_scikit_learn_the_error_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "sklearn.base", None)
    monkeypatch.delitem(sys.modules, module.__name__)
    with pytest.raises(PeewitError, match=r"pip install 'peewit\[sklearn\]'"):
        importlib.import_module(module.__name__)
