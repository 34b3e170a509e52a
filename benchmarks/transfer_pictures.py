"""The pictures for ``transfer_by_hand.py``: read with Pillow, augmented as the recipes say."""

import math
import random
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageEnhance, ImageOps
from torch.nn import functional as F
from torch.utils.data import Dataset

SIZE = 224
PRESIZED = 256  # fastai: the side before random crops; the pictures are not larger
HELD_OUT = 0.1


def listed(folder, seed):
    """Return training, validation and test pictures, (path, label) each, and the class count.

    Where there is no folder ``val``, a tenth of the training pictures is held out, by the seed.
    """
    names = sorted(path.name for path in Path(folder, "train").iterdir())
    parts = {
        part: [
            (str(path), label)
            for label, name in enumerate(names)
            for path in sorted(Path(folder, part, name).glob("*"))
        ]
        for part in ("train", "val", "test")
    }
    training, validation = parts["train"], parts["val"]
    if not validation:
        random.Random(seed).shuffle(training)
        count = max(1, round(HELD_OUT * len(training)))
        training, validation = training[count:], training[:count]
    return training, validation, parts["test"], len(names)


class Pictures(Dataset):
    """Decodes pictures when they are asked for, upright and in colour: float32 (3, 224, 224)."""

    def __init__(self, listed, prepared):
        self.listed, self.prepared = listed, prepared

    def __len__(self):
        return len(self.listed)

    def __getitem__(self, number):
        path, label = self.listed[number]
        with Image.open(path) as picture:
            picture.draft("RGB", (2 * PRESIZED, 2 * PRESIZED))  # decode large JPEGs at less
            upright = ImageOps.exif_transpose(picture).convert("RGB")
        # the weights' own normalisation
        return (self.prepared(upright) - 127) / 128, label


def tensor(picture):
    """Return a picture as float32 (3, H, W) from 0 to 255."""
    return torch.from_numpy(np.array(picture)).permute(2, 0, 1).float()


def stretched(picture):
    return tensor(picture.resize((SIZE, SIZE), Image.Resampling.BILINEAR))


def cropped_to(picture, size, at=0.5):
    """Return the square at ``at`` (0 to 1) of the longer side, resized to ``size``."""
    side = min(picture.size)
    left, top = ((length - side) * at for length in picture.size)
    box = (left, top, left + side, top + side)
    return picture.resize((size, size), Image.Resampling.BILINEAR, box=box)


def central(picture):
    return tensor(cropped_to(picture, SIZE))


def warped(x, matrix):
    """Return (3, 224, 224) that looks at ``x`` through a homography, reflected at the edges.

    Parameters
    ----------
    x : Tensor
        (3, H, W).
    matrix : Tensor
        (3, 3), from the output's coordinates to the input's; both from -1 to 1.
    """
    at = torch.linspace(-1 + 1 / SIZE, 1 - 1 / SIZE, SIZE)
    rows, columns = torch.meshgrid(at, at, indexing="ij")
    points = torch.stack([columns, rows, torch.ones_like(rows)], -1) @ matrix.T
    grid = (points[..., :2] / points[..., 2:])[None]
    return F.grid_sample(x[None], grid, padding_mode="reflection", align_corners=False)[0]


def rotation(degrees):
    sine, cosine = math.sin(math.radians(degrees)), math.cos(math.radians(degrees))
    return torch.tensor([[cosine, -sine, 0], [sine, cosine, 0], [0, 0, 1.0]])


def mirrored():
    return torch.diag(torch.tensor([random.choice((-1.0, 1.0)), 1.0, 1.0]))


def keras(picture):
    """RandomFlip("horizontal"), RandomRotation(0.1): up to a tenth of a turn either way."""
    return warped(stretched(picture), mirrored() @ rotation(random.uniform(-36, 36)))


def fastai(picture):
    """Resize, then ``aug_transforms(size=224, min_scale=0.75)``: fastai book, chapter 5.

    Flip; each with probability 0.75: warp 0.2, rotation by up to 10 degrees, zoom up to 1.1,
    brightness and contrast 0.2; a crop of 75 to 100 % of the area with sides in 3:4 to 4:3.
    """
    x = tensor(cropped_to(picture, PRESIZED, random.random()))
    matrix = mirrored()
    if random.random() < 0.75:
        warp = torch.eye(3)
        warp[2, :2] = torch.empty(2).uniform_(-0.2, 0.2) / 2
        matrix = matrix @ warp
    if random.random() < 0.75:
        matrix = matrix @ rotation(random.uniform(-10, 10))
    if random.random() < 0.75:
        matrix = matrix @ crop(*[1 / random.uniform(1, 1.1)] * 2)
    area, ratio = random.uniform(0.75, 1), math.exp(random.uniform(-1, 1) * math.log(4 / 3))
    width, height = (min(1.0, math.sqrt(area * part)) for part in (ratio, 1 / ratio))
    x = warped(x, matrix @ crop(width, height))
    return lit(x / 255) * 255


def crop(width, height):
    """Return the matrix of a random crop with these shares of the sides."""
    x, y = random.uniform(width - 1, 1 - width), random.uniform(height - 1, 1 - height)
    return torch.tensor([[width, 0, x], [0, height, y], [0, 0, 1.0]])


def lit(x):
    """Change brightness and contrast as fastai does, in the space of logits."""
    logits = torch.logit(x.clamp(1e-3, 1 - 1e-3))
    if random.random() < 0.75:
        change = random.uniform(0.4, 0.6)
        logits = logits + math.log(change / (1 - change))
    if random.random() < 0.75:
        logits = logits * math.exp(random.uniform(math.log(0.8), -math.log(0.8)))
    return torch.sigmoid(logits)


def autogluon(picture):
    """resize_shorter_side, center_crop, trivial_augment (arXiv 2103.10158), one operation each.

    The operations and their ranges are those of AutoGluon (multimodal/data/trivial_augmenter.py);
    the strength is one of 11 from 0 to 1.
    """
    picture = cropped_to(picture, SIZE)
    strength, sign = random.randint(0, 10) / 10, random.choice((-1, 1))
    return tensor(random.choice(OPERATIONS)(picture, strength, sign))


def affine(*matrix):
    return lambda p, s, sign: p.transform(
        p.size, Image.Transform.AFFINE, [f(s * sign) for f in matrix]
    )


def enhanced(kind):
    return lambda p, s, sign: kind(p).enhance(0.1 + 1.7 * s)


def zero(x):
    return 0


def one(x):
    return 1


OPERATIONS = (
    lambda p, s, sign: p,
    lambda p, s, sign: ImageOps.autocontrast(p),
    lambda p, s, sign: ImageOps.equalize(p),
    lambda p, s, sign: p.rotate(int(30 * s) * sign),
    lambda p, s, sign: ImageOps.solarize(p, 256 - int(256 * s)),
    lambda p, s, sign: ImageOps.posterize(p, max(1, 4 - int(4 * s))),
    *map(
        enhanced,
        (
            ImageEnhance.Color,
            ImageEnhance.Contrast,
            ImageEnhance.Brightness,
            ImageEnhance.Sharpness,
        ),
    ),
    affine(one, lambda x: 0.3 * x, zero, zero, one, zero),
    affine(one, zero, zero, lambda x: 0.3 * x, one, zero),
    affine(one, zero, lambda x: int(10 * x), zero, one, zero),
    affine(one, zero, zero, zero, one, lambda x: int(10 * x)),
)

AUGMENTED = {"keras": keras, "fastai": fastai, "autogluon": autogluon}
PLAIN = {"keras": stretched, "fastai": central, "autogluon": central, "probe": central}
