"""Image files of any size and format are classified in order, and failures stop no others."""

from __future__ import annotations

import io
import json
import os
import threading
from pathlib import Path
from typing import Any, cast

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image

from peewit.data.dataset import Dataset
from peewit.errors import PeewitError, UsageError
from peewit.images.scaled import read_sized
from peewit.prediction.predict import (
    BATCH,
    LARGEST_PIPED,
    Prediction,
    Source,
    find_pictures,
    predict,
)
from peewit.runs.run import Run
from peewit.trainer import train
from peewit.training.recipe import Recipe


class Brightness:
    """Stand-in for a Run: the brighter the picture, the higher the probability of "day"."""

    class_names = ("night", "dusk", "day")

    def __init__(self) -> None:
        self.batches: list[tuple[int, ...]] = []

    def read(self, content: Any, name: str) -> npt.NDArray[np.uint8]:
        return read_sized(content, name, height=6, width=8)

    def probabilities(self, images: npt.NDArray[Any]) -> npt.NDArray[np.float32]:
        self.batches.append(images.shape)
        day = images.mean(axis=(1, 2, 3)) / 255
        return np.stack([0.9 * (1 - day), 0.1 + 0 * day, 0.9 * day], axis=1).astype(np.float32)


@pytest.fixture
def run() -> Run:
    return cast(Run, Brightness())


def paint(path: Path, level: int, size: tuple[int, int] = (8, 6), mode: str = "RGB") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new(mode, size, (level,) * len(mode) if len(mode) > 1 else level).save(path)
    return path


def test_pictures_of_all_sizes_and_formats_in_order(run: Run, tmp_path: Path) -> None:
    files = [
        paint(tmp_path / "a.png", 255),
        paint(tmp_path / "b.jpg", 0, (100, 3)),
        paint(tmp_path / "c.gif", 255, mode="L"),
        paint(tmp_path / "d.webp", 0, (1, 1)),
    ]
    answers = list(predict(run, files))
    assert all(isinstance(answer, Prediction) for answer in answers)
    predictions = [cast(Prediction, answer) for answer in answers]
    assert [answer.name for answer in predictions] == [str(file) for file in files]
    assert [answer.labels[0][0] for answer in predictions] == ["day", "night", "day", "night"]


def test_top_returns_the_most_likely_classes_first(run: Run, tmp_path: Path) -> None:
    (answer,) = predict(run, [paint(tmp_path / "a.png", 255)], top=2)
    assert isinstance(answer, Prediction)
    assert [name for name, _ in answer.labels] == ["day", "dusk"]
    assert [share for _, share in answer.labels] == pytest.approx([0.9, 0.1])


def test_a_top_above_the_number_of_classes_returns_all(run: Run, tmp_path: Path) -> None:
    (answer,) = predict(run, [paint(tmp_path / "a.png", 255)], top=20)
    assert isinstance(answer, Prediction)
    assert len(answer.labels) == 3


@pytest.mark.parametrize("top", [0, -1])
def test_a_top_below_1_is_rejected_at_once(run: Run, top: int) -> None:
    with pytest.raises(UsageError, match=f"top is {top}: "):
        predict(run, [], top=top)


def test_to_dict_is_json(run: Run, tmp_path: Path) -> None:
    (answer,) = predict(run, [paint(tmp_path / "a.png", 0)])
    decoded = json.loads(json.dumps(answer.to_dict()))  # type: ignore[union-attr]
    assert decoded["image"].endswith("a.png")
    assert decoded["labels"] == [{"class": "night", "probability": pytest.approx(0.9)}]


def test_names_cannot_control_the_terminal_or_forge_a_line() -> None:
    name = "a\x1b]0;title\x07.png: cat 99.0%\nb.png"
    answer = Prediction(name, (("dog\x1b[8m", 0.5), ("猫", 0.25)))
    assert str(answer) == "a?]0;title?.png: cat 99.0%?b.png: dog?[8m 50.0%, 猫 25.0%"
    # programs get the unchanged names
    assert answer.to_dict()["image"] == name
    assert answer.to_dict()["labels"][0]["class"] == "dog\x1b[8m"


