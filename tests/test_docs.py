"""The READMEs and the documentation are correct: every code block in them is run.

Shell blocks are run line by line, each page in its own folder with the files that the pages
mention: pictures, an archive, finished runs, a model. The differences from a user's shell:

- the data is small: ``cifar10`` finds an archive in the published format with fewer images;
- REWRITTEN shortens what would take minutes;
- training draws no pictures and writes no report; the pages' own ``peewit report`` does;
- training without ``--out`` that an earlier page has shown is not repeated;
- NOT_RUN and INSTALLS list what a test cannot run; options of ``peewit`` are checked all the same.
"""

from __future__ import annotations

import dataclasses
import io
import os
import pickle
import re
import shlex
import shutil
import subprocess
import sys
import tarfile
import tomllib
from collections.abc import Iterator
from pathlib import Path

import check_site
import command_reference
import numpy as np
import pytest
from PIL import Image

import pages
import peewit
from made_encoders import saved as saved_encoder
from peewit import plots, report
from peewit.__main__ import main
from peewit.data.cifar import layouts
from peewit.serving.schema import Predictions

# pattern -> its replacement in the test
REWRITTEN = {
    # a budget is real time: tests/training/budget tests those
    r"--minutes \d+": "--recipe fast --model fast-xs --epochs 1",
    r"--until-accuracy 0\.\d+": "--model fast-xs --until-accuracy 0.05",
    # large networks and many epochs take long
    r"--recipe (fast|best)\b(?!.*--model)": r"--recipe \1 --model fast-xs",
    r"--epochs \d+": "--epochs 1",
    r"^peewit train (?!.*--(epochs|until|resume))": "peewit train --epochs 1 ",
    # the run has trained for one epoch: add one
    r"--resume runs/NAME\b": "--resume runs/NAME --epochs 2",
    # the model in the folder has ten classes
    r"--classes cat,dog": "--classes cifar10",
}
# line -> why it is not run
NOT_RUN = {
    "peewit COMMAND --help": "COMMAND is a placeholder",
    "peewit serve runs/NAME --host 0.0.0.0 --allow-host classifier.example": "opens to the network",
    ".venv/bin/pytest tests/test_cli.py": "runs as a test of its own",
    "peewit reproduce runs/NAME": "this run has been resumed with more epochs",
}
# these download packages, or run this test; tests/test_wheel.py installs the wheel
INSTALLS = ("make ", "pip install ", "uv tool install ")
# the commands in benchmarks/README.md take hours
HOURS = "python benchmarks/"
# a server runs until it is stopped, so only the one of this page is started, for its requests
SERVED, ADDRESS = pages.ROOT / "docs" / "serving.md", "http://127.0.0.1:8000"


@pytest.mark.parametrize("page", pages.PAGES, ids=pages.name)
def test_code_blocks_have_a_known_language(page: Path) -> None:
    known = {"sh", "python", "yaml", "json", "text"}
    assert {language for language, _ in pages.blocks(page)} <= known


@pytest.mark.parametrize("page", pages.PAGES, ids=pages.name)
def test_commands_and_options_exist(page: Path) -> None:
    for line in pages.shell_lines(page):
        if line.startswith("peewit ") and "COMMAND" not in line:
            pages.parse(line)
    for line in re.findall(r"`(peewit [^`\n]+)`", page.read_text("utf-8")):
        pages.parse_named(line)


def test_exceptions_are_still_needed() -> None:
    lines = {line for page in pages.PAGES for line in pages.shell_lines(page)}
    assert set(NOT_RUN) <= lines
    for start in (*INSTALLS, HOURS):
        assert any(line.startswith(start) for line in lines), start
    for pattern in REWRITTEN:
        assert any(re.search(pattern, line) for line in lines), pattern


def test_the_command_reference_is_up_to_date() -> None:
    current = command_reference.PAGE.read_text("utf-8")
    assert current == command_reference.page(), "run: python scripts/command_reference.py"


def test_the_benchmarks_page_links_to_nothing_outside_the_site() -> None:
    # it is included in the site, where the other files of the repository are not
    text = (pages.ROOT / "benchmarks" / "README.md").read_text("utf-8")
    assert "| `frontier.py` |" in text
    assert not re.search(r"\]\((?!https?:|#)", text)


