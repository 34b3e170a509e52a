"""A classifier with scikit-learn's conventions: each ``fit`` is a training in a run folder."""

from __future__ import annotations

import os
import shutil
import tempfile
import time
import weakref
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from numbers import Integral
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from peewit.data.arrays import PillowFiles, to_images
from peewit.data.dataset import Dataset
from peewit.data.store import Images, select
from peewit.errors import Interrupted, PeewitError
from peewit.models.registry import MODELS, PRETRAINED, find
from peewit.prediction.predict import Source, predict
from peewit.runs import folder as runfolder
from peewit.runs.run import Run
from peewit.trainer import train
from peewit.training.callbacks import Callback
from peewit.training.progress import automatic
from peewit.training.recipe import Recipe

try:
    from sklearn.base import BaseEstimator, ClassifierMixin
    from sklearn.utils import check_array, check_consistent_length, check_random_state, column_or_1d
    from sklearn.utils.multiclass import check_classification_targets
    from sklearn.utils.validation import check_is_fitted, validate_data
except ImportError as error:
    raise PeewitError(
        "peewit.ImageClassifier needs scikit-learn 1.6 or later",
        "",
        "install it with: pip install 'peewit[sklearn]'",
    ) from error

# How long a fit takes if nothing says otherwise
MINUTES = 1.0
# The files of a run folder that a copy of a fitted classifier needs
_NEEDED = (
    *(runfolder.FACTS, runfolder.RECIPE, runfolder.HISTORY, runfolder.METRICS),
    runfolder.WEIGHTS,
)


class InputError(PeewitError, ValueError):
    """A parameter of ``ImageClassifier``, or its data, that nothing can be learned from."""


