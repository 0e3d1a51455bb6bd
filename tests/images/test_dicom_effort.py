"""Compressed frames that ask for more than they are worth: refused before a decoder sees them, and no process ends."""

import json
import os
import struct
import subprocess
import sys
import time

import numpy as np
import pytest
from pydicom.encaps import encapsulate
from pydicom.uid import JPEG2000Lossless, JPEGBaseline8Bit, JPEGExtended12Bit, JPEGLosslessSV1, JPEGLSLossless

from sagemaker_monai.errors import PayloadTooLarge, UndecodableImage
from sagemaker_monai.images.dicom import effort
from sagemaker_monai.images.dicom.codestreams import read_j2k
from sagemaker_monai.images.dicom.decoding import decode_stored
from sagemaker_monai.images.dicom.effort import check_j2k
from tests.support.compressed_frames import ENCODERS, as_j2k, as_jpeg, compressed
from tests.support.made_dicom import made_dataset
from tests.support.places import ROOT

TINY_PRECINCTS = 0x11  # 2 x 2
WIDE = (JPEGLSLossless, JPEGExtended12Bit)  # tried with 16 bits, the others with 8
rng = np.random.default_rng(4)


def j2k(size: int, *segments: bytes, tile: bytes = b"", data: bytes = b"") -> bytes:
    """A codestream of one tile: its main header, and a tile-part with a header and data of its own. ITU-T T.800 A."""
    siz = struct.pack(">HHH8LH", 0xFF51, 41, 0, size, size, 0, 0, size, size, 0, 0, 1) + b"\7\1\1"
    part = tile + b"\xff\x93" + data
    sot = struct.pack(">HHHLBB", 0xFF90, 10, 0, 12 + len(part), 0, 1)
    return b"\xff\x4f" + siz + b"".join(segments) + sot + part + b"\xff\xd9"


def cod(layers: int = 1, levels: int = 5, block: int = 4, precinct: int | None = None) -> bytes:
    """Code-blocks of 2^(block + 2), and precincts of the same size at every resolution. ITU-T T.800 A.6.1."""
    sizes = b"" if precinct is None else bytes([precinct]) * (levels + 1)
    body = struct.pack(">BBHBBBBBB", precinct is not None, 0, layers, 0, levels, block, block, 0, 1) + sizes
    return b"\xff\x52" + struct.pack(">H", len(body) + 2) + body


def coc(levels: int = 5, precinct: int = TINY_PRECINCTS) -> bytes:
    """A style for the first component alone. ITU-T T.800 A.6.2."""
    body = bytes([0, 1, levels, 4, 4, 0, 1]) + bytes([precinct]) * (levels + 1)
    return b"\xff\x53" + struct.pack(">H", len(body) + 2) + body


def as_dataset(frame: bytes, size: int, syntax: str = JPEG2000Lossless):
    return made_dataset(np.zeros((1, 1, 1), np.uint8), syntax, Rows=size, Columns=size, PixelData=encapsulate([frame]))


@pytest.mark.parametrize(
    "frame",
    [
        j2k(4_096, cod(precinct=TINY_PRECINCTS)),  # OpenJPEG took 9 GB and 30 s
        j2k(4_096, cod(block=0)),
        j2k(4_096, cod(), coc()),
        j2k(4_096, cod(), tile=cod(precinct=TINY_PRECINCTS)),
        j2k(4_096, cod(), tile=coc()),
        j2k(4_096, cod(), tile=cod(layers=65_535, levels=5, precinct=0x77)),
    ],
    ids=["precincts", "code-blocks", "of a component", "of a tile", "of a component of a tile", "layers of a tile"],
)
def test_a_jpeg_2000_frame_in_too_many_parts_is_refused_before_it_is_decoded(frame):
    started = time.monotonic()

    with pytest.raises(PayloadTooLarge, match="small parts"):
        check_j2k(frame, read_j2k(frame))

    assert len(frame) < 300
    assert time.monotonic() - started < 10


@pytest.mark.parametrize(
    ("segment", "size", "precincts", "blocks"),
    [
        # By hand. Resolutions of 200 with 2 levels are 50, 100, 200.
        (cod(levels=2), 200, 3, 1 + 4 + 16),
        # Precincts of 64 x 64: 1, 2 x 2, 4 x 4; within one, above the lowest resolution, code-blocks are at most 32.
        (cod(levels=2, precinct=0x66), 200, 1 + 4 + 16, 1 + 16 + 49),
    ],
)
def test_precincts_and_code_blocks_are_counted_as_the_standard_lays_them_out(segment, size, precincts, blocks):
    frame = j2k(size, segment)

    style = segment[4] & 1
    counted = effort._parts(segment[9:], read_j2k(frame), has_precincts=bool(style))

    assert counted == (precincts, blocks)


