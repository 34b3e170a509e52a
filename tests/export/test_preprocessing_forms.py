"""Every form of the preprocessing computes what ``Preprocessing.reference`` defines."""

from __future__ import annotations

from collections.abc import Callable
from importlib.util import find_spec
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from made_runs import pictures
from peewit.export import int8_onnx, int8_openvino
from peewit.export.job import FORMATS, Content, find_format
from peewit.export.keras import LayerNames, preprocessing_layers
from peewit.export.operations import Conv, Dense, Flatten
from peewit.images.fitting import fit_picture
from peewit.images.preprocessing import CropToAspect, PadToAspect, Preprocessing, Resize
from peewit.system.openvino_runtime import compile_network

Prepare = Callable[[np.ndarray], np.ndarray]  # uint8 (N, H, W, C) -> (N, height, width, channels)

RULES = {
    "the tutorial's": Preprocessing(6, 5, 3, (0, 0, 0), (1, 1, 1)),
    "mean and std per channel": Preprocessing(5, 8, 3, (0.1, 0.2, 0.3), (0.5, 0.25, 2)),
    "mean only": Preprocessing(4, 4, 3, (0.5, 0.4, 0.3), (1, 1, 1)),
    "grey": Preprocessing(5, 7, 1, (0.4,), (0.3,)),
    "one row": Preprocessing(1, 6, 3, (0, 0, 0), (0.5, 1, 2)),
    "one pixel": Preprocessing(1, 1, 1, (0,), (1,)),
    "crop": Preprocessing(6, 5, 3, (0.1, 0.2, 0.3), (0.5, 0.25, 2), "crop"),
    "crop, wide and grey": Preprocessing(3, 8, 1, (0.4,), (0.3,), "crop"),
    "pad": Preprocessing(6, 5, 3, (0.1, 0.2, 0.3), (0.5, 0.25, 2), "pad"),
    "pad, wide and grey": Preprocessing(3, 8, 1, (0.4,), (0.3,), "pad"),
    "pad, only divided": Preprocessing(7, 7, 3, (0, 0, 0), (1, 1, 1), "pad"),
}
SIZES = {
    "shrink": (23, 31),
    "enlarge": (3, 2),
    "tall": (40, 3),
    "wide": (2, 50),
    "thin": (1, 50),
    "square": (17, 17),
    "larger in one direction": (6, 11),
    "one pixel": (1, 1),
    "one row": (1, 9),
    "one column": (9, 1),
}
# a traced PyTorch program and a Keras model accept only the network's own number of channels
OWN_CHANNELS_ONLY = ("torch", "keras")


def tensor(rule: Preprocessing, folder: Path) -> Prepare:
    return lambda images: rule.tensor(images).permute(0, 2, 3, 1).numpy()


def array(rule: Preprocessing, folder: Path) -> Prepare:
    return rule.array


def exported(to: str) -> Callable[[Preprocessing, Path], Prepare]:
    """Return the preprocessing of a file in a format, measured through a transparent network."""

    def prepare(rule: Preprocessing, folder: Path) -> Prepare:
        # A network that returns its input and a logit of 0, to whose probability the others are
        # compared: log(softmax(x)[i]) - log(softmax(x)[last]) is x[i] - 0.
        inputs = rule.height * rule.width * rule.channels
        identity = Dense(np.eye(inputs + 1, inputs, dtype=np.float32), None)
        content = Content([Flatten(), identity], rule, False, {})
        form = find_format(to)
        predict = form.load(content, form.write(content, folder / "net")[0])
        assert predict is not None

        def prepared(images: np.ndarray) -> np.ndarray:
            logarithms = np.log(predict(images))
            x = logarithms[:, :-1] - logarithms[:, -1:]
            return x.reshape(len(images), rule.height, rule.width, rule.channels)

        return prepared

    return prepare


def quantizable(rule: Preprocessing) -> Content:
    """Return a network that the 8-bit tools quantise, with the preprocessing before it."""
    pointwise = Conv(np.eye(rule.channels, dtype=np.float32)[:, :, None, None], None)
    inputs = rule.height * rule.width * rule.channels
    dense = Dense(np.ones((2, inputs), np.float32), None)
    return Content([pointwise, Flatten(), dense], rule, False, {})


def calibration(rule: Preprocessing) -> list[np.ndarray]:
    return [pictures(8, 12, 12, rule.channels)]


def quantized_onnx(rule: Preprocessing, folder: Path) -> Prepare:
    """Read the value that the 8-bit file quantises first."""
    import onnxruntime
    from onnx import helper

    model = int8_onnx.quantize(quantizable(rule), calibration(rule))
    constants = {constant.name for constant in model.graph.initializer}
    name = next(
        node.input[0]
        for node in model.graph.node
        if node.op_type == "QuantizeLinear" and node.input[0] not in constants
    )
    model.graph.output.append(helper.make_tensor_value_info(name, 1, None))
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), providers=["CPUExecutionProvider"]
    )
    return lambda images: session.run([name], {"pictures": images})[0].transpose(0, 2, 3, 1)


