"""What reads bytes from outside, for ``fuzz.py``: each with valid inputs to begin with."""

import io
import json
import pickle
import tarfile
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

SIDE = 12


@dataclass(frozen=True)
class Target:
    """A reader.

    Parameters
    ----------
    seeds : callable
        Returns valid inputs, as bytes.
    run : callable
        Reads an input; called with the bytes, and an empty folder for what the reader wants to be a
        file. A PeewitError is the expected answer to a damaged one.
    """

    seeds: Callable
    run: Callable


def _pixels():
    return np.random.default_rng(0).integers(0, 256, (SIDE, SIDE, 3), np.uint8)


def _picture(kind, **options):
    file = io.BytesIO()
    Image.fromarray(_pixels()).save(file, kind, **options)
    return file.getvalue()


def _pictures():
    kinds = ("PNG", "JPEG", "GIF", "BMP", "TIFF", "WEBP", "PPM")
    progressive = _picture("JPEG", progressive=True)
    return [*map(_picture, kinds), progressive, _picture("TIFF", compression="tiff_lzw")]


def _read_picture(content, folder):
    from peewit.images.reader import read_picture
    from peewit.images.scaled import read_sized

    read_sized(content, "picture", height=8, width=8)
    read_picture(content, "picture")


def _members():
    return {f"{name}/{n}.png": _picture("PNG") for name in ("cat", "dog") for n in range(2)}


def _tar(mode="w"):
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode=mode) as tar:
        for name, content in (_members() | {"cat/0.cls": b"1"}).items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return file.getvalue()


def _zip():
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in _members().items():
            archive.writestr(name, content)
    return file.getvalue()


def _load(name):
    """Return a function that loads a file of this name as a source, and reads every picture."""

    def run(content, folder):
        from peewit.data.sources import load

        (folder / name).write_bytes(content)
        path = folder if name.startswith("shard") else folder / name
        data = load(str(path)).train
        np.asarray(data.images[np.arange(min(len(data), 4))])

    return run


def _read_csv(content, folder):
    for name in ("a.png", "b.png", "c, d.png"):
        (folder / name).write_bytes(_picture("PNG"))
    _load("table.csv")(content, folder)


def _csv():
    lines = ["image,label,split", "a.png,cat,train", "b.png,dog,train", '"c, d.png",cat,test']
    return ["\n".join(lines).encode(), "\ufeffpath;label\na.png;1\nb.png;2\n".encode()]


def _parquet():
    import pyarrow as pa
    import pyarrow.parquet as pq

    file = io.BytesIO()
    pictures = [{"bytes": _picture("PNG"), "path": f"{n}.png"} for n in range(3)]
    pq.write_table(pa.table({"image": pictures, "label": [0, 1, 0]}), file)
    return [file.getvalue()]


def _npz():
    file = io.BytesIO()
    np.savez(file, x_train=np.stack([_pixels()] * 4), y_train=np.arange(4) % 2)
    return [file.getvalue()]


def _unpickle(content, folder):
    from peewit.data.cifar.unpickle import loads

    try:
        loads(content)
    except ValueError:  # what it documents
        return


def _cifar():
    batch = {b"data": np.zeros((2, 3072), np.uint8), b"labels": [1, 2], b"filenames": [b"a", b"b"]}
    return [pickle.dumps(batch, protocol) for protocol in (0, 2, 4)]


def _recipe(content, folder):
    from peewit.training.recipe import Recipe

    file = folder / "recipe.yaml"
    file.write_bytes(content)
    Recipe.from_yaml(file)


def _recipes():
    from peewit.training.recipe import PRESETS

    return [recipe.to_yaml().encode() for recipe in PRESETS.values()]


