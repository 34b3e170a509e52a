"""Measure how fast a folder of camera-sized JPEGs is decoded to the size of a network's input.

    python benchmarks/decoding.py [--photos FOLDER] [--pictures 48] [--sizes 64 128] [--rounds 5]

Makes JPEGs of 4000 x 3000 pixels (4:2:0, quality 90, about 3 MB each, like those of a camera) in a
temporary folder: each is a mixture of two pictures in --photos, enlarged, with the noise of a
sensor; without --photos, of random textures. All methods decode the same files, which are in the
page cache, to the centre crop of the same size, on all cores:

- "peewit": ``read_sized`` in threads, with simplejpeg if it is installed;
- "peewit, Pillow only": the same without simplejpeg;
- "simplejpeg", "OpenCV", "Pillow draft": what the fastest decoders do used by hand in a thread
  pool: no check of the file, no EXIF orientation, the smallest scale of the decoder with at least
  two pixels for each pixel of the result, then a resize. Those that are installed are measured.
- "DataLoader": ``torch.utils.data.DataLoader`` with one worker process for each core, which decode
  with Pillow at full size and resize. The workers are started before the measurement.

The methods take turns in every round. Each measurement is a line in results/decoding-DATE.jsonl; a
table with the medians is printed at the end. It takes three minutes on two cores.
"""

import argparse
import statistics
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import PIL
import torch
from PIL import Image, features
from rawlog import append, machine, today
from torch.utils.data import DataLoader, Dataset

from peewit.images import scaled
from peewit.images.scaled import MARGIN, read_sized
from peewit.system.cpu import usable_cores

try:
    import simplejpeg
except ImportError:
    simplejpeg = None
try:
    import cv2
except ImportError:
    cv2 = None

WIDTH, HEIGHT = 4000, 3000
SUFFIXES = {".jpg", ".jpeg", ".png"}


def texture(random):
    """Return a picture with structures of all sizes, the smaller the weaker, as in photographs."""
    mixed = np.zeros((240, 320, 3))
    for level in range(7):
        noise = random.integers(0, 256, (3 * 2**level, 4 * 2**level, 3), dtype=np.uint8)
        layer = Image.fromarray(noise).resize((320, 240), Image.Resampling.BICUBIC)
        mixed += (np.asarray(layer) - 128.0) / 1.5**level
    return Image.fromarray(np.clip(mixed + 128, 0, 255).astype(np.uint8))


def make(folder, count, photos):
    """Write ``count`` JPEGs to ``folder`` and return their paths."""
    random = np.random.default_rng(0)
    found = sorted(p for p in photos.rglob("*") if p.suffix.lower() in SUFFIXES) if photos else []

    def enlarged():
        chosen = Image.open(random.choice(found)) if found else texture(random)
        return chosen.convert("RGB").resize((WIDTH, HEIGHT), Image.Resampling.BICUBIC)

    # one noise for all, moved: drawing it takes as long as everything else
    noise = random.normal(0, 6, (2 * HEIGHT, WIDTH, 1)).astype(np.int16)
    paths = []
    for number in range(count):
        first = int(random.integers(0, HEIGHT))
        mixed = np.asarray(Image.blend(enlarged(), enlarged(), 0.3)).astype(np.int16)
        noisy = np.clip(mixed + noise[first : first + HEIGHT], 0, 255).astype(np.uint8)
        paths.append(folder / f"{number}.jpg")
        Image.fromarray(noisy).save(paths[-1], quality=90, subsampling="4:2:0")
    return paths