def test_the_site_has_every_page_in_its_contents() -> None:
    settings = tomllib.loads((pages.ROOT / "zensical.toml").read_text("utf-8"))
    listed = {file for entry in settings["project"]["nav"] for file in entry.values()}
    assert listed == {page.name for page in (pages.ROOT / "docs").glob("*.md")}


def test_the_site_check_finds_problems(tmp_path: Path) -> None:
    (tmp_path / "index.html").write_text(
        '<script src="https://example.org/a.js"></script><h1 id="top">'
        '<a href="#top">good</a><a href="https://example.org/">good</a>'
        '<a href="#bottom">wrong</a><a href="none.html">wrong</a><img src="none.png">'
    )
    (tmp_path / "a.css").write_text("a { src: url('//example.org/a.woff2') }")
    assert list(check_site.problems(tmp_path)) == [
        "index.html loads https://example.org/a.js",
        "index.html links to #bottom, which is not an anchor of that page",
        "index.html links to none.html, which does not exist",
        "index.html links to none.png, which does not exist",
        "a.css loads //example.org/a.woff2",
    ]


def test_the_python_page_documents_every_public_name() -> None:
    shown = re.findall(
        r"^::: peewit\.(\w+)$", (pages.ROOT / "docs/api.md").read_text("utf-8"), re.M
    )
    assert sorted(shown) == sorted(set(peewit.__all__) - {"__version__"})


# running the blocks


