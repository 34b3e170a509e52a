"""Other makers' packages are used without their reports: no number of the user's is made."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from made_runs import make_run
from peewit.export import job


@pytest.mark.parametrize("package", ["onnxruntime", "openvino", "nncf"])
def test_nothing_is_left_in_the_users_folders(package: str, tmp_path: Path, place: Path) -> None:
    network = place / "net.onnx"
    job.export(make_run(tmp_path / "run"), "onnx", out=network)
    program = (
        "import sys\n"
        "from peewit.export.quiet import quiet\n"
        f"found = quiet({package!r})\n"
        f"assert quiet({package!r}) is found\n"
        "if found.__name__ == 'onnxruntime':\n"
        f"    found.InferenceSession({str(network)!r})\n"
        "assert 'openvino_telemetry' not in sys.modules\n"
    )
    home = tmp_path / "home"
    home.mkdir()
    # where these are set the packages are quiet by themselves
    ours = {"CI", "GITHUB_ACTIONS", "TF_BUILD", "JENKINS_URL", "ORT_DISABLE_TELEMETRY", "NNCF_CI"}
    environment = {name: value for name, value in os.environ.items() if name not in ours}
    environment |= dict.fromkeys(("HOME", "USERPROFILE", "LOCALAPPDATA"), str(home))
    environment |= {"XDG_CACHE_HOME": str(home / "cache")}
    subprocess.run([sys.executable, "-c", program], env=environment, check=True)
    assert list(home.rglob("*")) == []


def test_what_is_not_there_is_an_import_error() -> None:
    from peewit.export.quiet import quiet

    with pytest.raises(ImportError):
        quiet("not_there")
    assert "openvino_telemetry" not in sys.modules or sys.modules["openvino_telemetry"] is not None
