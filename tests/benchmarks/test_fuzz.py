"""A short version of ``benchmarks/fuzz.py``: the same inputs each time."""

from __future__ import annotations

import contextlib
import random
from pathlib import Path

import pytest
from fuzz import mutated
from fuzz_targets import TARGETS

from peewit.errors import PeewitError

EXECUTIONS = 60


@pytest.mark.parametrize("name", TARGETS)
def test_damaged_inputs_end_in_a_sentence(name: str, tmp_path: Path) -> None:
    target, draw = TARGETS[name], random.Random(name)
    seeds, inside = target.seeds(), tmp_path / "inside"
    inputs = [mutated(draw.choice(seeds), seeds, draw) for _ in range(EXECUTIONS)]
    for number, content in enumerate([*seeds, *inputs]):
        folder = inside / str(number)
        folder.mkdir(parents=True)
        with pytest.MonkeyPatch.context() as patch:
            patch.chdir(folder)
            if number < len(seeds):
                target.run(content, folder)  # valid
            else:
                with contextlib.suppress(PeewitError):
                    target.run(content, folder)
    assert [path.name for path in tmp_path.iterdir()] == ["inside"]
    assert len(list(inside.iterdir())) == len(seeds) + EXECUTIONS


def test_a_target_that_crashes_is_noticed(tmp_path: Path) -> None:
    from fuzz import Executor
    from fuzz_targets import Target

    def crash(content: bytes, folder: Path) -> None:
        if b"!" in content:
            raise IndexError
        (folder / "kept").touch()

    executor = Executor(Target(lambda: [b"a"], crash), tmp_path)
    assert executor.run(b"a")
    assert not executor.run(b"!")
    assert executor.finding[0] == b"!"
    escaping = Executor(
        Target(lambda: [b"a"], lambda _, folder: (folder.parent / "x").touch()), tmp_path
    )
    assert not escaping.run(b"a")
