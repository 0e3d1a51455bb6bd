"""Small bodies that ask for much memory, time or depth, as functions of their size.

`BOMBS`: name -> function of a size (side, or count) -> content type and body. Each has valid headers of its format;
with small sizes most of them are images that can be answered.
"""

import base64
import bz2
import gzip
import io
import json
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Callable

import imagecodecs
import numpy as np
from PIL import Image
from pydicom import Dataset, dcmwrite
from pydicom.dataset import FileMetaDataset
from pydicom.encaps import encapsulate
from pydicom.filewriter import write_file_meta_info
from pydicom.uid import (
    UID,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGLSLossless,
    RLELossless,
)

Bomb = tuple[str, bytes]
PIECE = bytes(1 << 20)


def zeros(count: int, packer, finish) -> bytes:
    """Zeros packed piece by piece, so that making a bomb needs little memory."""
    parts = [packer(PIECE[: min(len(PIECE), count - done)]) for done in range(0, count, len(PIECE))]
    return b"".join([*parts, finish()])


def gzipped_zeros(head: bytes, count: int) -> bytes:
    packer = zlib.compressobj(9, zlib.DEFLATED, 31)
    return packer.compress(head) + zeros(count, packer.compress, packer.flush)


def dicom(rows: int, columns: int, frames: int, pixels: bytes, syntax: UID = ExplicitVRLittleEndian, number=1) -> bytes:
    """Grey of 8 bits."""
    dataset = Dataset()
    dataset.SOPClassUID, dataset.SOPInstanceUID = "1.2.840.10008.5.1.4.1.1.7.2", f"1.2.3.{number}"
    dataset.StudyInstanceUID, dataset.SeriesInstanceUID, dataset.Modality = "1.2.1", "1.2.2", "OT"
    dataset.Rows, dataset.Columns, dataset.NumberOfFrames = rows, columns, frames
    dataset.SamplesPerPixel, dataset.PhotometricInterpretation, dataset.PixelRepresentation = 1, "MONOCHROME2", 0
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit, dataset.InstanceNumber = 8, 8, 7, number
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = syntax
    dataset.file_meta.MediaStorageSOPClassUID = dataset.SOPClassUID
    dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
    dataset.add_new(0x7FE00010, "OB", pixels)
    dataset["PixelData"].is_undefined_length = syntax.is_encapsulated
    stream = io.BytesIO()
    dcmwrite(stream, dataset, enforce_file_format=True)
    return stream.getvalue()


def with_elements(file: bytes, elements: bytes) -> bytes:
    """Elements before the pixel module."""
    place = file.index(struct.pack("<HH2s", 0x0020, 0x000D, b"UI"))
    return file[:place] + elements + file[place:]


def frames(encode: Callable[[np.ndarray], bytes], syntax: UID) -> Callable[[int], Bomb]:
    """A file of 16 frames whose side is the size, each a copy of one blank frame."""

    def bomb(side: int) -> Bomb:
        frame = encode(np.zeros((side, side), np.uint8))
        return "application/dicom", dicom(side, side, 16, encapsulate([frame] * 16), syntax)

    return bomb


