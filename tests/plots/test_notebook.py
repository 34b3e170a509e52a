"""How notebooks (IPython) display values and pictures."""

from __future__ import annotations

import base64
import io
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from IPython.core.formatters import DisplayFormatter
from PIL import Image
from rich.console import Console

import peewit
from made_runs import make_run
from peewit import plots
from peewit.data.dataset import Dataset
from peewit.data.download.rate import Progress
from peewit.data.gallery import choose
from peewit.data.sources import SourceNotAvailable
from peewit.errors import PeewitError, UsageError
from peewit.models.registry import build
from peewit.models.summary import summarise
from peewit.prediction.predict import Prediction


def displayed(value: Any) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return what IPython would display, by type, and its metadata."""
    content, metadata = DisplayFormatter().format(value)
    return content, metadata


def test_images_of_a_data_set(tiny: Dataset, tmp_path: Path) -> None:
    content, metadata = displayed(peewit.show(tiny, range(3)))
    plots.save_grid(tmp_path / "grid.png", tiny, range(3))
    png = content["image/png"]
    png = base64.b64decode(png) if isinstance(png, str) else png
    assert png == (tmp_path / "grid.png").read_bytes()
    with Image.open(io.BytesIO(png)) as picture:
        width, height = picture.size
    # 150 pixels per inch, displayed in the same size on a screen of 96 pixels per inch
    assert metadata["image/png"] == {"width": width * 96 // 150, "height": height * 96 // 150}


def test_images_are_chosen_as_on_the_command_line(tiny: Dataset) -> None:
    assert peewit.show(tiny, seed=1) == peewit.show(tiny, seed=1) != peewit.show(tiny, seed=2)
    chosen = choose(tiny, classes=["dark"], count=2)
    assert peewit.show(tiny, classes=["dark"], count=2) == peewit.show(tiny, chosen.tolist())
    with pytest.raises(UsageError, match=r"\b60\b"):
        peewit.show(tiny, [60])


def test_pictures_of_a_run(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run")
    (run.path / "curves.png").write_bytes(b"drawn")
    assert run.picture("curves").content == b"drawn"
    with pytest.raises(UsageError, match=r"no picture 'curve'.* curves, confusion,"):
        run.picture("curve")
    with pytest.raises(PeewitError, match=r"has no picture mistakes\.png"):
        run.picture("mistakes")


def test_results_are_displayed_as_tables() -> None:
    result = peewit.evaluate([[2.0, 0.0], [0.0, 1.0]], [0, 1], ["cat", "dog"])
    assert displayed(result)[0] == {"text/plain": result.table()}
    summary = summarise(build("tutorial", (22, 22, 3), 2, seed=0), (22, 22, 3))
    assert displayed(summary)[0] == {"text/plain": summary.table()}


def test_a_download_is_shown_in_a_notebook_only(monkeypatch: pytest.MonkeyPatch) -> None:
    shown: list[str] = []
    handle = SimpleNamespace(update=lambda content, raw: shown.append(content["text/plain"]))

    def display(content: dict[str, str], raw: bool, display_id: bool) -> SimpleNamespace:
        handle.update(content, raw)
        return handle

    def fetch(*_: object, progress: Callable[[Progress], None] | None) -> None:
        if progress is not None:
            for received in (50_000_000, 100_000_000):
                progress(Progress("https://example.org/a", received, 170_000_000, 1e7))
        raise SourceNotAvailable("cannot download it")

    monkeypatch.setattr("IPython.display.display", display)
    monkeypatch.setattr("peewit.data.download.fetch.fetch_archive", fetch)
    for jupyter in (False, True):
        console = Console(force_jupyter=jupyter, file=io.StringIO())
        monkeypatch.setattr("peewit.system.terminal.console_err", lambda console=console: console)
        with pytest.raises(SourceNotAvailable):
            peewit.load("cifar10")
        assert len(shown) == 2 * jupyter
    for part in ("example.org", "50.0", "170.0 MB", "10.0 MB/s", "12 s"):
        assert part in shown[0]


def test_a_prediction_is_displayed_as_one_line() -> None:
    prediction = Prediction("cat.jpg", (("cat", 0.985), ("dog", 0.01)))
    assert str(prediction) == "cat.jpg: cat 98.5%, dog 1.0%"
