"""Draw a synthetic sample data set in the layout of the HAM10000 download: two zips of JPEGs and `HAM10000_metadata`.

It replaces photographs that may not be shipped (HAM10000 is CC BY-NC), for trying and testing all steps, not for
learning about skin. All files say that they are synthetic. Seven classes are drawn from overlapping distributions of
colour, size, border and texture, with noise, hairs, rulers and uneven light, so that a small network learns something
but never everything; class sizes are unequal as in HAM10000, and a lesion is photographed up to four times from other
angles. The same seed draws the same pictures with the same versions of numpy and Pillow.
"""

import argparse
import csv
import io
import sys
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw

from sagemaker_monai.messages.progress import track

Floats = npt.NDArray[np.float32]
MIN_LESIONS = 8  # of a class: enough for every split
PICTURES_OF_A_LESION = (0.55, 0.25, 0.13, 0.07)  # chance of 1, 2, 3, 4 pictures
JPEG_QUALITY = 80
SKIN = (0.86, 0.68, 0.62)
FIELD_SIDE = 256
README = """SYNTHETIC pictures drawn by code (scripts/develop/draw_sample.py) in the layout of the HAM10000 download.
They show no skin, no lesion and no person, and no medical meaning can be taken from them.
"""


@dataclass(frozen=True)
class Look:
    """How a class is drawn, on average. Lengths are fractions of the picture's height, colours RGB from 0 to 1."""

    share: float  # of all lesions
    colour: tuple[float, float, float]
    second_colour: tuple[float, float, float]  # of blotches
    blotches: float  # how far blotches reach the second colour
    radius: float
    irregularity: float  # of the border, relative to the radius
    softness: float  # width of the border
    grain: float  # strength of fine dots
    site: str
    age: float


# Commonest site and mean age are HAM10000's. The shares keep its order of classes but are less extreme (nv 0.72, df
# 0.01 there), because with few pictures the rare classes would have hardly any test pictures. The rest is made up.
LOOKS = {
    "akiec": Look(0.060, (0.70, 0.42, 0.38), (0.80, 0.62, 0.52), 0.6, 0.27, 0.22, 0.10, 0.07, "face", 66),
    "bcc": Look(0.080, (0.66, 0.42, 0.46), (0.36, 0.32, 0.42), 0.6, 0.24, 0.18, 0.08, 0.04, "back", 67),
    "bkl": Look(0.140, (0.55, 0.40, 0.30), (0.72, 0.60, 0.45), 0.5, 0.28, 0.14, 0.06, 0.08, "face", 64),
    "df": Look(0.035, (0.68, 0.46, 0.44), (0.88, 0.76, 0.74), 0.6, 0.22, 0.08, 0.13, 0.03, "lower extremity", 53),
    "mel": Look(0.120, (0.36, 0.24, 0.22), (0.20, 0.18, 0.26), 0.8, 0.30, 0.26, 0.05, 0.06, "back", 61),
    "nv": Look(0.530, (0.48, 0.31, 0.25), (0.36, 0.22, 0.17), 0.4, 0.23, 0.10, 0.06, 0.05, "lower extremity", 47),
    "vasc": Look(0.035, (0.64, 0.18, 0.30), (0.46, 0.10, 0.28), 0.6, 0.20, 0.10, 0.04, 0.03, "trunk", 52),
}
SITES = ("abdomen", "back", "chest", "face", "lower extremity", "neck", "scalp", "trunk", "upper extremity", "unknown")
COLUMNS = ("lesion_id", "image_id", "dx", "dx_type", "age", "sex", "localization")


@dataclass(frozen=True)
class Lesion:
    """One drawn lesion; its pictures share these and differ in angle, distance, light and noise."""

    look: Look
    colour: Floats
    second_colour: Floats
    skin: Floats
    blotches: float
    radius: float
    elongation: float
    softness: float
    grain: float
    border: Floats  # (360,), the border's distance by direction, relative to the radius
    blotch_field: Floats  # (FIELD_SIDE, FIELD_SIDE), standard normal, smooth
    grain_field: Floats  # the same, finer


