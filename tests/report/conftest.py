"""Fixtures for the reports: finished runs without training, and a parser for the pages."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from html.parser import HTMLParser
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest

from peewit.data.dataset import Dataset
from peewit.evaluation.metrics import evaluate
from peewit.images.preprocessing import Preprocessing
from peewit.models.registry import build
from peewit.report import Evidence
from peewit.runs import folder as runfolder
from peewit.runs.run import Run
from peewit.training.checkpoint import write_tensors
from peewit.training.recipe import Recipe

# The smallest input of the tutorial model
SIZE = 22
# Elements without an end tag
VOID = {"meta", "img", "br", "line", "rect", "circle", "polyline"}


class Tested(NamedTuple):
    """A finished run and the images that it was tested on."""

    run: Run
    evidence: Evidence


Make = Callable[..., Tested]


@pytest.fixture
def make(tmp_path: Path) -> Make:
    """Create finished runs with initial weights and mostly correct predictions."""

    def made(
        names: Sequence[str],
        pictures: int = 60,
        channels: int = 3,
        size: int = SIZE,
        folder: str = "run",
        noise: float = 1.0,
    ) -> Tested:
        random = np.random.default_rng(0)
        images = random.integers(0, 256, (pictures, size, size, channels), np.uint8)
        labels = np.arange(pictures) % len(names)
        data = Dataset(images, labels, names, "made up")
        logits = random.normal(size=(pictures, len(names))).astype(np.float32) * noise
        logits[np.arange(pictures), labels] += 2
        path = tmp_path / folder
        facts = {
            "class_names": list(names),
            "preprocessing": Preprocessing(
                SIZE, SIZE, channels, (0.0,) * channels, (1.0,) * channels
            ).to_dict(),
            "source": {"source": "cifar10", "data": None, "coarse": False},
            "dataset": {"origin": "made up", "images": {"training": pictures, "test": pictures}},
            "environment": {"date": "2026-01-02T03:04:05", "torch": "2.6", "command": "peewit x"},
        }
        runfolder.create(path, facts, Recipe(epochs=2, threads=1))
        network = build("tutorial", (SIZE, SIZE, channels), len(names), seed=0)
        write_tensors(path / runfolder.WEIGHTS, network.state_dict(), {})
        runfolder.write_history(path, history(2))
        result = evaluate(logits, labels, names)
        runfolder.write_metrics(path, {"split": "test", **result.to_dict()})
        runfolder.write_finished(path, True)
        evidence = Evidence(training=data, judged=data, logits=logits)
        return Tested(Run.open(path), evidence)

    return made


def history(epochs: int) -> list[dict[str, float]]:
    return [
        {
            "epoch": epoch,
            "seconds": 10.0,
            "images_per_second": 1000.0,
            "loss": 2 / epoch,
            "accuracy": 1 - 0.8 / epoch,
            "validation_loss": 2.2 / epoch,
            "validation_accuracy": 0.95 - 0.8 / epoch,
        }
        for epoch in range(1, epochs + 1)
    ]


class Page(HTMLParser):
    """The content of a page. Fails if an element is not closed, or closed too early."""

    def __init__(self, content: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.headings: list[tuple[int, str]] = []
        self.words: list[str] = []
        self.style = ""
        self.feed(content)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)
        if tag in ("h1", "h2", "h3"):
            self.headings.append((int(tag[1]), ""))

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag, self.getpos()

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] == "style":
            self.style += data
            return
        if self.open and self.open[-1] in ("h1", "h2", "h3"):
            level, text = self.headings.pop()
            self.headings.append((level, text + data))
        self.words.append(data)

    @property
    def text(self) -> str:
        """The visible text, with single spaces."""
        return " ".join(" ".join(self.words).split())

    def all(self, tag: str) -> list[dict[str, str | None]]:
        """Return the attributes of all elements named ``tag``."""
        return [attributes for name, attributes in self.tags if name == tag]

    def values(self) -> list[tuple[str, Any]]:
        """Return all attributes of all elements."""
        return [pair for _, attributes in self.tags for pair in attributes.items()]


@pytest.fixture
def read() -> Callable[[Path], Page]:
    """Parse a page."""
    return lambda path: Page(path.read_text(encoding="utf-8"))
