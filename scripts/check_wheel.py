"""Install a wheel into a fresh environment, then train, predict and serve with it.

usage: python scripts/check_wheel.py WHEEL

The dependencies come from the package registry. Commands run in an empty folder, with a PATH that
has nothing but the environment's own programs: no compiler and no source tree.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
import urllib.request
import venv
from collections.abc import Mapping
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
WINDOWS = os.name == "nt"
COMPILERS = ("cc", "gcc", "clang", "c++", "g++", "cl")
# variables that lead to other copies of Peewit, or switch its kernels off
HIDDEN = ("PYTHONPATH", "PYTHONHOME", "VIRTUAL_ENV", "PEEWIT_KERNELS", "CC")
# where the package and its compiled kernels were loaded from
ORIGIN = """
import json, peewit
from peewit.kernels import library
kernels = library.load()
print(json.dumps({"package": peewit.__file__, "kernels": kernels and kernels._name}))
"""


class Environment:
    """A fresh virtual environment in ``folder``."""

    def __init__(self, folder: Path) -> None:
        venv.create(folder, symlinks=not WINDOWS)
        self.folder = folder.resolve()
        self.programs = self.folder / ("Scripts" if WINDOWS else "bin")
        self.python = self.programs / ("python.exe" if WINDOWS else "python")

    def pip(self, *words: str) -> None:
        """Install into this environment, with the pip of the Python that runs this."""
        pip = [sys.executable, "-m", "pip", "--python", str(self.python), "--quiet"]
        subprocess.run([*pip, "install", *words], check=True)

    def variables(self) -> dict[str, str]:
        """Return the variables for commands: the PATH has only the environment's programs."""
        path = [str(self.programs)]
        if WINDOWS:
            path.append(str(Path(os.environ["SYSTEMROOT"], "System32")))
        kept = {name: value for name, value in os.environ.items() if name not in HIDDEN}
        return kept | {"PATH": os.pathsep.join(path)}

    def run(self, *words: str | Path, cwd: Path) -> str:
        """Run a program of this environment and return what it printed to stdout."""
        program, *rest = map(str, words)
        command = [str(self.programs / program), *rest]
        done = subprocess.run(
            command, cwd=cwd, env=self.variables(), stdout=subprocess.PIPE, text=True, check=True
        )
        return done.stdout


def check(environment: Environment, workdir: Path, *, compiled: bool) -> None:
    """Train, predict and serve in the empty folder ``workdir``; raise an error if anything fails.

    ``compiled`` is whether the wheel must have brought compiled kernels.
    """
    path = environment.variables()["PATH"]
    require(not any(shutil.which(name, path=path) for name in COMPILERS), "a compiler is on PATH")

    origin = json.loads(environment.run("python", "-c", ORIGIN, cwd=workdir))
    require(is_in(origin["package"], environment), f"peewit was imported from {origin['package']}")
    if compiled:
        require(origin["kernels"] is not None, "the compiled kernels were not loaded")
        require(is_in(origin["kernels"], environment), f"kernels came from {origin['kernels']}")

    environment.run("peewit", "train", "digits", "--epochs", "1", "--out", "run", cwd=workdir)
    for name in ("model.safetensors", "metrics.json", "report.html"):
        require((workdir / "run" / name).is_file(), f"the training wrote no {name}")

    environment.run("peewit", "show", "digits", "--indices", "0", "--out", "digit.png", cwd=workdir)
    printed = environment.run("peewit", "predict", "run", "digit.png", "--json", cwd=workdir)
    (prediction,) = json.loads(printed)
    require(prediction["labels"][0]["class"] in map(str, range(10)), f"predicted {prediction}")

    serve_once(environment, workdir)


def serve_once(environment: Environment, workdir: Path) -> None:
    """Load the page of ``peewit serve run`` and everything it names; classify ``digit.png``."""
    command = [str(environment.programs / "peewit"), "serve", "run", "--port", "0"]
    with subprocess.Popen(
        command, cwd=workdir, env=environment.variables(), stdout=subprocess.PIPE, text=True
    ) as server:
        try:
            assert server.stdout is not None
            address = server.stdout.readline().strip().rstrip("/")
            require(address.startswith("http://127.0.0.1:"), "the server did not start")
            page = get(f"{address}/").decode()
            named = set(re.findall(r'(?:href|src)="(/[^"]*)"', page))
            require("/static/page.js" in named, "the page names no script")
            for target in named:
                get(address + target)
            headers = {"Content-Type": "image/png"}
            picture = (workdir / "digit.png").read_bytes()
            answer: Any = json.loads(get(f"{address}/api/predict", picture, headers))
            (prediction,) = answer["predictions"]
            require(len(prediction["labels"]) > 0, f"the server answered {answer}")
        finally:
            server.terminate()
    require(WINDOWS or server.returncode == 0, f"the server ended with {server.returncode}")


def get(address: str, data: bytes | None = None, headers: Mapping[str, str] | None = None) -> bytes:
    """Return the body of a response; POST if there is ``data``."""
    request = urllib.request.Request(address, data, dict(headers or {}))
    with urllib.request.urlopen(request, timeout=60) as response:
        body: bytes = response.read()
    return body


def is_in(path: str, environment: Environment) -> bool:
    """Return whether a file lies in the environment."""
    return Path(path).resolve().is_relative_to(environment.folder)


def require(condition: object, message: str) -> None:
    """Raise an error unless ``condition`` holds, also under ``python -O``."""
    if not condition:
        raise RuntimeError(message)


def main(wheel: Path) -> None:
    """Install ``wheel`` with its dependencies from the registry, and check it."""
    constraints = ROOT / "constraints.txt"
    torch = next(
        line for line in constraints.read_text().splitlines() if line.startswith("torch==")
    )
    with tempfile.TemporaryDirectory() as folder:
        started = time.perf_counter()
        environment = Environment(Path(folder, "environment"))
        # PyTorch on its own first, as in the Makefile: it may come from an index of its own
        index = os.environ.get("TORCH_INDEX")
        environment.pip(torch, *(["--index-url", index] if index else []))
        environment.pip(f"{wheel.resolve()}[digits,serve]", "--constraint", str(constraints))
        installed = time.perf_counter()
        workdir = Path(folder, "workdir")
        workdir.mkdir()
        check(environment, workdir, compiled=True)
        print(
            f"{wheel.name}: installed in {installed - started:.0f} s; "
            f"trained, predicted and served in {time.perf_counter() - installed:.0f} s"
        )


if __name__ == "__main__":
    main(Path(sys.argv[1]))