@pytest.mark.parametrize("options", [{}, {"compression_ratios": [20, 10, 1]}])
def test_usual_frames_of_jpeg_2000_are_far_from_the_limits(options, monkeypatch):
    frame = as_j2k(rng.integers(0, 256, (600, 700), np.uint8), **options)
    monkeypatch.setattr(effort, "MIN_PARTS", 200)
    monkeypatch.setattr(effort, "MAX_PACKETS", 100)

    check_j2k(frame, read_j2k(frame))


def test_headers_that_another_reader_would_see_otherwise_are_refused():
    hidden = b"\xff\x30" + struct.pack(">H", 40) + b"\0" * 5 + cod(precinct=TINY_PRECINCTS)
    itself = bytearray(j2k(64, cod()))
    itself[itself.index(b"\xff\x90") + 6 :][:4] = b"\0\0\0\0"
    start = itself.index(b"\xff\x90")
    itself[start + 6 : start + 10] = struct.pack(
        ">L", itself.index(b"\xff\x93") - start
    )  # a tile-part that ends at SOD

    for frame in (j2k(64, hidden, cod()), bytes(itself), j2k(64, cod()[:8])):
        with pytest.raises(UndecodableImage):
            check_j2k(frame, read_j2k(j2k(64, cod())))


def resized(frame: bytes, size: int) -> bytes:
    """A JPEG whose frame header says another size."""
    start = next(frame.index(b"\xff" + bytes([sof])) for sof in (0xC0, 0xC1, 0xC3) if b"\xff" + bytes([sof]) in frame)
    return frame[: start + 5] + struct.pack(">HH", size, size) + frame[start + 9 :]


@pytest.mark.parametrize("syntax", [JPEGBaseline8Bit, JPEGLosslessSV1])
def test_a_jpeg_with_fewer_bytes_than_its_size_needs_is_refused_before_it_is_decoded(syntax, monkeypatch):
    frame = resized(ENCODERS[syntax](np.zeros((16, 16), np.uint8)), 8_192)  # 67 million pixels from 400 bytes
    monkeypatch.setattr("imagecodecs.jpeg8_decode", lambda *_: pytest.fail("the decoder was called"))

    with pytest.raises(UndecodableImage, match="too few bytes"):
        decode_stored(as_dataset(frame, 8_192, syntax))


def test_a_jpeg_that_goes_over_many_pixels_in_many_scans_is_refused():
    frame = as_jpeg(np.zeros((16, 16), np.uint8))
    scan = frame[frame.rindex(b"\xff\xda") : -2]
    many = resized(frame[:-2] + scan * 40 + bytes(200_000) + b"\xff\xd9", 8_192)

    with pytest.raises(PayloadTooLarge, match="scans"):
        decode_stored(as_dataset(many, 8_192, JPEGBaseline8Bit))


@pytest.mark.parametrize("syntax", ENCODERS)
@pytest.mark.parametrize("kept", [0.99, 0.6])
def test_a_frame_that_is_cut_off_is_refused_and_not_filled_up(syntax, kept):
    frame = np.cumsum(rng.integers(-2, 3, (48, 64)), axis=1).astype(np.uint16 if syntax in WIDE else np.uint8)
    encoded = ENCODERS[syntax](frame)
    dataset = compressed(frame[np.newaxis], syntax, BitsAllocated=16 if syntax in WIDE else 8)
    assert decode_stored(dataset).shape == (1, 48, 64)

    dataset.PixelData = encapsulate([encoded[: int(len(encoded) * kept)]])
    with pytest.raises(UndecodableImage):
        decode_stored(dataset)


def test_a_jpeg_ls_frame_without_end_takes_no_time():
    frame = bytes.fromhex(  # found by changing frames at random: 80 bytes over which CharLS 2.4.3 turns for 3 s
        "ffd8fff70011080064006403011100021100031100ffda000c030100020003000201005"
        "7ff7fff7fff7fff7fff7fff7fff7fff7fff7eff7fff7fff7fff7c000001c7ff7fff7fff7fff7fff7fff7ffe00"
    )
    dataset = made_dataset(np.zeros((1, 100, 100, 3), np.uint8), JPEGLSLossless, PixelData=encapsulate([frame]))
    started = time.process_time()

    with pytest.raises(UndecodableImage, match="cut off"):
        decode_stored(dataset)

    assert time.process_time() - started < 2  # 3 without the check


@pytest.mark.long
def test_mutated_frames_of_every_syntax_neither_end_the_process_nor_take_long():
    environment = {**os.environ, "PYTHONPATH": f"{ROOT / 'container_src'}:{ROOT}"}
    command = [sys.executable, "-W", "error::RuntimeWarning", "-m", "tests.support.fuzz_frames", "1", "1500"]
    run = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=300)

    last = run.stdout.splitlines()[-1]
    assert run.returncode == 0, f"case {last} of seed 1: {run.stderr[-2_000:]}"
    result = json.loads(last)
    assert min(result["read"], result["refused"]) > 300
    assert result["longest_s"] < 5
    assert result["longest_message"] < 250
    assert result["peak_mb"] < 1_000
