"""Threads that decode: large pictures hold up nobody, and nobody works for who has gone."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator

import numpy as np
import pytest

from peewit.images import reader as pictures
from peewit.images.reader import TooManyPixels
from peewit.serving.body import Upload
from peewit.serving.decoding import Decoders, Decoding
from peewit.serving.engine import Answer, Engine, Prepared
from peewit.system.cpu import usable_cores

SMALL, LARGE = Upload("small", b"s"), Upload("large", b"l")


class Slow(Engine):
    """Stands for the engine: a large picture takes until it is allowed to end."""

    def __init__(self) -> None:
        self.may_end, self.begun = threading.Event(), threading.Semaphore(0)
        self.seen: list[str] = []

    def prepare(self, upload: Upload, explain: bool, limit: int) -> Prepared:
        if upload is LARGE:
            if limit <= pictures.LARGE:
                raise TooManyPixels("it is large")
            self.begun.release()
            assert self.may_end.wait(60)
        self.seen.append(upload.name)
        return Prepared(np.zeros(1), 1, 1, explain)


class Setting:
    """Decoders on a slow engine, and the loop of those who wait."""

    def __init__(self, limit: int = 10 * pictures.LARGE) -> None:
        self.loop, self.engine = asyncio.new_event_loop(), Slow()
        self.handed: list[list[Prepared]] = []
        self.ready = threading.Semaphore(0)
        self.decoders = Decoders(self.engine, limit, self.hand_on)

    def hand_on(self, good: list[Prepared], future: asyncio.Future[list[Answer]]) -> None:
        self.handed.append(good)
        self.ready.release()

    def ask(self, *uploads: Upload) -> Decoding:
        decoding = Decoding(uploads, False, self.loop.create_future())
        self.decoders.submit(decoding)
        return decoding

    def end(self) -> None:
        self.engine.may_end.set()
        self.decoders.close()
        self.loop.close()


@pytest.fixture
def setting() -> Iterator[Setting]:
    made = Setting()
    yield made
    made.end()


def test_small_pictures_pass_large_ones_by(setting: Setting) -> None:
    large = [setting.ask(LARGE, SMALL) for _ in range(usable_cores() + 1)]
    assert setting.engine.begun.acquire(timeout=60)
    setting.ask(SMALL, SMALL)
    assert setting.ready.acquire(timeout=60)
    assert [len(good) for good in setting.handed] == [2]
    # one large picture at a time
    assert not setting.engine.begun.acquire(timeout=0.1)
    setting.engine.may_end.set()
    for _ in large:
        assert setting.ready.acquire(timeout=60)
    assert [len(good) for good in setting.handed] == [2] * (1 + len(large))
    assert all(len(decoding.prepared) == 2 for decoding in large)


def test_for_who_has_gone_nothing_is_decoded(setting: Setting) -> None:
    gone = setting.ask(LARGE, SMALL, SMALL)
    waiting = setting.ask(LARGE)
    assert setting.engine.begun.acquire(timeout=60)
    gone.future.cancel()
    setting.engine.may_end.set()
    assert setting.ready.acquire(timeout=60)
    assert setting.engine.seen == ["large", "large"]
    assert len(waiting.prepared) == 1


def test_at_the_end_only_the_picture_that_is_being_decoded_is_waited_for(setting: Setting) -> None:
    setting.ask(LARGE, SMALL)
    setting.ask(LARGE)
    assert setting.engine.begun.acquire(timeout=60)
    ending = threading.Thread(target=setting.decoders.close)
    ending.start()
    ending.join(0.1)
    assert ending.is_alive()
    setting.engine.may_end.set()
    ending.join(60)
    assert setting.engine.seen == ["large"]
    assert setting.handed == []


def test_what_is_too_large_or_damaged_stands_in_its_place() -> None:
    setting = Setting(limit=pictures.LARGE)
    decoding = setting.ask(SMALL, LARGE, SMALL)
    assert setting.ready.acquire(timeout=60)
    setting.end()
    kinds = [type(picture) for picture in decoding.prepared]
    assert kinds == [Prepared, TooManyPixels, Prepared]
    assert len(setting.handed[0]) == 2


def test_a_bug_reaches_who_waits(setting: Setting, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(upload: Upload, explain: bool, limit: int) -> Prepared:
        raise ZeroDivisionError

    monkeypatch.setattr(setting.engine, "prepare", broken)
    decoding = setting.ask(SMALL)
    with pytest.raises(ZeroDivisionError):
        setting.loop.run_until_complete(asyncio.wait_for(decoding.future, 60))
