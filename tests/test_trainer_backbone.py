"""``peewit.train`` on the features of an encoder in an ONNX file, and what the run can do."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from made_encoders import FEATURES, encoder, saved
from made_pictures import folder_of_pictures
from peewit import report
from peewit.data.packing import at_size
from peewit.data.sources import load
from peewit.errors import Interrupted, PeewitError, UsageError
from peewit.export import onnx
from peewit.export.job import export
from peewit.export.operations import Dense, operations_of
from peewit.images.preprocessing import Preprocessing
from peewit.models.efficientnet_lite import EfficientNetLite
from peewit.models.encoders.encoder import Encoder
from peewit.models.registry import build
from peewit.prediction.engines import fastest
from peewit.prediction.runtimes import write_network
from peewit.prediction.similar import SimilarImages
from peewit.runs.run import Run
from peewit.trainer import train
from peewit.training.callbacks import Callback
from peewit.training.recipe import Recipe


class Notes(Callback):
    """Keeps the notes."""

    def __init__(self) -> None:
        self.texts: list[str] = []

    def on_note(self, text: str) -> None:
        self.texts.append(text)


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return folder_of_pictures(tmp_path_factory.mktemp("pictures") / "made", 24, size=(20, 24))


def trained(pictures: Path, out: Path, file: Path, **changes: Any) -> tuple[Run, list[str]]:
    splits, notes = load(str(pictures)), Notes()
    changes = {"folds": 0, "threads": 1, "backbone": str(file), **changes}
    recipe = Recipe.preset("pretrained", **changes)
    source = {"source": str(pictures)}
    run = train(splits.train, recipe, test=splits.test, out=out, source=source, progress=notes)
    return run, notes.texts


@pytest.fixture(scope="module")
def run(pictures: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    folder = tmp_path_factory.mktemp("runs")
    file = saved(folder, encoder("class token"))
    made, _ = trained(pictures, folder / "run", file)
    file.unlink()  # the run must not need it
    return made


def test_the_run_needs_nothing_else(run: Run, pictures: Path, tmp_path: Path) -> None:
    moved = tmp_path / "moved"
    run.path.rename(moved)
    try:
        opened = Run.open(moved)
        assert opened.metrics["accuracy"] > 0.9
        assert opened.backbone["file"] == "made.onnx"
        assert opened.backbone["features"] == FEATURES
        assert (opened.epochs, opened.recipe.model) == (0, "onnx")
        data = load(str(pictures)).train
        images = np.stack([np.asarray(data.images[at]) for at in range(12)])
        found = opened.probabilities(images)
        assert found.argmax(1).tolist() == data.labels[:12].tolist()
        # by the runtimes as well, where the encoder and the layer are one file
        write_network(opened, tmp_path / "engine.onnx")
        np.testing.assert_allclose(fastest(opened).probabilities(images), found, atol=1e-5)
    finally:
        moved.rename(run.path)


def test_the_features_of_a_built_in_network(tmp_path: Path, pictures: Path) -> None:
    network = build("efficientnet-lite0", (32, 32, 3), 2, seed=0).eval()
    assert isinstance(network, EfficientNetLite)
    rule = Preprocessing(32, 32, 3, (127 / 255,) * 3, (128 / 255,) * 3)
    graph = onnx.Graph()
    operations = [one for one in operations_of(network) if not isinstance(one, Dense)]
    out = onnx.add_network(graph, "pixels", operations, rule)
    out = graph.add("Identity", out, output="features")
    model = graph.model(("pixels", np.float32, ["N", 3, 32, 32]), (out, ["N", 1280]), {})
    images = np.random.default_rng(0).integers(0, 256, (3, 32, 32, 3), np.uint8)
    found = Encoder(saved(tmp_path, model)).features(rule.array(images))
    with torch.inference_mode():
        wanted = network.features(rule.tensor(images)).numpy()
    assert np.abs(found - wanted).max() < 1e-5 * np.abs(wanted).max()


@pytest.mark.parametrize("form", ["onnx", "openvino"])
@pytest.mark.parametrize("raw", [False, True])
def test_exports_have_backbone_and_layer_in_one_file(run: Run, form: str, raw: bool) -> None:
    (agreement,) = export(run, form, raw=raw).files.values()
    assert agreement is not None
    assert agreement.changed == 0
    assert agreement.difference < 1e-4


@pytest.mark.parametrize(
    "options",
    [{"channels_last": True}, {"kind": 10}, {"kind": 2}, {"form": "tokens"}, {"opset": 13}],
)
def test_exports_of_other_encoders(options: Any, pictures: Path, tmp_path: Path) -> None:
    made, _ = trained(pictures, tmp_path / "run", saved(tmp_path, encoder(**options)))
    (agreement,) = export(made, "onnx").files.values()
    assert agreement is not None
    assert agreement.difference < 1e-3


@pytest.mark.parametrize("form", ["torch", "keras"])
def test_other_exports_say_why_not(run: Run, form: str) -> None:
    with pytest.raises(PeewitError, match="backbone is an ONNX file"):
        export(run, form)


def test_a_report_without_heat_maps(run: Run) -> None:
    page = report.write_report(run).read_text(encoding="utf-8")
    assert "backbone made.onnx" in page


def test_the_normalisation_of_the_file_or_of_the_user(pictures: Path, tmp_path: Path) -> None:
    metadata = {"image_mean": "[0.5, 0.4, 0.3]", "image_std": "[0.2, 0.2, 0.1]"}
    file = saved(tmp_path, encoder(metadata=metadata))
    made, notes = trained(pictures, tmp_path / "file", file)
    assert (made.preprocessing.mean, made.preprocessing.std) == ((0.5, 0.4, 0.3), (0.2, 0.2, 0.1))
    assert not any("ImageNet" in note for note in notes)
    made, _ = trained(pictures, tmp_path / "user", file, backbone_mean="0,0,0")
    assert (made.preprocessing.mean, made.preprocessing.std) == ((0, 0, 0), (0.2, 0.2, 0.1))
    made, notes = trained(pictures, tmp_path / "unknown", saved(tmp_path))
    assert made.preprocessing.mean == (0.485, 0.456, 0.406)
    assert any("ImageNet" in note for note in notes)


def test_few_pictures_are_cross_validated(tmp_path: Path) -> None:
    few = folder_of_pictures(tmp_path / "few", 8, size=(20, 24))
    made, _ = trained(few, tmp_path / "run", saved(tmp_path), folds=None)
    assert made.metrics["split"] == "cross-validation"


def test_an_interrupted_run_is_resumed_with_its_own_copy(pictures: Path, tmp_path: Path) -> None:
    class Stop(Callback):
        def should_stop(self) -> bool:
            return (tmp_path / "run").exists()

    file, splits = saved(tmp_path), load(str(pictures))
    recipe = Recipe.preset("pretrained", folds=0, threads=1, backbone=str(file))
    options: dict[str, Any] = {"test": splits.test, "progress": Callback()}
    with pytest.raises(Interrupted):
        train(splits.train, recipe, out=tmp_path / "run", callbacks=[Stop()], **options)
    file.unlink()
    resumed = train(splits.train, None, resume=tmp_path / "run", **options)
    assert resumed.status == "finished"
    assert resumed.metrics["accuracy"] > 0.9


@pytest.mark.parametrize("damage", ["changed", "missing"])
def test_a_damaged_copy_is_noticed(damage: str, pictures: Path, tmp_path: Path) -> None:
    made, _ = trained(pictures, tmp_path / "run", saved(tmp_path))
    file = made.path / "backbone.onnx"
    if damage == "missing":
        file.unlink()
    else:
        saved(made.path, encoder("vector"), "backbone.onnx")
    with pytest.raises(PeewitError, match="backbone"):
        Run.open(made.path).model()


def test_recipes_that_contradict_a_backbone() -> None:
    wrong: list[dict[str, Any]] = [
        {"model": "onnx"},
        {"backbone_mean": "0,0,0"},
        {"backbone": "a.onnx", "fine_tune": "all"},
        {"backbone": "a.onnx", "backbone_mean": "0,0"},
        {"backbone": "a.onnx", "backbone_std": "1,0,1"},
        {"backbone": "a.onnx", "optimizer": "muon"},
    ]
    for changes in wrong:
        with pytest.raises(UsageError):
            Recipe(**changes)


def test_a_recipe_names_a_file_beside_it(tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text("backbone: a.onnx\n")
    assert Recipe.from_yaml(tmp_path / "mine.yaml").backbone == str(tmp_path / "a.onnx")


def test_a_file_that_is_no_encoder_leaves_no_run(pictures: Path, tmp_path: Path) -> None:
    file = tmp_path / "a.onnx"
    file.write_bytes(b"not one")
    with pytest.raises(PeewitError, match="not an ONNX file"):
        trained(pictures, tmp_path / "run", file)
    assert not (tmp_path / "run").exists()


def test_similar_training_images(run: Run, pictures: Path) -> None:
    training = load(str(pictures)).train
    training = at_size(training, 16, 16, "stretch", lambda text: None, lambda progress: None)
    found = SimilarImages(run, training).of(training.images[:1], 1)
    assert found[0][0].index == 0
    assert found[0][0].similarity == pytest.approx(1.0, abs=1e-5)
