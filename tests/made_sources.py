"""Small sources of pictures: encoded pictures, and folders of them."""

from __future__ import annotations

import io
from collections.abc import Mapping
from pathlib import Path

from PIL import Image


def picture(number: int = 0, kind: str = "PNG", size: tuple[int, int] = (6, 4)) -> bytes:
    """Return an encoded picture; those of different numbers differ."""
    buffer = io.BytesIO()
    Image.new("RGB", size, (number % 256, number // 256, 7)).save(buffer, kind)
    return buffer.getvalue()


def files_of(classes: Mapping[str, int], suffix: str = ".png") -> dict[str, bytes]:
    """Return pictures by path: so many in each folder, all of them different."""
    made: dict[str, bytes] = {}
    for folder, count in classes.items():
        for number in range(count):
            made[f"{folder}/{number}{suffix}"] = picture(len(made))
    return made


def write(folder: Path, files: Mapping[str, bytes]) -> Path:
    """Write files by their paths relative to a folder, and return the folder."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    return folder


def write_classes(folder: Path, classes: Mapping[str, int]) -> Path:
    """Write so many pictures into each folder, and return the folder above them."""
    return write(folder, files_of(classes))
