"""The contact sheet: a grid of small pictures, evenly over the classes, each with its class and number.

It shows patients' images, so it can be left out. The file holds only pixels: no text chunks, no times,
no colour profile.
"""

import io
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from sagemaker_monai.doctor.examine import Examination
from sagemaker_monai.doctor.examined import Examined
from sagemaker_monai.doctor.processes import map_isolated
from sagemaker_monai.doctor.thumbnails import SIDE, Picture, draw

MAX_PICTURES = 64
COLUMNS = 8
CAPTION = 16  # pixels
GAP = 4
MAX_CAPTION = 20  # characters
PAPER, INK = (24, 24, 24), (220, 220, 220)


def contact_sheet(examination: Examination, *, processes: int = 0) -> tuple[bytes, int] | None:
    """Draw the sheet.

    Args:
        examination: its files must still be there.
        processes: see `processes.map_isolated`.

    Returns:
        A PNG file and how many images are on it; None if no image can be shown.
    """
    chosen = choose(_candidates(examination), MAX_PICTURES)
    pictures = [picture for picture, _, _ in chosen]
    drawn = dict(map_isolated(draw, pictures, _not_drawn, processes=processes))
    tiles = [
        (tile, f"{name} #{number}" if name else f"#{number}")
        for index, (_, name, number) in enumerate(chosen)
        if (tile := drawn[index]) is not None
    ]
    return (_sheet(tiles), len(tiles)) if tiles else None


def _not_drawn(_picture: Picture) -> None:
    return None


Candidate = tuple[Picture, str, int]  # and the class as it may be shown, and the number of the first file


def choose(candidates: Sequence[Candidate], count: int) -> list[Candidate]:
    """At most `count`, shared evenly between the classes and spread evenly within each; ordered by class."""
    classes: Mapping[str, list[Candidate]] = defaultdict(list)
    for each in candidates:
        classes[each[1]].append(each)
    shares = dict.fromkeys(classes, 0)
    while sum(shares.values()) < min(count, len(candidates)):
        for name, own in classes.items():
            if shares[name] < len(own) and sum(shares.values()) < count:
                shares[name] += 1
    return [
        own[position * len(own) // shares[name]] for name, own in classes.items() for position in range(shares[name])
    ]


def _candidates(examination: Examination) -> list[Candidate]:
    labelled = [image for image in examination.images if image.is_labelled and image.files]
    if labelled:
        pairs = [
            (image.files, examination.shown(_name(image)), image.case.mask if image.case else None)
            for image in labelled
        ]
        pairs.sort(key=lambda pair: pair[1])
    else:
        numbers: dict[object, int] = {facts.found.path: n for n, facts in enumerate(examination.files)}
        stacks = [[numbers[instance.source] for instance in stack.instances] for stack in examination.stacks]
        single = [[n] for n, facts in enumerate(examination.files) if facts.is_usable and facts.instance is None]
        pairs = [(tuple(files), "", None) for files in stacks + single]
    return [
        (replace(_picture(usable, examination), mask=mask), name, usable[0] + 1)
        for files, name, mask in pairs
        if (usable := [number for number in files if examination.files[number].is_usable])
    ]


def _name(image: Examined) -> str:
    if image.names:
        return "+".join(image.names)
    label = image.case.label if image.case else None
    return f"{label:g}" if isinstance(label, float) else ""


def _picture(numbers: Sequence[int], examination: Examination) -> Picture:
    own = [examination.files[number] for number in numbers]
    voxels = sum(facts.shape[0] * facts.shape[1] * max(facts.shape[2], 1) for facts in own)
    return Picture(tuple(facts.found.path for facts in own), own[0].found.kind, voxels)


def _sheet(tiles: Sequence[tuple[np.ndarray, str]]) -> bytes:
    columns = min(COLUMNS, len(tiles))
    rows = -(-len(tiles) // columns)
    width, height = SIDE + GAP, SIDE + CAPTION + GAP
    sheet = Image.new("RGB", (columns * width + GAP, rows * height + GAP), PAPER)
    pen, font = ImageDraw.Draw(sheet), ImageFont.load_default(11)
    for position, (tile, caption) in enumerate(tiles):
        left, top = GAP + position % columns * width, GAP + position // columns * height
        sheet.paste(Image.fromarray(tile, "RGB"), (left, top))
        text = caption if len(caption) <= MAX_CAPTION else f"…{caption[1 - MAX_CAPTION :]}"
        pen.text((left + SIDE // 2, top + SIDE + 1), text, fill=INK, font=font, anchor="ma")
    file = io.BytesIO()
    sheet.save(file, "PNG", optimize=True)
    return file.getvalue()
