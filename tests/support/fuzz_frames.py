"""Decode frames that were changed at random: `python -m tests.support.fuzz_frames SEED COUNT [--from N]`.

It runs in its own process, because a decoder's fault may kill it. Each case depends only on the seed and its number;
the number is printed before decoding, so that the last line of a process that died names the case. The last line of a
process that survived is JSON: how many were read and refused, the longest time and the most memory.
"""

import argparse
import copy
import faulthandler
import json
import random
import re
import resource
import struct
import time
from collections import Counter
from pathlib import Path

import numpy as np
from pydicom import Dataset
from pydicom.encaps import encapsulate, generate_frames

from sagemaker_monai.errors import CallerError
from sagemaker_monai.images.dicom.decoding import DECODERS, decode_stored
from sagemaker_monai.images.dicom.headers import read_instance
from tests.support.compressed_frames import ENCODERS, LOSSLESS, as_htj2k, as_j2k, as_jpeg, as_jpeg_lossless
from tests.support.made_dicom import made_dataset
from tests.support.odd_files import odd_dicom_paths

MEMORY_BYTES = 6 << 30  # of address space, a limit like a container's
Frame = tuple[bytes, Dataset]  # compressed pixel data, and a dataset that it fits


def frames() -> list[Frame]:
    """Frames of every transfer syntax, made and from the odd files."""
    rng = np.random.default_rng(0)
    grey = np.cumsum(rng.integers(-3, 4, (61, 67)), axis=1).astype(np.uint8)
    colour = np.stack([grey, grey.T[:61, :61].repeat(2, 1)[:, :67], grey ^ 7], axis=-1)
    made: list[Frame] = []
    for syntax, encode in ENCODERS.items():
        for frame in (grey, colour, grey.astype(np.uint16) << 4):
            if syntax in LOSSLESS or frame.dtype == np.uint8:
                made.append((encode(frame), made_dataset(frame[np.newaxis], syntax, PixelData=b"-")))
    more = {
        "1.2.840.10008.1.2.4.50": [
            as_jpeg(colour, outcolorspace="YCBCR", subsampling="420"),
            as_jpeg(grey, optimize=True),
        ],
        "1.2.840.10008.1.2.4.57": [as_jpeg_lossless(colour, predictor=4)],
        "1.2.840.10008.1.2.4.90": [as_j2k(colour, use_mct=True), as_j2k(grey, codec_format=1)],
        "1.2.840.10008.1.2.4.201": [as_htj2k(grey, tile=(32, 32)), as_htj2k(colour, planar=False)],
    }
    for syntax, encoded in more.items():
        for data in encoded:
            for shape in (grey, colour):
                made.append((data, made_dataset(shape[np.newaxis], syntax, PixelData=b"-")))
    for path in odd_dicom_paths():
        try:
            dataset = read_instance(path)
        except CallerError:
            continue
        syntax = dataset.file_meta.get("TransferSyntaxUID")
        if syntax in DECODERS and "PixelData" in dataset and path.stat().st_size < 400_000:
            data = next(generate_frames(dataset.PixelData, number_of_frames=int(dataset.get("NumberOfFrames") or 1)))
            dataset.NumberOfFrames = 1
            made.append((data, dataset))
    return made