class ImageClassifier(ClassifierMixin, BaseEstimator):  # type: ignore[misc]
    """An image classifier for scikit-learn's pipelines, cross-validation and searches.

    ``fit`` trains a network by ``peewit.train``. A part of the images, a tenth of a small data set,
    is held out to calibrate the probabilities; none is held out for a test, which is the caller's.

    ``X`` is one of

    - an array of shape (N, H, W), (N, H, W, C) or (N, C, H, W) with one or three channels;
    - a list, Series or array of paths of picture files;
    - a list of Pillow's pictures, or of arrays, of any sizes;
    - with ``image_shape``, an array or data frame of shape (N, features): a row for each image.

    Whole numbers are pixels from 0 to 255, fractions from 0 to 1, unless ``pixel_range`` says
    otherwise. Pictures in one form can be predicted by a classifier fitted to another.

    Parameters
    ----------
    recipe : str or Recipe, optional
        The name of a recipe, or a recipe with all its settings. By default "auto" for a minute:
        "pretrained" for photographs if its weights are installed, else "fast".
    epochs : int, optional
        Number of passes over the training images.
    minutes : float, optional
        Time for ``fit``, instead of epochs. Unlike with epochs, two fits with the same
        ``random_state`` then differ.
    model : str, optional
        The network; by default that of the recipe, or with ``minutes`` one that fits them.
    class_weight : "balanced", optional
        Weight the loss by the inverse of each class's number of images. By default the recipe
        decides.
    image_shape : tuple of int, optional
        The shape of an image in the rows of a two-dimensional ``X``, such as (28, 28), (32, 32, 3)
        or (3, 32, 32). One number may be -1, as in ``numpy.reshape``.
    pixel_range : tuple of float, optional
        The values of black and white in arrays, such as (0, 16). What is beyond is clipped.
    random_state : int, RandomState or None
        The seed; None for that of the recipe, which is 0 unless set.
    threads : int, optional
        Number of CPU threads; by default one per free core.
    out : path, optional
        The run folder to create and keep, with report and pictures. By default a temporary
        folder without them, which is removed with the classifier.
    verbose : int
        1 shows the progress of the training.

    Attributes
    ----------
    classes_ : array, shape (classes,)
        The labels, sorted.
    run_ : Run
        The training: its history, its metrics on the images held out, its folder.
    n_features_in_ : int
        The length of a row, if ``X`` had rows.
    feature_names_in_ : array of str
        The names of the columns, if ``X`` was a data frame of rows.

    Raises
    ------
    InputError
        A parameter or the data is invalid. It is a ValueError and a PeewitError. Some errors are
        scikit-learn's own ValueError or TypeError.

    Notes
    -----
    There are no sample weights, no ``partial_fit``, and no sparse or multi-label data. With
    ``image_shape`` the classifier passes ``sklearn.utils.estimator_checks.check_estimator``, except
    for ``check_class_weight_classifiers``, because ``class_weight`` cannot be a dict. Without it,
    scikit-learn runs no checks, because they all use rows of numbers.

    Examples
    --------
    >>> import numpy as np
    >>> images = np.random.default_rng(0).integers(0, 100, (40, 8, 8), np.uint8)
    >>> images[::2] += 100
    >>> labels = np.array(["light", "dark"] * 20)
    >>> classifier = ImageClassifier(model="fast-xs", epochs=2, random_state=0)
    >>> classifier.fit(images, labels).predict(images[:3])
    array(['light', 'dark', 'light'], dtype='<U5')
    """

    def __init__(
        self,
        recipe: str | Recipe | None = None,
        *,
        epochs: int | None = None,
        minutes: float | None = None,
        model: str | None = None,
        class_weight: str | None = None,
        image_shape: Sequence[int] | None = None,
        pixel_range: tuple[float, float] | None = None,
        random_state: Any = None,
        threads: int | None = None,
        out: str | Path | None = None,
        verbose: int = 0,
    ) -> None:
        self.recipe = recipe
        self.epochs = epochs
        self.minutes = minutes
        self.model = model
        self.class_weight = class_weight
        self.image_shape = image_shape
        self.pixel_range = pixel_range
        self.random_state = random_state
        self.threads = threads
        self.out = out
        self.verbose = verbose

    def fit(self, X: Any, y: Any) -> ImageClassifier:  # noqa: N803
        """Train a network.

        Parameters
        ----------
        X : array, data frame, list or Series, length N
            Images; see the class.
        y : array-like, shape (N,)
            Their labels: whole numbers, texts or truth values.

        Returns
        -------
        ImageClassifier
            This one.

        Raises
        ------
        ValueError, TypeError
            A parameter or the data is invalid, or a picture cannot be read.
        KeyboardInterrupt
            The training was stopped (Ctrl-C).
        """
        began = time.perf_counter()
        for name in ("run_", "n_features_in_", "feature_names_in_"):
            self.__dict__.pop(name, None)  # of an earlier fit
        with _input_errors():
            pictures = _pictures(X)
            images: Images | None = None
            if pictures is None:
                images = self._images(X, reset=True)
            labels = column_or_1d(y, warn=True)
            check_classification_targets(labels)
            check_consistent_length(X if pictures is None else pictures, labels)
            self.classes_, numbers = np.unique(labels, return_inverse=True)
            if len(self.classes_) < 2:
                raise InputError(
                    f"all labels are {self.classes_[0]!r}", "one class cannot be told from others"
                )
            names = [str(label) for label in self.classes_.tolist()]
            if pictures is not None:
                images = self._stored(pictures, [names[number] for number in numbers])
            assert images is not None, "they are pictures or an array"
            data = Dataset(images, numbers.astype(np.int64), names)
            recipe = self._recipe(data)
            try:
                self.run_ = self._trained(data, recipe, began)
            except Interrupted as error:
                # a search would count another exception as a failed fit, and go on
                raise KeyboardInterrupt(str(error)) from error
        return self

    def predict(self, X: Any) -> npt.NDArray[Any]:  # noqa: N803
        """Return the most probable label of each image, shape (N,)."""
        probabilities = self.predict_proba(X)
        labels: npt.NDArray[Any] = self.classes_[probabilities.argmax(1)]
        return labels

    def predict_proba(self, X: Any) -> npt.NDArray[np.float32]:  # noqa: N803
        """Return the probability of each class, in the order of ``classes_``.

        Parameters
        ----------
        X : array, data frame, list or Series, length N
            Images; see the class.

        Returns
        -------
        float32 array, shape (N, classes)

        Raises
        ------
        sklearn.exceptions.NotFittedError
            ``fit`` has not been called.
        ValueError, TypeError
            The data is invalid, or a picture cannot be read.
        """
        check_is_fitted(self)
        run: Run = self.run_
        with _input_errors():
            pictures = _pictures(X)
            if pictures is None:
                return run.probabilities(self._images(X, reset=False))
            sources = (self._source(number, one) for number, one in enumerate(pictures))
            out = np.empty((len(pictures), len(self.classes_)), np.float32)
            for row, found in zip(out, predict(run, sources, len(self.classes_)), strict=True):
                if isinstance(found, PeewitError):
                    raise found
                shares = dict(found.labels)
                row[:] = [shares[name] for name in run.class_names]
            return out

    def _recipe(self, data: Dataset) -> Recipe:
        pretrained = self.model in MODELS and find(self.model).family == PRETRAINED
        recipe = self.recipe or ("pretrained" if pretrained else "auto")
        changes: dict[str, Any] = {
            "epochs": self.epochs,
            "minutes": self.minutes,
            "model": self.model,
            "threads": self.threads,
        }
        if self.recipe is None and self.epochs is None and self.minutes is None:
            changes["minutes"] = MINUTES
        if self.random_state is not None:
            seed = self.random_state
            if not isinstance(seed, Integral):
                seed = check_random_state(seed).randint(2**31 - 1)
            changes["seed"] = int(seed)
        if self.class_weight not in (None, "balanced"):
            raise InputError(
                f"class_weight is {self.class_weight!r}", "it must be 'balanced' or None"
            )
        if self.class_weight is not None:
            changes["class_weights"] = self.class_weight
        changes = {name: value for name, value in changes.items() if value is not None}
        if isinstance(recipe, Recipe):
            recipe = recipe.budgeted(**changes)
        else:
            recipe = Recipe.preset(recipe, **changes)
        largest = int(data.class_counts.max())
        if round(recipe.validation_fraction * largest) == 0:
            # a tenth, or if that would be none, one image of a class
            fraction = min(0.5, max(0.1, 1 / largest))
            recipe = recipe.replace(validation_fraction=fraction)
        return recipe

    def _trained(self, data: Dataset, recipe: Recipe, began: float) -> Run:
        kept = self.out is not None
        progress = automatic() if self.verbose else Callback()
        if kept:
            return train(data, recipe, out=self.out, progress=progress, began=began)
        folder = _temporary_folder()
        try:
            run = train(
                *(data, recipe),
                out=folder / "run",
                progress=progress,
                began=began,
                illustrated=False,
            )
            (run.path / runfolder.CHECKPOINT).unlink()  # larger than the weights
        except BaseException:
            _remove(folder)
            raise
        _remove_with(run, folder)
        return run

    def _images(self, X: Any, reset: bool) -> npt.NDArray[np.uint8]:  # noqa: N803
        """Return an array of images, or of rows, as uint8, shape (N, H, W, 1 or 3)."""
        dimensions = X.ndim if hasattr(X, "ndim") else np.asarray(X).ndim
        if dimensions > 2:
            return self._pixels(check_array(X, allow_nd=True))
        if self.image_shape is None:
            raise InputError(
                "X has a row of numbers for each image",
                "their height and width are unknown",
                "set image_shape, such as image_shape=(28, 28), or reshape X",
            )
        rows = validate_data(self, X, reset=reset)
        try:
            shaped = rows.reshape(len(rows), *self.image_shape)
        except (ValueError, TypeError) as error:
            raise InputError(
                f"rows of {rows.shape[1]:,} numbers are not images of the shape {self.image_shape}"
            ) from error
        return self._pixels(shaped)

    def _pixels(self, array: npt.NDArray[Any]) -> npt.NDArray[np.uint8]:
        """Return finite numbers as pixels, independently of the other images in the array."""
        if self.pixel_range is None:
            if array.dtype.kind == "f" and array.size and not 0 <= array.min() <= array.max() <= 1:
                raise InputError(
                    f"X has fractions from {array.min():g} to {array.max():g}",
                    "they must be from 0 to 1",
                    "set pixel_range to the values of black and white",
                )
            scaled = np.rint(array * 255).astype(np.uint8) if array.dtype.kind in "fb" else array
            return to_images(scaled, "X")
        low, high = map(float, self.pixel_range)
        if not low < high:
            raise InputError(f"pixel_range is {self.pixel_range}", "it must ascend")
        scaled = np.asarray(array, np.float32)
        scaled = np.clip((scaled - low) * (255 / (high - low)), 0, 255)
        return to_images(np.rint(scaled).astype(np.uint8), "X")

    def _stored(self, pictures: Sequence[Any], labels: Sequence[str]) -> Images:
        """Return paths, or pictures, as images that are decoded by the training."""
        if isinstance(pictures[0], str | os.PathLike):
            # an oversampled X has some paths more than once
            files = {os.path.abspath(path): number for number, path in enumerate(pictures)}  # noqa: PTH100
            rows = {file: row for row, file in enumerate(files)}
            images = Dataset.from_files(list(files), [labels[n] for n in files.values()]).images
            chosen = [rows[os.path.abspath(path)] for path in pictures]  # noqa: PTH100
            return select(replace(images, strict=True), np.array(chosen, np.int64))
        made = [self._picture(one) for one in pictures]
        found: Images = replace(Dataset.from_pictures(made, labels).images, strict=True)
        return found

    def _source(self, number: int, picture: Any) -> Source:
        if isinstance(picture, str | os.PathLike):
            return Source(os.fspath(picture), Path(picture))
        return Source(f"picture {number}", PillowFiles([self._picture(picture)]).read(0))

    def _picture(self, picture: Any) -> Image.Image:
        if isinstance(picture, Image.Image):
            return picture
        pixels = self._pixels(check_array(np.asarray(picture)[None], allow_nd=True))[0]
        return Image.fromarray(pixels[..., 0] if pixels.shape[2] == 1 else pixels)

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.two_d_array = self.image_shape is not None
        tags.input_tags.three_d_array = True
        return tags

    def __getstate__(self) -> dict[str, Any]:
        """Return the parameters and the needed files of the run, for pickle and joblib."""
        state = dict(super().__getstate__())
        if "run_" in state:
            state["run_"] = {
                name: (self.run_.path / name).read_bytes()
                for name in _NEEDED
                if (self.run_.path / name).is_file()
            }
        return state

    def __setstate__(self, state: Mapping[str, Any]) -> None:
        state = dict(state)
        files = state.pop("run_", None)
        super().__setstate__(state)
        if files is not None:
            folder = _temporary_folder()
            (folder / "run").mkdir()
            for name in _NEEDED:
                if name in files:
                    (folder / "run" / name).write_bytes(files[name])
            self.run_ = Run.open(folder / "run")
            _remove_with(self.run_, folder)