@pytest.fixture(scope="module")
def small_cifar10(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Return a CIFAR-10 archive in the published format with 30 images in each of its files."""
    random = np.random.default_rng(0)
    real = layouts.find_layout("cifar10")
    small = dataclasses.replace(real, batches=dict.fromkeys(real.batches, 30), size=None)
    names = [b"airplane", b"automobile", b"bird", b"cat", b"deer", b"dog", b"frog", b"horse"]
    names += [b"ship", b"truck"]
    files: dict[str, object] = {"batches.meta": {b"label_names": names}}
    for file, count in small.batches.items():
        labels = np.arange(count) % 10
        # classes differ in brightness, so that there is something to learn
        pixels = random.integers(0, 60, (count, layouts.PIXELS)) + labels[:, None] * 20
        files[file] = {b"data": pixels.astype(np.uint8), b"labels": labels.tolist()}
    path = tmp_path_factory.mktemp("data") / small.archive
    with tarfile.open(path, "w:gz", compresslevel=1) as tar:
        for file, content in files.items():
            raw = pickle.dumps(content, protocol=2)
            entry = tarfile.TarInfo(f"{small.folder}/{file}")
            entry.size = len(raw)
            tar.addfile(entry, io.BytesIO(raw))
    with pytest.MonkeyPatch.context() as patch:
        others = (one for one in layouts.LAYOUTS if one is not real)
        patch.setattr(layouts, "LAYOUTS", (small, *others))
        patch.setenv("PEEWIT_HOME", str(path.parent))
        yield path


def draw_nothing(patch: pytest.MonkeyPatch) -> None:
    """End training without pictures and a report, which take longer than the training."""
    for module, name in (
        (plots, "save_curves"),
        (plots, "save_confusion"),
        (plots, "save_mistakes"),
        (report, "after_training"),
    ):
        patch.setattr(module, name, lambda *arguments: None)


@pytest.fixture(scope="module")
def equipped(small_cifar10: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with all files that the pages mention."""
    workdir = tmp_path_factory.mktemp("workdir")
    (workdir / "Downloads").mkdir()
    shutil.copy(small_cifar10, workdir / "Downloads")
    (workdir / "holiday").mkdir()
    random = np.random.default_rng(0)
    for file in ("photo.jpg", "holiday/beach.png", "holiday/cat.jpg"):
        pixels = random.integers(0, 256, (40, 50, 3)).astype(np.uint8)
        Image.fromarray(pixels).save(workdir / file)
    for folder in ("cat", "dog"):
        (workdir / "my-pictures" / folder).mkdir(parents=True)
        for number in range(40):
            pixels = random.integers(0, 256, (40, 50, 3)).astype(np.uint8)
            Image.fromarray(pixels).save(workdir / "my-pictures" / folder / f"{number}.png")
    first = workdir / "runs" / "NAME"
    with pytest.MonkeyPatch.context() as patch:
        draw_nothing(patch)
        assert main(["train", "cifar10", "--epochs", "1", "--out", str(first)]) == 0
    model = str(workdir / "model.keras")  # and model.h5
    assert main(["export", str(first), "--to", "keras", "--raw", "--out", model]) == 0
    saved = pages.ROOT / "tests" / "golden" / "saved_model_tf_keras.tar.xz"
    shutil.unpack_archive(saved, workdir, filter="data")
    (workdir / "model").rename(workdir / "saved_model_folder")
    (workdir / "names.txt").write_text("cat\ndog\nhare\n")
    saved_encoder(workdir, name="encoder.onnx")
    shutil.copytree(first, workdir / "runs" / "A")
    shutil.copytree(first, workdir / "runs" / "B")
    return workdir


@pytest.fixture(scope="module")
def trained() -> set[str]:
    """Return the training commands that have been run so far, to be extended."""
    return set()


@pytest.fixture
def server(equipped: Path) -> Iterator[str]:
    """Yield the address of ``peewit serve runs/NAME`` on a free port."""
    command = [sys.executable, "-m", "peewit", "serve", str(equipped / "runs/NAME"), "--port", "0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            yield process.stdout.readline().strip().rstrip("/")
        finally:
            process.terminate()
    assert process.returncode == 0


# tests/test_readme.py checks that the Chinese README has the same blocks as the English one
RUN = [page for page in pages.PAGES if pages.blocks(page) and page != pages.CHINESE]


@pytest.mark.parametrize("page", RUN, ids=pages.name)
def test_code_blocks_run(
    page: Path,
    equipped: Path,
    small_cifar10: Path,
    trained: set[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    request: pytest.FixtureRequest,
) -> None:
    for program in ("sh", "curl"):
        if shutil.which(program) is None:
            pytest.skip(f"needs {program}")
    address = request.getfixturevalue("server") if page == SERVED else ADDRESS
    workdir = tmp_path / "workdir"
    shutil.copytree(equipped, workdir)
    monkeypatch.chdir(workdir)
    monkeypatch.setenv("PEEWIT_HOME", str(small_cifar10.parent))
    monkeypatch.setenv("PATH", f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
    draw_nothing(monkeypatch)
    (Path.home() / ".config/fish/completions").mkdir(parents=True)
    for language, text in pages.blocks(page):
        here = text.replace(ADDRESS, address)
        if language == "sh":
            for line in pages.commands(here):
                if line not in trained:
                    run_line(line)
                if line.startswith("peewit train ") and "--out" not in line:
                    trained.add(line)
        elif language == "python":
            Path("example.py").write_text(here, "utf-8")
            if named := re.match(r"# (\w+\.py)\n", here):  # later blocks import it
                Path(named[1]).write_text(here, "utf-8")
            subprocess.run([sys.executable, "example.py"], check=True)
        elif language == "yaml":
            Path("mine.yaml").write_text(text, "utf-8")
            peewit.Recipe.from_yaml("mine.yaml")
        elif language == "json":
            Predictions.model_validate_json(text)


def run_line(line: str) -> None:
    """Run a line of a shell block; fail unless its exit code is 0."""
    if line in NOT_RUN or line.startswith((*INSTALLS, HOURS, "peewit serve ")):
        return
    for pattern, other in REWRITTEN.items():
        line = re.sub(pattern, other, line)
    if line.startswith("peewit ") and not re.search(r"[|>]", line):
        # in this process, because it has already imported PyTorch
        words: list[str] = []
        for word in shlex.split(line)[1:]:
            found = sorted(map(str, Path().glob(word))) if "*" in word else []
            words += found or [word]
        assert main(words) == 0, line
    else:
        subprocess.run(["sh", "-ec", line], check=True)
