"""The contents and captions of the report's picture files."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from PIL import Image

from peewit import plots
from peewit.report import write_report
from peewit.report.pictures import FILTER_SCALE, filter_sheet, first_filters
from peewit.runs import folder as runfolder


def test_heat_map_captions_have_the_class_and_its_probability_on_separate_lines(
    make: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn: dict[str, Any] = {}

    def save(path: Any, images: Any, captions: Any, heading: str = "", columns: int = 0) -> None:
        if path.name == runfolder.HEAT_MAPS:
            drawn.update(images=images, captions=captions, columns=columns)

    monkeypatch.setattr(plots, "save_pictures", save)
    run, evidence = make(["cat", "dog", "a name that is long"], noise=2.0)
    write_report(run, evidence)
    right, wrong = evidence.explained
    assert len(drawn["images"]) == len(drawn["captions"]) == 2 * len(right) + 3 * len(wrong)
    # An explanation never continues in the next row
    assert len(right) * 2 % drawn["columns"] == 0
    captions = [[text for text, _ in lines] for lines in drawn["captions"]]
    index = int(right[0])
    name = evidence.judged.class_names[evidence.predicted[index]]
    confidence = evidence.probabilities[index].max()
    assert captions[:2] == [[name], [f"predicted: {name}", f"{confidence:.1%}"]]
    index = int(wrong[0])
    predicted, label = (
        evidence.judged.class_names[number]
        for number in (evidence.predicted[index], evidence.judged.labels[index])
    )
    at = 2 * len(right)
    confidence = evidence.probabilities[index].max()
    assert captions[at : at + 3] == [
        [label],
        [f"predicted: {predicted}", f"{confidence:.1%}"],
        [f"true: {label}"],
    ]


@pytest.mark.parametrize("channels", [1, 3])
def test_filters_are_the_weights_of_the_first_layer(make: Any, channels: int) -> None:
    run, evidence = make(["cat", "dog"], channels=channels)
    write_report(run, evidence)
    filters = first_filters(run.model())
    assert filters is not None
    assert filters.shape[1:] == (channels, 3, 3)
    sheet = filter_sheet(filters, columns=16)
    with Image.open(run.path / runfolder.FILTERS) as picture:
        pixels = np.asarray(picture)
    assert np.array_equal(pixels[::FILTER_SCALE, ::FILTER_SCALE], sheet)
    # The largest weight of each filter has full intensity, positive or negative
    first = sheet[:3, :3, :3].astype(int) - 128
    assert np.abs(first).max() == 127
    expected = np.rint(127 * filters[0] / np.abs(filters[0]).max()).transpose(1, 2, 0)
    assert np.abs(first - expected).max() <= 1