def scale_for(size):
    """Return the scale at which the decoders used by hand decode."""
    return next(scale for scale in (8, 4, 2, 1) if HEIGHT // scale >= MARGIN * size or scale == 1)


def resized(picture, size):
    """Return the centre of a picture, resized by Pillow."""
    left = (picture.width - picture.height) // 2
    box = (left, 0, left + picture.height, picture.height)
    return np.asarray(picture.resize((size, size), Image.Resampling.BILINEAR, box))


def by_simplejpeg(path, size):
    """Decode with simplejpeg."""
    scale = scale_for(size)
    least = {"min_height": HEIGHT // scale, "min_width": WIDTH // scale}
    return resized(Image.fromarray(simplejpeg.decode_jpeg(path.read_bytes(), **least)), size)


def by_opencv(path, size):
    """Decode with OpenCV."""
    flags = {1: cv2.IMREAD_COLOR, 2: cv2.IMREAD_REDUCED_COLOR_2, 4: cv2.IMREAD_REDUCED_COLOR_4}
    flag = flags.get(scale_for(size), cv2.IMREAD_REDUCED_COLOR_8)
    picture = cv2.imread(str(path), flag | cv2.IMREAD_IGNORE_ORIENTATION)
    height, width = picture.shape[:2]
    left = (width - height) // 2
    square = picture[:, left : left + height]
    small = cv2.resize(square, (size, size), interpolation=cv2.INTER_AREA)
    return cv2.cvtColor(small, cv2.COLOR_BGR2RGB)


def by_draft(path, size):
    """Decode with Pillow at a reduced scale."""
    picture = Image.open(path)
    scale = scale_for(size)
    picture.draft(None, (WIDTH // scale, HEIGHT // scale))
    return resized(picture, size)


class Whole(Dataset):
    """The files, decoded by Pillow at full size, as most training scripts do."""

    def __init__(self, paths, size):
        self.paths, self.size = paths, size

    def __len__(self):
        return len(self.paths)

    def __getitem__(self, number):
        picture = Image.open(self.paths[number]).convert("RGB")
        return torch.from_numpy(resized(picture, self.size).copy()).permute(2, 0, 1)


def methods(paths, size, cores):
    """Return a function for each method, which decodes all pictures: (N, size, size, 3)."""

    def ours(path, size):  # as training reads them
        return read_sized(path.read_bytes(), path.name, height=size, width=size)

    def peewit():
        return pooled(ours)()

    def pillow_only():
        usual, scaled._simplejpeg = scaled._simplejpeg, lambda: None
        try:
            return peewit()
        finally:
            scaled._simplejpeg = usual

    def pooled(decode):
        def run():
            with ThreadPoolExecutor(cores) as pool:
                return np.stack(list(pool.map(lambda path: decode(path, size), paths)))

        return run

    loader = DataLoader(
        Whole(paths, size), batch_size=4, num_workers=cores, persistent_workers=True
    )

    def dataloader():
        return torch.cat(list(loader)).permute(0, 2, 3, 1).numpy()

    found = {"peewit": peewit}
    if simplejpeg:
        found |= {"peewit, Pillow only": pillow_only, "simplejpeg": pooled(by_simplejpeg)}
    if cv2:
        cv2.setNumThreads(1)  # the pool has a thread for each core
        found["OpenCV"] = pooled(by_opencv)
    return found | {"Pillow draft": pooled(by_draft), "DataLoader": dataloader}


def measure(arguments, paths, log):
    """Measure all methods for all sizes."""
    cores = usable_cores()
    versions = {
        "pillow": PIL.__version__,
        "libjpeg_turbo": features.version("libjpeg_turbo"),
        "simplejpeg": getattr(simplejpeg, "__version__", None),
        "opencv": getattr(cv2, "__version__", None),
    }
    about = machine() | versions | {"cores": cores, "pictures": len(paths)}
    about["mean_bytes"] = sum(path.stat().st_size for path in paths) // len(paths)
    about["photographs"] = bool(arguments.photos)
    for size in arguments.sizes:
        every = methods(paths, size, cores)
        # also starts the workers; all methods must decode the same pictures
        first = {name: run() for name, run in every.items()}
        whole = first["DataLoader"].astype(int)
        off = {name: float(np.abs(pixels - whole).mean()) for name, pixels in first.items()}
        rates = {name: [] for name in every}
        for turn in range(arguments.rounds):
            for name, run in every.items():
                begin = time.perf_counter()
                run()
                rates[name].append(len(paths) / (time.perf_counter() - begin))
                row = {"method": name, "size": size, "round": turn}
                row |= {"pictures_per_second": rates[name][-1], "difference": off[name]}
                append(log, row | about)
        show(size, rates, off)


def show(size, rates, off):
    """Print the medians for one size and Peewit's share of the others' rates."""
    medians = {name: statistics.median(values) for name, values in rates.items()}
    by_hand = {n: v for n, v in medians.items() if not n.startswith("peewit") and n != "DataLoader"}
    best = max(by_hand, key=by_hand.get)
    print(f"\nto {size} x {size} pixels, pictures/s (median), ratio of peewit to it:")
    for name, rate in medians.items():
        share = medians["peewit"] / rate
        print(f"  {name:22}{rate:8.1f}{share:8.2f}   off full decoding by {off[name]:.2f} of 255")
    print(f"  {medians['peewit'] / medians[best]:.2f} of the fastest by hand ({best}), target 0.9")
    print(f"  {medians['peewit'] / medians['DataLoader']:.2f} times the DataLoader, target 3")


def main():
    """Make the pictures, measure and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--photos", type=Path, help="folder of pictures to mix")
    parser.add_argument("--pictures", type=int, default=48)
    parser.add_argument("--sizes", type=int, nargs="+", default=[64, 128])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--log", type=Path, default=today("decoding"))
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        print(f"making {arguments.pictures} pictures", file=sys.stderr)
        paths = make(Path(folder), arguments.pictures, arguments.photos)
        measure(arguments, paths, arguments.log)


if __name__ == "__main__":
    main()