def test_a_bad_picture_does_not_stop_the_others(run: Run, tmp_path: Path) -> None:
    good = [paint(tmp_path / f"{name}.png", 255) for name in "ace"]
    bad = tmp_path / "b.png"
    bad.write_text("<html>")
    empty = tmp_path / "d.png"
    empty.touch()
    answers = list(predict(run, [good[0], bad, good[1], empty, good[2]]))
    failed = [isinstance(answer, PeewitError) for answer in answers]
    assert failed == [False, True, False, True, False]
    assert "b.png: it is not a whole picture" in str(answers[1])
    assert "d.png: it is empty" in str(answers[3])


def test_pictures_are_batched_in_bounded_memory(tmp_path: Path) -> None:
    run = Brightness()
    small = paint(tmp_path / "small.png", 255)
    others = [paint(tmp_path / f"{size}.png", 0, (size, size)) for size in (9, 20, 300)]
    answers = list(predict(cast(Run, run), [small] * (BATCH + 6) + [*others, small]))
    assert run.batches == [(count, 6, 8, 3) for count in (BATCH, 10)]
    names = [cast(Prediction, answer).labels[0][0] for answer in answers]
    assert names == ["day"] * (BATCH + 6) + ["night"] * 3 + ["day"]


def test_results_are_yielded_before_all_pictures_are_read(run: Run, tmp_path: Path) -> None:
    file = paint(tmp_path / "a.png", 0)

    def endless() -> Any:
        while True:
            yield file

    assert isinstance(next(iter(predict(run, endless()))), Prediction)


