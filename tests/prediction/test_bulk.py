"""``peewit predict --out``: a Parquet file for each shard, whoever computes it."""

from __future__ import annotations

import io
import json
import os
import signal
import subprocess
import sys
import tarfile
import time
import zipfile
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image

from made_runs import make_run
from peewit.__main__ import main
from peewit.prediction.predict import predict
from peewit.runs.run import Run

SHARDS, PICTURES = 3, 5
BROKEN = "broken.jpg"


def png(number: int) -> bytes:
    """Return a picture of noise."""
    pixels = np.random.default_rng(number).integers(0, 256, (20, 30, 3), np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()


def write_tar(path: Path, members: dict[str, bytes], mode: str = "w") -> None:
    with tarfile.open(path, mode) as tar:  # type: ignore[call-overload]
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_run(tmp_path_factory.mktemp("runs") / "run", "fast-xs").path


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with tar archives in WebDataset's layout."""
    folder = tmp_path_factory.mktemp("shards")
    for shard in range(SHARDS):
        members: dict[str, bytes] = {}
        for number in range(shard * PICTURES, (shard + 1) * PICTURES):
            members |= {f"{number:04}.png": png(number), f"{number:04}.cls": b"1"}
        if shard == 1:
            members[BROKEN] = b"not a picture"
        write_tar(folder / f"part-{shard}.tar", members)
    return folder


def content(folder: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in folder.iterdir()}


@pytest.fixture(scope="module")
def whole(run: Path, shards: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The result of one job."""
    out = tmp_path_factory.mktemp("out") / "whole"
    assert main(["predict", str(run), str(shards), "--out", str(out), "--features"]) == 0
    return out


def test_every_picture_has_a_row(run: Path, whole: Path, tmp_path: Path) -> None:
    assert sorted(content(whole)) == [f"00000{n}-part-{n}.parquet" for n in range(SHARDS)]
    table = pq.read_table(whole)
    rows = table.to_pylist()
    names = [row["path"].rpartition("/")[2] for row in rows]
    assert sorted(names) == sorted([f"{n:04}.png" for n in range(SHARDS * PICTURES)] + [BROKEN])
    (broken,) = [row for row in rows if row["path"].endswith(BROKEN)]
    assert broken["label"] is None
    assert broken["probabilities"] is None
    assert BROKEN in broken["error"]
    classes = json.loads(pq.read_schema(next(whole.iterdir())).metadata[b"classes"])
    for row in rows:
        if row is broken:
            continue
        assert row["error"] is None
        number = int(Path(row["path"]).stem)
        file = tmp_path / f"{number}.png"
        file.write_bytes(png(number))
        (answer,) = predict(Run.open(run), [file], top=len(classes))
        shown = dict(answer.labels)  # type: ignore[union-attr]
        assert row["label"] == max(shown, key=lambda name: shown[name])
        assert row["probabilities"] == pytest.approx([shown[name] for name in classes], abs=1e-5)
        assert np.isfinite(row["features"]).all()


def test_jobs_that_share_the_work_give_the_same_files(
    run: Path, shards: Path, whole: Path, tmp_path: Path
) -> None:
    for part in ("2/2", "1/2"):
        arguments = ["predict", str(run), str(shards), "--out", str(tmp_path), "--shard", part]
        assert main([*arguments, "--features"]) == 0
    assert content(tmp_path) == content(whole)


def test_a_stopped_job_does_only_the_rest(
    run: Path, shards: Path, whole: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    kept = sorted(whole.iterdir())[0]
    (tmp_path / kept.name).write_bytes(b"finished")
    # what a killed process leaves behind is not taken for a result
    (tmp_path / ".000001-part-1.parquet.abc.part").write_bytes(b"half")
    arguments = ["predict", str(run), str(shards), "--out", str(tmp_path), "--features"]
    assert main(arguments) == 0
    assert f"classified {2 * PICTURES} images, 1 could not be read" in capsys.readouterr().out
    found = content(tmp_path)
    assert found.pop(kept.name) == b"finished"
    for file in sorted(whole.iterdir())[1:]:
        assert found[file.name] == file.read_bytes()


def test_other_kinds_of_shards(run: Path, tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr("folder/1.png", png(1))
        archive.writestr("notes.txt", "no picture")
    write_tar(tmp_path / "b.tar.gz", {"1.png": png(1)}, "w:gz")
    write_tar(tmp_path / "c.tar", {"1.png": png(1)})
    (tmp_path / "1.png").write_bytes(png(1))
    address = f"file://{(tmp_path / 'c.tar').as_posix()}"
    names = [str(tmp_path / name) for name in ("a.zip", "b.tar.gz", "1.png")]
    out = tmp_path / "out"
    assert main(["predict", str(run), *names, address, "--out", str(out)]) == 0
    tables = [pq.read_table(file).to_pylist() for file in sorted(out.iterdir())]
    assert [len(table) for table in tables] == [1] * 4
    assert len({tuple(table[0]["probabilities"]) for table in tables}) == 1


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["--shard", "3/2"], 2, "3/2"),
        (["--shard", "half"], 2, "half"),
        (["--csv", "a.csv"], 2, "--out is not for"),
        ([], 1, "damaged"),
    ],
)
def test_failures_are_sentences(
    run: Path,
    shards: Path,
    tmp_path: Path,
    arguments: list[str],
    code: int,
    said: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    broken = tmp_path / "broken.tar"
    whole = (shards / "part-0.tar").read_bytes()
    broken.write_bytes(whole[: len(whole) // 2])
    out = tmp_path / "out"
    assert main(["predict", str(run), str(broken), "--out", str(out), *arguments]) == code
    assert said in capsys.readouterr().err
    assert not out.is_dir() or not content(out)


@pytest.mark.skipif(not find_spec("ray"), reason="Ray is not installed")
@pytest.mark.skipif(not Path("/proc").is_dir(), reason="the workers are found in /proc")
def test_a_ray_cluster_gives_the_same_files_though_a_worker_is_killed(
    run: Path, shards: Path, whole: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    command = [sys.executable, "-m", "peewit", "predict", run, shards, "--out", out, "--features"]
    process = subprocess.Popen(
        [*map(str, command), "--ray", "local"],
        env={**os.environ, "RAY_USAGE_STATS_ENABLED": "0"},
        stderr=subprocess.PIPE,
        text=True,
    )
    killed = kill_worker(process)
    _, error = process.communicate(timeout=120)
    assert process.returncode == 0, error
    assert killed
    assert content(out) == content(whole)


def kill_worker(process: subprocess.Popen[str]) -> bool:
    """Kill a worker of a process's cluster while it works."""
    while process.poll() is None:
        for file in Path("/proc").glob("[0-9]*/cmdline"):
            try:
                working = file.read_bytes().startswith(b"ray::_classified")
            except OSError:  # it has ended
                continue
            if working:
                os.kill(int(file.parent.name), signal.SIGKILL)
                return True
        time.sleep(0.01)
    return False
