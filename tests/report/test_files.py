"""What stands in and under the report's picture files."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from PIL import Image

from peewit import plots
from peewit.report import write_report
from peewit.report.files import FILTER_SCALE
from peewit.report.inline import filter_sheet, first_filters
from peewit.runs import folder as runfolder


def test_heat_maps_have_name_and_number_on_lines_of_their_own(
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
    # a whole explanation stands in one row
    assert len(right) * 2 % drawn["columns"] == 0
    words = [[text for text, _ in lines] for lines in drawn["captions"]]
    index = int(right[0])
    name = evidence.judged.class_names[evidence.predicted[index]]
    sure = evidence.probabilities[index].max()
    assert words[:2] == [[name], [f"for {name}", f"{sure:.1%}"]]
    index = int(wrong[0])
    answered, truth = (
        evidence.judged.class_names[label]
        for label in (evidence.predicted[index], evidence.judged.labels[index])
    )
    at = 2 * len(right)
    sure = evidence.probabilities[index].max()
    assert words[at : at + 3] == [[truth], [f"for {answered}", f"{sure:.1%}"], [f"for {truth}"]]


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
    # the strongest weight of each filter has the full colour, for or against
    first = sheet[:3, :3, :3].astype(int) - 128
    assert np.abs(first).max() == 127
    expected = np.rint(127 * filters[0] / np.abs(filters[0]).max()).transpose(1, 2, 0)
    assert np.abs(first - expected).max() <= 1