def quantized_openvino(rule: Preprocessing, folder: Path) -> Prepare:
    """Read the value that the 8-bit file quantises first."""
    openvino = pytest.importorskip("openvino")
    model = int8_openvino.quantize(quantizable(rule), calibration(rule))
    first = next(node for node in model.get_ordered_ops() if node.get_type_name() == "Convolution")
    quantize = first.input_value(0).get_node()
    assert quantize.get_type_name() == "FakeQuantize"
    file = folder / "prepared.xml"
    prepared = openvino.Model([quantize.input_value(0)], model.get_parameters())
    openvino.save_model(prepared, file, compress_to_fp16=False)
    network = compile_network(file)
    return lambda images: network(images)[0].copy().transpose(0, 2, 3, 1)


FORMS: dict[str, Callable[[Preprocessing, Path], Prepare]] = {
    "tensor": tensor,
    "array": array,
    **{to: exported(to) for to in FORMATS},
    "int8 onnx": quantized_onnx,
    "int8 openvino": quantized_openvino,
}


@pytest.fixture(scope="module", params=RULES)
def rule(request: pytest.FixtureRequest) -> Preprocessing:
    return RULES[request.param]


@pytest.fixture(scope="module", params=FORMS)
def form(request: pytest.FixtureRequest) -> str:
    if request.param == "keras" and not find_spec("tensorflow"):
        pytest.skip("needs TensorFlow: pip install 'peewit[tensorflow]'")
    return request.param


@pytest.fixture(scope="module")
def prepare(form: str, rule: Preprocessing, tmp_path_factory: pytest.TempPathFactory) -> Prepare:
    return FORMS[form](rule, tmp_path_factory.mktemp("form"))


@pytest.mark.parametrize("count", [3, 1, 0])
def test_a_form_agrees_with_the_reference(
    form: str, rule: Preprocessing, prepare: Prepare, count: int
) -> None:
    sizes = {**SIZES, "same size": (rule.height, rule.width)}
    for (name, size), channels in product(sizes.items(), (1, 3)):
        if channels != rule.channels and form in OWN_CHANNELS_ONLY:
            continue
        images = pictures(max(count, 1), *size, channels)[:count]
        expected = rule.reference(images)
        assert expected.shape == (count, rule.height, rule.width, rule.channels)
        x = prepare(images)
        case = f"{name}, {channels} channels"
        assert x.shape == expected.shape, case
        np.testing.assert_allclose(x, expected, rtol=0, atol=2e-5, err_msg=case)


@pytest.mark.parametrize("size", SIZES.values(), ids=SIZES)
def test_the_reference_resizes_as_pillow_does(size: tuple[int, int], rule: Preprocessing) -> None:
    image = pictures(1, *size, rule.channels)
    expected = np.stack(
        [
            fit_picture(
                Image.fromarray(channel.astype(np.float32)), rule.height, rule.width, rule.fit
            )
            for channel in np.moveaxis(image[0], 2, 0)
        ],
        axis=2,
    )
    expected = (expected / 255 - np.array(rule.mean)) / np.array(rule.std)
    np.testing.assert_allclose(rule.reference(image)[0], expected, rtol=0, atol=1e-5)


def test_the_reference_converts_between_grey_and_rgb() -> None:
    rgb = np.array([[[[255, 0, 0], [0, 255, 0], [0, 0, 255], [90, 90, 90]]]], np.uint8)
    to_grey = Preprocessing(1, 4, 1, (0,), (1,)).reference(rgb)
    np.testing.assert_allclose(to_grey.ravel(), [0.299, 0.587, 0.114, 90 / 255], atol=1e-12)
    to_rgb = Preprocessing(1, 4, 3, (0, 0, 0), (1, 1, 1)).reference(rgb[..., :1])
    np.testing.assert_array_equal(to_rgb, np.repeat(rgb[..., :1], 3, axis=3) / 255)


def test_the_layers_for_keras_agree_with_the_reference(rule: Preprocessing) -> None:
    """As Keras computes them, in NumPy: the form ``keras`` above needs TensorFlow."""
    layers = preprocessing_layers(rule, LayerNames())
    for size in SIZES.values():
        images = pictures(2, *size, rule.channels)
        x = images.astype(np.float64)
        for layer in layers:
            x = as_keras(layer.kind, layer.config, x)
        np.testing.assert_allclose(x, rule.reference(images), rtol=0, atol=1e-5)


def as_keras(kind: str, config: dict[str, Any], x: np.ndarray) -> np.ndarray:
    """Compute a layer in NumPy."""
    if kind == "Rescaling":
        return x * np.array(config["scale"]) + config["offset"]
    assert (kind, config["interpolation"], config["antialias"]) == ("Resizing", "bilinear", True)
    height, width = config["height"], config["width"]
    if config.get("crop_to_aspect_ratio"):
        x = CropToAspect(height, width).apply(x)
    if config.get("pad_to_aspect_ratio"):
        assert config["fill_mode"] == "constant"
        x = PadToAspect(height, width, config["fill_value"]).apply(x)
    return Resize(height, width).apply(x)