def _run_files(name):
    """Return the seeds and the reader of one file of a run folder."""
    files = {}

    def seeds():
        import torch

        from peewit.models.registry import build
        from peewit.runs import folder as runfolder
        from peewit.training.checkpoint import write_tensors
        from peewit.training.recipe import Recipe

        facts = {
            "finished": False,
            "class_names": ["cat", "dog"],
            "preprocessing": {
                "height": 32,
                "width": 32,
                "channels": 3,
                "mean": [0.5] * 3,
                "std": [0.2] * 3,
            },
            "source": {},
            "dataset": {"images": {"training": 5}},
            "environment": {"date": "2026-01-01T00:00:00+00:00"},
        }
        import tempfile

        with tempfile.TemporaryDirectory() as made:
            weights = Path(made, "weights")
            model = build("fast-xs", (32, 32, 3), 2, seed=0)
            torch.manual_seed(0)
            write_tensors(weights, model.state_dict(), {})
            files[runfolder.WEIGHTS] = weights.read_bytes()
        files[runfolder.FACTS] = json.dumps({"format": 1} | facts).encode()
        files[runfolder.RECIPE] = Recipe.preset("fast", model="fast-xs").to_yaml().encode()
        files[runfolder.HISTORY] = (
            b"epoch,seconds,images_per_second,loss,accuracy,validation_loss,validation_accuracy\n"
            b"1,2.0,100.0,0.5,0.8,0.6,0.7\n"
        )
        return [files[name]]

    def run(content, folder):
        from peewit.runs.run import Run

        for other, original in files.items():
            (folder / other).write_bytes(content if other == name else original)
        opened = Run.open(folder)
        if name.endswith(".safetensors"):
            opened.model()

    return Target(seeds, run)


def _encoders():
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    kernel = np.zeros((2, 3, 4, 4), np.float32)
    nodes = [
        helper.make_node("Conv", ["pixels", "kernel"], ["map"], strides=[4, 4]),
        helper.make_node("Relu", ["map"], ["features"]),
    ]
    graph = helper.make_graph(
        nodes,
        "encoder",
        [helper.make_tensor_value_info("pixels", TensorProto.FLOAT, ["N", 3, 16, 16])],
        [helper.make_tensor_value_info("features", TensorProto.FLOAT, ["N", 2, 4, 4])],
        [numpy_helper.from_array(kernel, "kernel")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    onnx.checker.check_model(model)
    return [model.SerializeToString()]


def _read_encoder(content, folder):
    from peewit.models.encoders.contents import read_contents

    file = folder / "encoder.onnx"
    file.write_bytes(content)
    read_contents(file)


def _form(content, folder):
    from peewit.serving.body import uploads
    from peewit.serving.limits import Limits

    uploads(content, "multipart/form-data; boundary=b", Limits())


def _forms():
    part = b'--b\r\nContent-Disposition: form-data; name="files"; filename="a.png"\r\n\r\n'
    return [part + _picture("PNG") + b"\r\n--b--\r\n", part + b"x\r\n" + part + b"y\r\n--b--\r\n"]


def _keras(content, folder):
    from peewit.importing.architecture import read_architecture

    read_architecture(content)


def _keras_configs():
    layers = [
        ("InputLayer", {"batch_input_shape": [None, 32, 32, 3], "name": "input"}),
        ("Conv2D", {"name": "a", "filters": 64, "kernel_size": [3, 3], "activation": "relu"}),
        ("Flatten", {"name": "b"}),
        ("Dense", {"name": "c", "units": 10, "activation": "linear"}),
    ]
    listed = [{"class_name": kind, "config": config} for kind, config in layers]
    model = {"class_name": "Sequential", "config": {"name": "s", "layers": listed}}
    return [json.dumps(model).encode()]


TARGETS = {
    "picture": Target(_pictures, _read_picture),
    "tar": Target(lambda: [_tar(), _tar("w:gz")], _load("archive.tar")),
    "shard": Target(lambda: [_tar()], _load("shard.tar")),
    "zip": Target(lambda: [_zip()], _load("archive.zip")),
    "csv": Target(_csv, _read_csv),
    "parquet": Target(_parquet, _load("table.parquet")),
    "npz": Target(_npz, _load("arrays.npz")),
    "cifar": Target(_cifar, _unpickle),
    "recipe": Target(_recipes, _recipe),
    "facts": _run_files("run.json"),
    "history": _run_files("history.csv"),
    "weights": _run_files("model.safetensors"),
    "encoder": Target(_encoders, _read_encoder),
    "keras": Target(_keras_configs, _keras),
    "form": Target(_forms, _form),
}