def test_large_pictures_are_read_in_parallel(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    both, alone = threading.Barrier(2), run.read  # type: ignore[attr-defined]

    def read(content: Any, name: str) -> npt.NDArray[np.uint8]:
        both.wait(60)  # times out if pictures are read one after another
        return alone(content, name)  # type: ignore[no-any-return]

    monkeypatch.setattr(run, "read", read, raising=False)
    monkeypatch.setattr("peewit.prediction.predict.usable_cores", lambda: 2)
    monkeypatch.setattr("peewit.prediction.predict.SMALL", 0)  # treat all of them as large
    files = [paint(tmp_path / f"{number}.png", 25 * number) for number in range(10)]
    answers = [cast(Prediction, answer) for answer in predict(run, files)]
    assert [answer.name for answer in answers] == [str(file) for file in files]


def test_a_folder_is_searched_recursively_and_sorted(tmp_path: Path) -> None:
    for name in ("b.PNG", "a.jpeg", "deep/er/c.tif", "deep/d.png", ".hidden.png"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    (tmp_path / "notes.txt").touch()
    found = find_pictures([str(tmp_path)])
    assert [Path(source.name).relative_to(tmp_path).as_posix() for source in found] == [
        "a.jpeg",
        "b.PNG",
        "deep/d.png",
        "deep/er/c.tif",
    ]


def test_arguments_keep_their_order_and_their_names(tmp_path: Path) -> None:
    odd = paint(tmp_path / "z.png", 0).rename(tmp_path / "picture without suffix")
    folder = paint(tmp_path / "folder" / "a.png", 0).parent
    found = find_pictures([str(odd), str(folder), "-"], io.BytesIO(b"content"))
    assert found == [
        Source(str(odd), odd),
        Source(str(folder / "a.png"), folder / "a.png"),
        Source("standard input", b"content"),
    ]


@pytest.mark.skipif(not hasattr(os, "symlink") or os.name == "nt", reason="needs symbolic links")
def test_a_link_to_a_parent_causes_no_endless_loop(tmp_path: Path) -> None:
    paint(tmp_path / "a.png", 0)
    (tmp_path / "loop").symlink_to(tmp_path)
    notes: list[str] = []
    assert len(find_pictures([str(tmp_path)], note=notes.append)) == 1
    assert notes == [f"left out in {tmp_path}: 1 found twice (loop)"]


@pytest.mark.skipif(not hasattr(os, "symlink") or os.name == "nt", reason="needs symbolic links")
def test_links_to_folders_are_followed_and_each_folder_is_searched_once(tmp_path: Path) -> None:
    folder = tmp_path / "folder"
    own = paint(folder / "z" / "own.png", 0)
    paint(tmp_path / "elsewhere" / "deep" / "linked.png", 0)
    (folder / "a").symlink_to(folder / "z")
    (folder / "b").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "elsewhere" / "back").symlink_to(folder)
    found = find_pictures([str(folder)])
    assert [source.content for source in found] == [folder / "b" / "deep" / "linked.png", own]


def test_what_is_left_out_of_a_folder_is_said(tmp_path: Path) -> None:
    paint(tmp_path / "a.png", 0)
    for name in (".ipynb_checkpoints", ".thumbnails", "@eaDir"):
        paint(tmp_path / name / "a.png", 0)
    for name in ("notes.txt", "x.svg", "y.svg", "z.mp4", "deep/notes.txt", ".hidden.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    notes: list[str] = []
    found = find_pictures([str(tmp_path), str(tmp_path / "a.png")], note=notes.append)
    assert [source.content for source in found] == [tmp_path / "a.png"] * 2
    assert notes == [
        f"left out in {tmp_path}: 4 hidden (.ipynb_checkpoints, .thumbnails, @eaDir and others); "
        "5 not pictures (notes.txt, x.svg, y.svg and others)"
    ]


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs named pipes")
def test_a_pipe_in_a_folder_is_left_out(tmp_path: Path) -> None:
    paint(tmp_path / "a.png", 0)
    os.mkfifo(tmp_path / "pipe.png")
    assert [source.content for source in find_pictures([str(tmp_path)])] == [tmp_path / "a.png"]


@pytest.mark.parametrize("suffix", [".heic", ".HIF", ".avif"])
def test_heic_and_avif_in_a_folder_are_pictures(tmp_path: Path, suffix: str) -> None:
    (tmp_path / f"a{suffix}").touch()
    assert len(find_pictures([str(tmp_path)])) == 1


def test_a_piped_picture_is_predicted(run: Run, tmp_path: Path) -> None:
    content = paint(tmp_path / "a.png", 255).read_bytes()
    (answer,) = predict(run, find_pictures(["-"], io.BytesIO(content)))
    assert answer == Prediction("standard input", (("day", pytest.approx(0.9)),))


def test_empty_standard_input() -> None:
    for stream in (io.BytesIO(), None):
        with pytest.raises(PeewitError, match="standard input is empty"):
            find_pictures(["-"], stream)


def test_endless_standard_input_is_rejected() -> None:
    class Zeros(io.RawIOBase):
        def read(self, size: int | None = -1) -> bytes:
            assert size == LARGEST_PIPED + 1
            return b"\0" * size

    with pytest.raises(PeewitError, match="standard input: it is larger than 256 MB"):
        find_pictures(["-"], cast(Any, Zeros()))


def test_missing_file() -> None:
    with pytest.raises(PeewitError, match=r"cannot read no\.png: there is no such file or folder"):
        find_pictures(["no.png"])


def test_folder_without_pictures(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").touch()
    with pytest.raises(PeewitError, match=r"there are no pictures in .*: .* such as \.png"):
        find_pictures([str(tmp_path)])


@pytest.fixture(scope="module")
def trained(tiny: Dataset, tiny_test: Dataset, tmp_path_factory: pytest.TempPathFactory) -> Run:
    folder = tmp_path_factory.mktemp("trained") / "run"
    return train(tiny, Recipe(epochs=1), test=tiny_test, out=folder)


def test_files_get_the_same_predictions_as_their_pixels(
    trained: Run, tiny: Dataset, tmp_path: Path
) -> None:
    for number, image in enumerate(tiny.images[:6]):
        Image.fromarray(image).save(tmp_path / f"{number}.png")
    answers = list(predict(trained, find_pictures([str(tmp_path)]), top=3))
    shares = trained.probabilities(tiny.images[:6])
    for answer, row in zip(answers, shares, strict=True):
        assert isinstance(answer, Prediction)
        assert dict(answer.labels) == pytest.approx(dict(zip(tiny.class_names, row, strict=True)))


def test_a_real_run_accepts_any_size_and_mode(trained: Run, tmp_path: Path) -> None:
    files = [
        paint(tmp_path / "small.png", 90, (1, 1)),
        paint(tmp_path / "long.png", 90, (500, 3)),
        paint(tmp_path / "grey.png", 90, (300, 200), mode="L"),
        paint(tmp_path / "clear.png", 90, (20, 40), mode="RGBA"),
    ]
    answers = [cast(Prediction, answer) for answer in predict(trained, files, top=3)]
    # a uniform picture stays uniform when it is resized, so the first three inputs are equal
    for answer in answers[1:3]:
        assert dict(answer.labels) == pytest.approx(dict(answers[0].labels), abs=1e-4)
    assert sum(share for _, share in answers[3].labels) == pytest.approx(1)