def changed(rng: random.Random, data: bytes) -> bytes:
    """A frame with some of its bytes lost, added or changed, most often within its headers."""
    part = bytearray(data)
    for _ in range(rng.choice([1, 1, 1, 2, 5])):
        place = rng.randrange(min(len(part), rng.choice([64, 200, 700, *[len(part)] * 4])))
        match rng.randrange(8):
            case 0 | 1:
                part[place] = rng.choice([0, 1, 2, 0x7F, 0x80, 0xFE, 0xFF, rng.randrange(256)])
            case 2:
                part[place] ^= 1 << rng.randrange(8)
            case 3:
                part[place : place + 2] = struct.pack(
                    ">H", rng.choice([0, 1, 2, 0x7FFF, 0xFFFF, rng.randrange(65_536)])
                )
            case 4:
                part[place : place + 4] = rng.randbytes(4)
            case 5:
                del part[place : place + rng.randrange(1, 60)]
            case 6:
                source = rng.randrange(len(part))
                part[place:place] = part[source : source + rng.randrange(1, 300)]
            case 7:
                marker = part.find(b"\xff", place)  # another marker, or a field after one
                if 0 <= marker < len(part) - 1:
                    part[marker + rng.choice([1, 1, 3, 4, 5, 6, 7]) :][:1] = rng.randbytes(1)
        if not part:
            part = bytearray(data[:1])
    if rng.random() < 0.1:
        part = part[: rng.randrange(1, len(part) + 1)]
    return bytes(part)


def with_size(rng: random.Random, data: bytes, dataset: Dataset) -> bytes:
    """A frame whose codestream and DICOM header agree on a wrong size."""
    rows, columns = (rng.choice([1, 2, 63, 257, 1_024, 3_000]) for _ in range(2))
    old = struct.pack(">HH", dataset.Rows, dataset.Columns)
    data = data.replace(old, struct.pack(">HH", rows, columns), 1)
    wide = struct.pack(">LL", dataset.Columns, dataset.Rows)
    data = data.replace(wide, struct.pack(">LL", columns, rows), 2)  # of the picture and of its tiles
    dataset.Rows, dataset.Columns = rows, columns
    return data


def case(seed: int, number: int, sources: list[Frame]) -> Dataset:
    """The dataset of one case."""
    rng = random.Random(f"{seed} {number}")
    data, source = rng.choice(sources)
    dataset = copy.deepcopy(source.group_dataset(0x0028))  # the Image Pixel module
    dataset.file_meta = source.file_meta
    if rng.random() < 0.15:
        data = with_size(rng, data, dataset)
    if rng.random() < 0.95:
        data = changed(rng, data)
    if rng.random() < 0.1:
        dataset.file_meta = Dataset()
        dataset.file_meta.TransferSyntaxUID = rng.choice(sorted(DECODERS))
    if rng.random() < 0.1:
        keyword = rng.choice(["BitsAllocated", "BitsStored", "HighBit", "PixelRepresentation", "SamplesPerPixel"])
        setattr(dataset, keyword, rng.choice([0, 1, 3, 7, 8, 12, 15, 16, 32]))
    if rng.random() < 0.1:
        dataset.PhotometricInterpretation = rng.choice(["RGB", "YBR_FULL", "YBR_RCT", "MONOCHROME1", "PALETTE COLOR"])
    dataset.PixelData = encapsulate([data])
    return dataset


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("seed", type=int)
    parser.add_argument("count", type=int)
    parser.add_argument("--from", dest="first", type=int, default=0)
    options = parser.parse_args()
    faulthandler.enable()
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, MEMORY_BYTES))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    sources = frames()
    outcomes: Counter[str] = Counter()
    longest_s, longest, longest_message = 0.0, 0, 0
    for number in range(options.first, options.first + options.count):
        print(number, flush=True)
        dataset = case(options.seed, number, sources)
        started = time.process_time()
        try:
            decode_stored(dataset)
            outcomes["read"] += 1
        except CallerError as error:
            outcomes["refused"] += 1
            longest_message = max(longest_message, len(str(error)))
        spent_s = time.process_time() - started
        if spent_s > longest_s:
            longest_s, longest = spent_s, number
    # Not ru_maxrss, which on Linux includes the memory of the parent before exec.
    [peak] = re.findall(r"^VmHWM:\s+(\d+) kB$", Path("/proc/self/status").read_text(), re.MULTILINE)
    peak_mb = int(peak) // 1024
    print(
        json.dumps(
            {
                **outcomes,
                "longest_s": round(longest_s, 2),
                "longest": longest,
                "longest_message": longest_message,
                "peak_mb": peak_mb,
            }
        )
    )


if __name__ == "__main__":
    main()