def _lesion(look: Look, rng: np.random.Generator) -> Lesion:
    """Draw a lesion's features around those of its class."""
    wave = np.arange(2, 9)  # waves a turn
    amplitude = look.irregularity * rng.lognormal(0, 0.35) * np.clip(rng.normal(size=wave.size), -2, 2) * 1.5 / wave
    phase = rng.uniform(0, 2 * np.pi, size=wave.size)
    turn = np.linspace(0, 2 * np.pi, 360, endpoint=False)
    border = 1 + (amplitude * np.cos(wave * turn[:, None] + phase)).sum(axis=1)
    tint = rng.normal(scale=0.07) + rng.normal(scale=0.035, size=3)  # brightness and hue vary more than classes differ
    return Lesion(
        look=look,
        colour=(np.array(look.colour) + tint).astype(np.float32),
        second_colour=(np.array(look.second_colour) + tint).astype(np.float32),
        skin=(np.array(SKIN) + rng.normal(scale=0.05) + rng.normal(scale=0.025, size=3)).astype(np.float32),
        blotches=look.blotches * rng.lognormal(0, 0.4),
        radius=float(np.clip(look.radius * rng.lognormal(0, 0.28), 0.08, 0.45)),
        elongation=float(rng.uniform(0.75, 1.0)),
        softness=look.softness * rng.lognormal(0, 0.35),
        grain=look.grain * rng.lognormal(0, 0.4),
        border=border.astype(np.float32),
        blotch_field=_smooth(rng.normal(size=(16, 16)), (FIELD_SIDE, FIELD_SIDE)),
        grain_field=_smooth(rng.normal(size=(128, 128)), (FIELD_SIDE, FIELD_SIDE)),
    )


def _smooth(values: npt.NDArray[np.float64], size: tuple[int, int]) -> Floats:
    """Enlarge a small field of numbers to (width, height) without steps."""
    return np.asarray(Image.fromarray(values.astype(np.float32)).resize(size, Image.Resampling.BICUBIC))


def _at(field: Floats, u: Floats, v: Floats) -> Floats:
    """Look a square field up at positions from -1 to 1, repeated outside."""
    side = field.shape[0]
    column = ((u + 1) * (side / 2)).astype(np.int32) % side
    row = ((v + 1) * (side / 2)).astype(np.int32) % side
    return np.asarray(field[row, column])


def _artefacts(size: tuple[int, int], rng: np.random.Generator) -> Image.Image:
    """Hairs and a ruler's ticks on an 8-bit mask."""
    width, height = size
    mask = Image.new("L", size)
    pen = ImageDraw.Draw(mask)
    for _ in range(rng.poisson(1.2) * int(rng.integers(1, 5))):
        x, y, angle = rng.uniform(0, width), rng.uniform(0, height), rng.uniform(0, 2 * np.pi)
        bend, length = rng.normal(scale=0.5), rng.uniform(0.2, 0.7) * height
        steps = np.linspace(0, 1, 8)
        points = zip(
            x + length * steps * np.cos(angle + bend * steps),
            y + length * steps * np.sin(angle + bend * steps),
            strict=True,
        )
        pen.line([(float(a), float(b)) for a, b in points], fill=int(rng.integers(120, 230)), width=1)
    if rng.random() < 0.15:
        step, top = max(4, height // 20), int(rng.integers(0, height))
        for x in range(0, width, step):
            pen.line([(x, top), (x, top + step)], fill=220, width=1)
    return mask


def _picture(lesion: Lesion, size: tuple[int, int], rng: np.random.Generator) -> Image.Image:
    """Photograph a lesion with its own angle, distance, place, light, hairs and noise."""
    width, height = size
    y, x = np.mgrid[0:height, 0:width].astype(np.float32)  # (H, W)
    x, y = (x - width / 2) / height, (y - height / 2) / height
    tilt_x, tilt_y, exposure, dark_rim = rng.normal(scale=(0.12, 0.12, 0.08, 0.3)).tolist()
    light = (1 + exposure + tilt_x * x + tilt_y * y) * (1 - abs(dark_rim) * np.maximum(x * x + y * y - 0.2, 0))

    angle, zoom, mirrored = rng.uniform(0, 2 * np.pi), rng.lognormal(0, 0.12), rng.random() < 0.5
    shift_x, shift_y = rng.normal(scale=0.05, size=2).tolist()
    x, y = (x - shift_x) / zoom, (y - shift_y) / zoom
    u = (x * float(np.cos(angle)) + y * float(np.sin(angle))) * (-1 if mirrored else 1)
    v = (y * float(np.cos(angle)) - x * float(np.sin(angle))) / lesion.elongation

    direction = np.arctan2(v, u) * np.float32(180 / np.pi)
    border = np.take(lesion.border, direction.astype(np.int32) % 360)
    outward = np.hypot(u, v) - np.float32(lesion.radius) * border
    inside = (1 / (1 + np.exp(np.clip(outward * (4 / lesion.softness), -30, 30))))[..., None]
    blotch = np.clip(lesion.blotches * (0.5 + _at(lesion.blotch_field, u, v)), 0, 1)[..., None]
    grain = lesion.grain * _at(lesion.grain_field, u * 2, v * 2)[..., None]

    lesion_colour = lesion.colour + blotch * (lesion.second_colour - lesion.colour) + grain
    skin = lesion.skin + 0.02 * _smooth(rng.normal(size=(18, 24)), size)[..., None]
    hair = np.asarray(_artefacts(size, rng), dtype=np.float32)[..., None] / 255
    picture = skin + inside * (lesion_colour - skin)  # (H, W, 3)
    picture = (picture + hair * (0.15 - picture)) * light[..., None]
    picture *= 1 + rng.normal(scale=0.03, size=3).astype(np.float32)  # colour cast
    picture += 0.025 * rng.standard_normal(picture.shape, dtype=np.float32)
    return Image.fromarray((np.clip(picture, 0, 1) * 255).round().astype(np.uint8))


def _jpeg(picture: Image.Image) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, "JPEG", quality=JPEG_QUALITY, comment=b"synthetic, drawn by code")
    return buffer.getvalue()


