import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import jpeg_ls
import numpy as np
import openjpeg.utils
import pydicom
import pytest
from pydicom.encaps import generate_frames

from sagemaker_monai.dicom import unlocked

ROOT = Path(__file__).resolve().parents[1]
ODD = ROOT / os.environ.get("SHARED_DATA", "../shared/data") / "odd_dicom"
WIDTHS = {8: np.uint8, 12: np.uint16, 16: np.uint16}


def picture(bits, seed=0):
    rng = np.random.default_rng(seed)
    return rng.integers(0, 1 << bits, (40, 36)).astype(WIDTHS[bits])


def as_jpeg_ls(values, bits):
    return bytes(jpeg_ls.encode(values))


def as_j2k(values, bits):
    return openjpeg.utils.encode_array(values, bits_stored=bits, photometric_interpretation=2)


CODECS = {"JPEG-LS": (as_jpeg_ls, unlocked.decode_jpeg_ls), "JPEG 2000": (as_j2k, unlocked.decode_j2k)}


def test_the_pinned_wheels_export_the_interfaces():
    assert unlocked.IS_JPEG_LS_UNLOCKED
    assert unlocked.IS_J2K_UNLOCKED


@pytest.mark.parametrize("name", CODECS)
@pytest.mark.parametrize("bits", WIDTHS)
def test_what_was_encoded_comes_back(name, bits):
    encode, decode = CODECS[name]
    values = picture(bits)

    decoded = decode(encode(values, bits), 40, 36, bits)

    assert decoded.dtype == values.dtype
    assert np.array_equal(decoded, values)


@pytest.mark.parametrize("name", CODECS)
def test_threads_do_not_mix_their_frames(name):
    encode, decode = CODECS[name]
    pictures = [picture(16, seed) for seed in range(40)]
    frames = [encode(values, 16) for values in pictures]

    with ThreadPoolExecutor(4) as pool:
        decoded = list(pool.map(lambda frame: decode(frame, 40, 36, 16), frames))

    assert np.array_equal(decoded, pictures)


@pytest.mark.parametrize("name", CODECS)
def test_broken_frames_are_refused(name):
    encode, decode = CODECS[name]
    frame = encode(picture(16), 16)

    for broken in (b"", frame[:3], frame[:60], frame[: len(frame) // 2], frame[:80] + os.urandom(200)):
        with pytest.raises(ValueError):
            decode(broken, 40, 36, 16)


@pytest.mark.parametrize("name", CODECS)
def test_a_frame_larger_than_it_should_be_is_not_decoded(name):
    encode, decode = CODECS[name]

    with pytest.raises(ValueError):
        decode(encode(picture(16), 16), 20, 15, 16)


@pytest.mark.skipif(not ODD.is_dir(), reason="no shared data")
@pytest.mark.parametrize(
    ("folder", "read_wheel", "decode"),
    [
        ("jpeg_ls", lambda frame: jpeg_ls.decode_pixel_data(frame)[0], unlocked.decode_jpeg_ls),
        ("jpeg2000", lambda frame: openjpeg.decode_pixel_data(frame, version=2), unlocked.decode_j2k),
        ("jpeg2000_lossless", lambda frame: openjpeg.decode_pixel_data(frame, version=2), unlocked.decode_j2k),
    ],
)
def test_real_grey_frames_are_what_the_wheels_decode(folder, read_wheel, decode):
    compared = 0
    for path in sorted((ODD / folder).glob("*.dcm")):
        dataset = pydicom.dcmread(path, force=True)
        if dataset.SamplesPerPixel != 1:
            continue
        for frame in generate_frames(dataset.PixelData, number_of_frames=int(dataset.get("NumberOfFrames", 1))):
            if folder != "jpeg_ls" and not frame.startswith(unlocked.J2K_START):
                continue
            precision = jpeg_ls.decode_pixel_data(frame)[1]["bits_per_sample"] if folder == "jpeg_ls" else None
            if precision is None:
                precision = openjpeg.get_parameters(frame)["precision"]
            values = decode(frame, dataset.Rows, dataset.Columns, precision)
            assert values.tobytes() == bytes(read_wheel(frame)), path.name
            compared += 1

    assert compared > 2
