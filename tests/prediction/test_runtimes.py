"""The other engines use as many threads as can run at a time."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from peewit.prediction import runtimes


@pytest.mark.parametrize(
    ("own", "usable", "many", "threads"),
    [(8, 8, False, None), (8, 2, False, 2), (8, 2, True, 1), (8, 8, True, 1)],
)
def test_onnx_runtime_keeps_a_cpu_quota(
    monkeypatch: pytest.MonkeyPatch, own: int, usable: int, many: bool, threads: int | None
) -> None:
    options = SimpleNamespace(intra_op_num_threads=None)
    fake = SimpleNamespace(
        SessionOptions=lambda: options, InferenceSession=lambda *args, **kinds: None
    )
    monkeypatch.setattr(runtimes, "import_quietly", lambda name: fake)
    monkeypatch.setattr(runtimes, "own_cores", lambda: own)
    monkeypatch.setattr(runtimes, "usable_cores", lambda: usable)
    _, callers = load(many)
    assert options.intra_op_num_threads == threads
    assert callers == (usable if many else 1)


def load(many: bool) -> tuple[Any, int]:
    return runtimes.LOADERS["ONNX Runtime"](b"", many)
