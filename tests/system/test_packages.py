"""Optional packages are imported without their telemetry: no user ID is created."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from made_runs import make_run
from peewit.export import job


@pytest.mark.parametrize("package", ["onnxruntime", "openvino", "nncf"])
def test_nothing_is_written_to_the_users_folders(package: str, tmp_path: Path) -> None:
    network = tmp_path / "net.onnx"
    job.export(make_run(tmp_path / "run"), "onnx", out=network)
    program = (
        "import sys\n"
        "from peewit.system.packages import import_quietly\n"
        f"found = import_quietly({package!r})\n"
        f"assert import_quietly({package!r}) is found\n"
        "if found.__name__ == 'onnxruntime':\n"
        f"    found.InferenceSession({str(network)!r})\n"
        "assert 'openvino_telemetry' not in sys.modules\n"
    )
    home = tmp_path / "home"
    home.mkdir()
    # with these set, the packages send nothing anyway
    disabling = {"CI", "GITHUB_ACTIONS", "TF_BUILD", "JENKINS_URL", "NNCF_CI"}
    disabling |= {"ORT_DISABLE_TELEMETRY"}
    environment = {name: value for name, value in os.environ.items() if name not in disabling}
    environment |= dict.fromkeys(("HOME", "USERPROFILE", "LOCALAPPDATA"), str(home))
    environment |= {"XDG_CACHE_HOME": str(home / "cache")}
    subprocess.run([sys.executable, "-c", program], env=environment, check=True)
    assert list(home.rglob("*")) == []


def test_a_missing_package_is_an_import_error() -> None:
    from peewit.system.packages import import_quietly

    with pytest.raises(ImportError):
        import_quietly("not_there")
    assert "openvino_telemetry" not in sys.modules or sys.modules["openvino_telemetry"] is not None