def as_rle(values: np.ndarray) -> bytes:
    return (
        struct.pack("<16L", 1, 64, *[0] * 14)
        + b"\x81\0" * (values.size // 128)
        + bytes([(values.size % 128 or 1) - 1])
        + bytes(values.size % 128 or 1)
    )


def deflated_dicom(side: int) -> Bomb:
    file = dicom(side, side, 8, b"")
    start = file.index(struct.pack("<HH2s", 0x0008, 0x0016, b"UI"))
    meta = FileMetaDataset()
    meta.TransferSyntaxUID, meta.ImplementationClassUID = DeflatedExplicitVRLittleEndian, "1.2.3"
    meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID = "1.2.840.10008.5.1.4.1.1.7.2", "1.2.3.1"
    stream = io.BytesIO()
    stream.write(bytes(128) + b"DICM")
    write_file_meta_info(stream, meta, enforce_standard=True)
    packer = zlib.compressobj(9, zlib.DEFLATED, -15)
    count = 8 * side * side
    head = file[start : file.index(struct.pack("<HH", 0x7FE0, 0x0010))]
    head += struct.pack("<HH2sHL", 0x7FE0, 0x0010, b"OB", 0, count)
    return "application/dicom", stream.getvalue() + packer.compress(head) + zeros(count, packer.compress, packer.flush)


def items(count: int) -> Bomb:
    sequence = (
        struct.pack("<HH2sHL", 0x0010, 0x1002, b"SQ", 0, 8 * count) + struct.pack("<HHL", 0xFFFE, 0xE000, 0) * count
    )
    file = with_elements(dicom(16, 16, 1, bytes(256)), sequence)
    return "application/zip", zipped({str(index): file for index in range(20)})


def elements(count: int) -> Bomb:
    each = (struct.pack("<HH2sH", 0x0011 + 2 * (k // 60_000), 0x1000 + k % 60_000, b"LO", 0) for k in range(count))
    return "application/dicom", with_elements(dicom(16, 16, 1, bytes(256)), b"".join(each))


def sequences(depth: int) -> Bomb:
    opening = struct.pack("<HH2sHL", 0x0010, 0x1002, b"SQ", 0, 0xFFFFFFFF) + struct.pack(
        "<HHL", 0xFFFE, 0xE000, 0xFFFFFFFF
    )
    closing = struct.pack("<HHL", 0xFFFE, 0xE00D, 0) + struct.pack("<HHL", 0xFFFE, 0xE0DD, 0)
    return "application/dicom", with_elements(dicom(16, 16, 1, bytes(256)), opening * depth + closing * depth)


def fragments(count: int) -> Bomb:
    return "application/dicom", dicom(16, 16, 1, struct.pack("<HHL", 0xFFFE, 0xE000, 0) * (count + 1), JPEGLSLossless)


def tiny_frames(count: int) -> Bomb:
    return "application/dicom", dicom(1, 1, count, bytes(count + count % 2))


def nifti(side: int) -> Bomb:
    header = bytearray(352)
    struct.pack_into("<i", header, 0, 348)
    struct.pack_into("<8h", header, 40, 3, side, side, side, 1, 1, 1, 1)
    struct.pack_into("<2h", header, 70, 2, 8)
    struct.pack_into("<8f", header, 76, 1, 1, 1, 1, 1, 1, 1, 1)
    struct.pack_into("<f", header, 108, 352)
    header[344:348] = b"n+1\0"
    return "application/x-nifti+gzip", gzipped_zeros(bytes(header), side**3)


def nrrd(encoding: str) -> Callable[[int], Bomb]:
    def bomb(side: int) -> Bomb:
        head = f"NRRD0004\ntype: uint8\ndimension: 3\nsizes: {side} {side} {side}\nencoding: {encoding}\n\n".encode()
        if encoding == "text":
            return "application/x-nrrd", head + b"1 " * side**3
        if encoding == "gzip":
            return "application/x-nrrd", head + gzipped_zeros(b"", side**3)
        packer = bz2.BZ2Compressor(9)
        return "application/x-nrrd", head + zeros(side**3, packer.compress, packer.flush)

    return bomb


def metaimage(side: int) -> Bomb:
    head = f"ObjectType = Image\nNDims = 3\nDimSize = {side} {side} {side}\n"
    head += "ElementType = MET_UCHAR\nCompressedData = True\n"
    packer = zlib.compressobj(9)
    values = zeros(side**3, packer.compress, packer.flush)
    return "application/x-metaimage", (head + "ElementDataFile = LOCAL\n").encode() + values


def npy(side: int) -> Bomb:
    """A header without values."""
    head = (
        f"{{'descr': '|u1', 'fortran_order': False, 'shape': ({side}, {side}, {side}), }}".encode().ljust(117) + b"\n"
    )
    return "application/x-npy", b"\x93NUMPY\x01\0" + struct.pack("<H", len(head)) + head


def picture(kind: str, mode: str = "RGB", **options: object) -> Callable[[int], Bomb]:
    def bomb(side: int) -> Bomb:
        stream = io.BytesIO()
        Image.new(mode, (side, side)).save(stream, kind, **options)
        return f"image/{kind.lower()}", stream.getvalue()

    return bomb


def chunks(count: int) -> Bomb:
    file = picture("PNG")(16)[1]
    return "image/png", file[:33] + struct.pack(">L4sL", 0, b"abCd", zlib.crc32(b"abCd")) * count + file[33:]


def segments(count: int) -> Bomb:
    file = picture("JPEG")(16)[1]
    return "image/jpeg", file[:2] + b"\xff\xe5\0\2" * count + file[2:]


def junk(count: int) -> Bomb:
    file = picture("JPEG")(16)[1]
    return "image/jpeg", file[:2] + bytes(count) + file[2:]


def scans(side: int) -> Bomb:
    file = picture("JPEG", progressive=True)(side)[1]
    last = file.rindex(b"\xff\xda")
    return "image/jpeg", file[:-2] + file[last:-2] * 50 + b"\xff\xd9"


def text_chunk(count: int) -> Bomb:
    file = picture("PNG")(16)[1]
    packer = zlib.compressobj(9)
    body = b"zTXta\0\0" + zeros(count, packer.compress, packer.flush)
    return "image/png", file[:33] + struct.pack(">L", len(body) - 4) + body + struct.pack(
        ">L", zlib.crc32(body)
    ) + file[33:]


def pages(count: int) -> Bomb:
    stream = io.BytesIO()
    Image.new("L", (8, 8)).save(stream, "TIFF", save_all=True, append_images=[Image.new("L", (8, 8))] * count)
    return "image/tiff", stream.getvalue()


def run_lengths(count: int) -> Bomb:
    file = bytearray(picture("BMP", "P")(8)[1])
    struct.pack_into("<LL", file, 18, 7_000, 7_000)
    struct.pack_into("<L", file, 30, 1)
    return "image/bmp", bytes(file[:1_078]) + b"\1\0" * (count // 2)


def many_in_json(side: int) -> Bomb:
    text = base64.b64encode(picture("PNG")(side)[1]).decode()
    return "application/json", json.dumps({"instances": [{"image": text}] * 990}).encode()


def json_depth(depth: int) -> Bomb:
    return "application/json", b"[" * depth


def json_text(count: int) -> Bomb:
    return "application/json", b'{"instances": [{"image": "' + b"AAAA" * (count // 4) + b'"}]}'


def parts(count: int) -> Bomb:
    part = b'--B\r\nContent-Disposition: form-data; name="f"\r\n\r\n\0\0\r\n'
    return "multipart/form-data; boundary=B", part * count + b"--B--\r\n"


def zipped(files: dict[str, bytes]) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return stream.getvalue()


def zip_of_zeros(count: int) -> Bomb:
    """With litter that keeps the ratio of the whole archive low."""
    litter = np.random.default_rng(0).bytes(count // 99)
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as archive:
        with archive.open("a.png", "w") as member:
            for _ in range(count >> 20):
                member.write(PIECE)
        archive.writestr(".DS_Store", litter)
    return "application/zip", stream.getvalue()


def tar_headers(kind: bytes) -> Callable[[int], Bomb]:
    def bomb(count: int) -> Bomb:
        more = tarfile.TarInfo("long")
        more.size, more.type = 12, kind
        content = (b"12 path=a.pn" if kind == b"L" else b"12 path=abc\n").ljust(512, b"\0")
        member = tarfile.TarInfo("a.png")
        data = (more.tobuf(tarfile.GNU_FORMAT) + content) * count + member.tobuf() + bytes(1_024)
        return "application/gzip", gzip.compress(data)

    return bomb


BOMBS: dict[str, Callable[[int], Bomb]] = {
    "frames of JPEG-LS": frames(imagecodecs.jpegls_encode, JPEGLSLossless),
    "frames of JPEG 2000": frames(
        lambda values: imagecodecs.jpeg2k_encode(values, codecformat="j2k", level=0, reversible=True), JPEG2000Lossless
    ),
    "frames of RLE": frames(as_rle, RLELossless),
    "deflated DICOM": deflated_dicom,
    "items": items,
    "elements": elements,
    "sequences": sequences,
    "fragments": fragments,
    "tiny frames": tiny_frames,
    "NIfTI": nifti,
    "NRRD of bzip2": nrrd("bzip2"),
    "NRRD of gzip": nrrd("gzip"),
    "NRRD of text": nrrd("text"),
    "MetaImage": metaimage,
    "npy": npy,
    "PNG": picture("PNG"),
    "PNG with alpha": picture("PNG", "RGBA"),
    "PNG of 16 bits": picture("PNG", "I;16"),
    "JPEG": picture("JPEG"),
    "WebP": picture("WEBP", lossless=True, method=0),
    "TIFF": picture("TIFF", compression="tiff_adobe_deflate"),
    "TIFF of CMYK": picture("TIFF", "CMYK", compression="tiff_lzw"),
    "chunks of PNG": chunks,
    "segments of JPEG": segments,
    "junk in JPEG": junk,
    "scans of JPEG": scans,
    "text of PNG": text_chunk,
    "pages of TIFF": pages,
    "run lengths of BMP": run_lengths,
    "990 pictures in JSON": many_in_json,
    "depth of JSON": json_depth,
    "text of JSON": json_text,
    "parts of a form": parts,
    "zip of zeros": zip_of_zeros,
    "long names of tar": tar_headers(b"L"),
    "pax headers of tar": tar_headers(b"x"),
}
# The sizes that are tried: of images the side, of others a count. What is large there is large by its header.
SIDES = {
    "990 pictures in JSON": 1_000,
    "NRRD of text": 200,
    "NIfTI": 500,
    "MetaImage": 500,
    "npy": 900,
    "scans of JPEG": 6_000,
}
COUNTS = {
    "items": 90_000, "elements": 300_000, "sequences": 50_000, "fragments": 1_000_000, "tiny frames": 60_000,
    "chunks of PNG": 1_000_000, "segments of JPEG": 2_000_000, "junk in JPEG": 8_000_000, "text of PNG": 200 << 20,
    "pages of TIFF": 500, "run lengths of BMP": 8_000_000, "depth of JSON": 20_000_000, "text of JSON": 40_000_000,
    "parts of a form": 20_000, "zip of zeros": 400 << 20, "long names of tar": 3_000, "pax headers of tar": 3_000,
}  # fmt: skip


def size_of(name: str, share: float) -> int:
    """A share of the largest size of a bomb, at least 1."""
    largest = COUNTS.get(name) or SIDES.get(name) or {"NRRD of bzip2": 600, "NRRD of gzip": 600}.get(name, 4_000)
    return max(1, int(largest * share))