def _pictures(X: Any) -> Sequence[Any] | None:  # noqa: N803
    """Return the paths or pictures of ``X``; None if it is an array of numbers."""
    if isinstance(X, str | os.PathLike):
        raise InputError(f"X is the path {X}", "it must be a list of pictures")
    if not isinstance(X, list | tuple) and getattr(X, "ndim", 0) != 1:
        return None
    pictures = list(X)
    if not pictures:
        return None
    kinds = (str | os.PathLike, Image.Image, np.ndarray)
    for kind in kinds:
        if isinstance(pictures[0], kind):
            other = next((n for n, one in enumerate(pictures) if not isinstance(one, kind)), None)
            if other is not None:
                raise InputError(
                    f"X has a {type(pictures[0]).__name__} first, and as number {other} a "
                    f"{type(pictures[other]).__name__}",
                    todo="pass only paths, only pictures or only arrays",
                )
            same = kind is np.ndarray and len({one.shape for one in pictures}) == 1
            return None if same else pictures
    return None


@contextmanager
def _input_errors() -> Iterator[None]:
    """Turn the errors of Peewit into those that users of scikit-learn expect."""
    try:
        yield
    except InputError:
        raise
    except PeewitError as error:
        raise InputError(error.what, error.why, error.todo) from error


def _temporary_folder() -> Path:
    return Path(tempfile.mkdtemp(prefix="peewit-"))


def _remove(folder: Path) -> None:
    shutil.rmtree(folder, ignore_errors=True)


def _remove_with(run: Run, folder: Path) -> None:
    """Remove the folder when the run is garbage, or at the end of the process."""
    weakref.finalize(run, _remove, folder)
