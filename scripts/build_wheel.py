"""Build the source archive and, from it, the wheel.

usage: python scripts/build_wheel.py [FOLDER]

FOLDER is ``dist`` by default. The wheel is built from the source archive, so a file that is
missing from the archive is missing from the wheel too. setuptools is taken from this environment:
nothing is downloaded. The build runs on a copy, because files left over from earlier builds
(``build``, ``*.egg-info``) would end up in the archive and in the wheel.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from pathlib import Path

ROOT = Path(__file__).parents[1]
SOURCES = ("pyproject.toml", "setup.py", "README.md", "LICENSE", "src")
LEFTOVERS = shutil.ignore_patterns("*.egg-info", "*.so", "*.pyd", "__pycache__")
# setuptools' build hooks (PEP 517): source folder, hook, output folder
HOOK = """
import os, sys
from setuptools import build_meta
source, hook, out = sys.argv[1:]
os.chdir(source)
print(getattr(build_meta, hook)(out))
"""


def build(root: Path, out: Path) -> tuple[Path, Path]:
    """Build the project in ``root`` and return the source archive and the wheel, both in ``out``.

    Raises
    ------
    RuntimeError
        setuptools failed; the message is its output.
    """
    out.mkdir(parents=True, exist_ok=True)
    out = out.resolve()
    with tempfile.TemporaryDirectory() as folder:
        copy, unpacked = Path(folder, "copy"), Path(folder, "unpacked")
        copy.mkdir()
        for name in SOURCES:
            if (root / name).is_dir():
                shutil.copytree(root / name, copy / name, ignore=LEFTOVERS)
            else:
                shutil.copy2(root / name, copy)
        archive = out / run_hook(copy, "build_sdist", out)
        with tarfile.open(archive) as tar:
            tar.extractall(unpacked, filter="data")
        (source,) = unpacked.iterdir()
        wheel = out / run_hook(source, "build_wheel", out)
    return archive, wheel


def run_hook(source: Path, hook: str, out: Path) -> str:
    """Run one of setuptools' build hooks and return the name of the file that it wrote."""
    command = [sys.executable, "-c", HOOK, str(source), hook, str(out)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise RuntimeError(f"{hook} failed:\n{done.stdout}{done.stderr}")
    return done.stdout.splitlines()[-1]


def kernels(wheel: Path) -> list[str]:
    """Return the names of the compiled files in ``wheel``: none without a C compiler."""
    return [name for name in zipfile.ZipFile(wheel).namelist() if name.endswith((".so", ".pyd"))]


if __name__ == "__main__":
    out = Path(sys.argv[1]) if len(sys.argv) > 1 else ROOT / "dist"
    archive, wheel = build(ROOT, out)
    if not kernels(wheel):
        print("note: the wheel has no compiled kernels: no C compiler was found", file=sys.stderr)
    print(archive)
    print(wheel)