def _classes(lesions: int) -> list[str]:
    """The class of each lesion, by the classes' shares, but at least MIN_LESIONS each."""
    counts = {name: max(MIN_LESIONS, round(look.share * lesions)) for name, look in LOOKS.items()}
    counts["nv"] = lesions - sum(count for name, count in counts.items() if name != "nv")
    return [name for name, count in counts.items() for _ in range(count)]


def _drawn(classes: list[str], seed: int, size: tuple[int, int]) -> Iterator[list[tuple[dict[str, str], bytes]]]:
    """Yield for each lesion its pictures: a row of metadata, without ids, and a JPEG."""
    for index, name in enumerate(classes):
        look = LOOKS[name]
        rng = np.random.default_rng([seed, index])
        lesion = _lesion(look, rng)
        age = str(int(np.clip(5 * round(rng.normal(look.age, 15) / 5), 5, 85))) if rng.random() > 0.01 else ""
        row = {
            "dx": name,
            "dx_type": "synthetic",
            "age": f"{age}.0" if age else "",
            "sex": "unknown" if rng.random() < 0.01 else str(rng.choice(["female", "male"])),
            "localization": look.site if rng.random() < 0.4 else str(rng.choice(SITES)),
        }
        pictures = 1 + int(rng.choice(len(PICTURES_OF_A_LESION), p=PICTURES_OF_A_LESION))
        yield [(row, _jpeg(_picture(lesion, size, rng))) for _ in range(pictures)]


def draw_sample(folder: Path, *, lesions: int, seed: int, size: tuple[int, int] = (200, 150)) -> None:
    """Write `HAM10000_images_part_1.zip`, `_part_2.zip`, `HAM10000_metadata` and a README into a folder.

    Args:
        folder: made if missing; the four files are replaced.
        lesions: number to draw, at least 14 for each of the 7 classes; about 1.7 pictures each.
        seed: from 0; another seed draws other lesions.
        size: width and height of each picture in pixels.

    Raises:
        ValueError: too few lesions for the classes to be unequal.
    """
    if lesions < 2 * MIN_LESIONS * len(LOOKS):
        raise ValueError(f"lesions must be at least {2 * MIN_LESIONS * len(LOOKS)}, got {lesions}")
    folder.mkdir(parents=True, exist_ok=True)
    classes = _classes(lesions)
    drawn = list(track(_drawn(classes, seed, size), total=lesions, what="drawing synthetic lesions"))
    pictures = [
        ({"lesion_id": f"SYNTHETIC_LESION_{index:04d}", **row}, jpeg)
        for index, group in enumerate(drawn, start=1)
        for row, jpeg in group
    ]
    numbers = np.random.default_rng(seed).permutation(len(pictures)) + 1  # ids must not reveal the class
    by_id = [
        ({**row, "image_id": f"SYNTHETIC_{number:07d}"}, jpeg)
        for number, (row, jpeg) in sorted(zip(numbers.tolist(), pictures, strict=True), key=lambda pair: pair[0])
    ]
    half = (len(by_id) + 1) // 2
    for part, members in enumerate((by_id[:half], by_id[half:]), start=1):
        with zipfile.ZipFile(folder / f"HAM10000_images_part_{part}.zip", "w") as archive:
            for row, jpeg in members:  # ZipInfo's own date, 1980, so that the same seed gives the same file
                archive.writestr(zipfile.ZipInfo(f"{row['image_id']}.jpg"), jpeg)
    with (folder / "HAM10000_metadata").open("w", encoding="utf-8", newline="") as table:
        writer = csv.DictWriter(table, COLUMNS, lineterminator="\n")
        writer.writeheader()
        writer.writerows(row for row, _ in by_id)
    (folder / "README.txt").write_text(README, encoding="utf-8")


def main(argv: list[str] | None = None) -> int:
    """Draw from the command line."""
    parser = argparse.ArgumentParser(prog="draw_sample", description="Draw a synthetic data set in HAM10000's layout.")
    parser.add_argument("folder", type=Path, help="where to write it")
    parser.add_argument("--lesions", type=int, default=450, help="how many lesions (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="another seed draws other lesions (default: %(default)s)")
    options = parser.parse_args(argv)
    try:
        draw_sample(options.folder, lesions=options.lesions, seed=options.seed)
    except ValueError as error:
        parser.error(str(error))
    print(f"drew {options.lesions} synthetic lesions into {options.folder}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
