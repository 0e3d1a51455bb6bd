"""Places in pictures and volumes that can hold a text and that readers ignore: each takes the text and returns a file.

For tests and `make bench-attacks`. The files are synthetic and small.
"""

import bz2
import gzip
import io
import struct
import zipfile
import zlib
from collections.abc import Callable

import nibabel
import numpy as np
from PIL import Image

from tests.attacks.jpeg_places import JPEG_PLACES, segment

Place = Callable[[bytes], bytes]

_RANDOM = np.random.default_rng(0)
RGB = _RANDOM.integers(0, 255, (19, 27, 3), dtype=np.uint8)
GREY = RGB[..., 0].copy()
VOXELS = _RANDOM.integers(-900, 900, (5, 4, 3)).astype(np.int16)
AFFINE = np.array([[-0.8, 0.1, 0, 31], [0.1, 0.8, 0, -12], [0, 0, 2.5, 7], [0, 0, 0, 1]])


def encoded(image: np.ndarray | Image.Image, kind: str, **options: object) -> bytes:
    """A picture as Pillow writes it."""
    file = io.BytesIO()
    (image if isinstance(image, Image.Image) else Image.fromarray(image)).save(file, kind, **options)
    return file.getvalue()


# --- PNG ---


def chunk(name: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))


def png(rows: bytes, *, colour: int = 0, depth: int = 8, before: bytes = b"", after: bytes = b"", tail: bytes = b"",
        size: tuple[int, int] = (27, 19)) -> bytes:  # fmt: skip
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", *size, depth, colour, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + before + rows + after + chunk(b"IEND", b"") + tail


_GREY_ROWS = b"".join(b"\0" + row.tobytes() for row in GREY)
_RGB_ROWS = b"".join(b"\0" + row.tobytes() for row in RGB)


def _idat(rows: bytes, tail: bytes = b"") -> bytes:
    return chunk(b"IDAT", zlib.compress(rows) + tail)


def _in_filling_bits(secret: bytes) -> bytes:
    """One bit of the text in each row of a picture of seven pixels with one bit."""
    bits = np.unpackbits(np.frombuffer(secret, np.uint8))
    return png(_idat(b"".join(b"\0" + bytes([0xA0 | bit]) for bit in bits)), depth=1, size=(7, len(bits)))


_PALETTE_ROWS = b"".join(b"\0" + bytes(row % 3) for row in GREY)
_COLOURS = bytes(range(9))
PNG: dict[str, Place] = {
    **{
        f"{name.decode()} {where}": (lambda secret, name=name, where=where: png(_idat(_GREY_ROWS),
                                     **{where: chunk(name, secret)}))
        for name in (b"tEXt", b"zTXt", b"iTXt", b"eXIf", b"tIME", b"iCCP", b"prVt", b"PRVT", b"sPLT", b"hIST", b"fdAT",
                     b"acTL", b"gAMA", b"cHRM", b"sRGB", b"pHYs", b"tRNS", b"PLTE", b"bKGD", b"sBIT")
        for where in ("before", "after")
    },
    "behind the end": lambda secret: png(_idat(_GREY_ROWS), tail=secret),
    "zeros and a text behind the end": lambda secret: png(_idat(_GREY_ROWS), tail=bytes(12) + secret),
    "behind zlib's end": lambda secret: png(_idat(_GREY_ROWS, secret)),
    "IDAT behind zlib's end": lambda secret: png(_idat(_GREY_ROWS) + chunk(b"IDAT", secret)),
    "second IDAT after another chunk": lambda secret: png(
        _idat(_GREY_ROWS), after=chunk(b"tIME", bytes(7)) + chunk(b"IDAT", secret)
    ),
    "rows beyond the last": lambda secret: png(_idat(_GREY_ROWS + b"\0" + secret)),
    "bits that fill up rows": _in_filling_bits,
    "palette entries of no pixel": lambda secret: png(
        _idat(_PALETTE_ROWS), colour=3, before=chunk(b"PLTE", _COLOURS + secret + bytes(-len(secret) % 3))
    ),
    "alpha of no pixel": lambda secret: png(
        _idat(_PALETTE_ROWS), colour=3,
        before=chunk(b"PLTE", _COLOURS + bytes(300)) + chunk(b"tRNS", b"\xff\xff\xff" + secret),
    ),
    "suggested palette": lambda secret: png(
        _idat(_RGB_ROWS), colour=2, before=chunk(b"PLTE", secret + bytes(-len(secret) % 3))
    ),
    "transparent colour of no pixel": lambda secret: png(
        _idat(b"".join(b"\0" + (row.astype(">u2") * 251).tobytes() for row in RGB)), colour=2, depth=16,
        before=chunk(b"tRNS", secret[:6]),
    ),
    "half a chunk behind the end": lambda secret: png(_idat(_GREY_ROWS), tail=b"\0\0\0\x08tEXt" + secret),
}  # fmt: skip

# --- TIFF ---


def _tiff(secret: bytes, *, order: str = "<", extra: tuple[tuple[int, int], ...] = (), gap: bytes = b"",
          strip: bytes = b"", tail: bytes = b"", filling: bytes = b"\0\0", following: int = 0) -> bytes:  # fmt: skip
    """A grey TIFF with its strip first; further tags are (tag, type) with the text as their value."""
    data = GREY.tobytes() + strip + gap
    start = 8 + len(data) + len(data) % 2
    plain = [(256, 3, 27), (257, 3, 19), (258, 3, 8), (259, 3, 1), (262, 3, 1), (273, 4, 8), (277, 3, 1), (278, 3, 19),
             (279, 4, GREY.size + len(strip))]  # fmt: skip
    value_at = start + 2 + 12 * (len(plain) + len(extra)) + 4
    entries = [
        (tag, struct.pack(order + "HHI", tag, kind, 1)
         + (struct.pack(order + "H", value) + filling if kind == 3 else struct.pack(order + "I", value)))
        for tag, kind, value in plain
    ]  # fmt: skip
    width = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 7: 1, 12: 8, 13: 4}
    for tag, kind in extra:
        text = secret + bytes(-len(secret) % width[kind])
        entries.append((tag, struct.pack(order + "HHII", tag, kind, len(text) // width[kind], value_at)))
    head = (b"II*\0" if order == "<" else b"MM\0*") + struct.pack(order + "I", start)
    body = head + data + bytes(len(data) % 2) + struct.pack(order + "H", len(entries))
    body += b"".join(entry for _, entry in sorted(entries)) + struct.pack(order + "I", following)
    return body + (secret + bytes(8) if extra else b"") + tail


_TAGS = (254, 263, 269, 270, 271, 272, 280, 281, 285, 305, 306, 315, 316, 330, 333, 337, 347, 512, 532, 700, 32932,
         33432, 33723, 34377, 34665, 34675, 34853, 37724, 40091, 40092, 42016, 50706, 50839, 65000)  # fmt: skip
TIFF: dict[str, Place] = {
    **{
        f"tag {tag} as {kind}{order}": (
            lambda secret, tag=tag, kind=kind, order=order: _tiff(secret, extra=((tag, kind),), order=order)
        )
        for tag in _TAGS for kind in (2, 7, 1) for order in "<>"
    },
    "behind the strip": lambda secret: _tiff(secret, gap=secret),
    "behind the strip, by its count": lambda secret: _tiff(secret, strip=secret),
    "behind the end": lambda secret: _tiff(secret, tail=secret),
    "second page": lambda secret: _tiff(secret, following=8, tail=secret),
    "bytes beside a short": lambda secret: _tiff(secret, filling=secret[:2]),
    **{
        f"behind {compression}": (lambda secret, compression=compression: _in_strip(secret, compression))
        for compression in ("tiff_lzw", "packbits", "tiff_adobe_deflate", "jpeg")
    },
}  # fmt: skip


def _in_strip(secret: bytes, compression: str) -> bytes:
    """Behind the compressed strip, counted with it."""
    content = encoded(GREY, "TIFF", compression=compression)
    with Image.open(io.BytesIO(content)) as image:
        places = image.tag_v2
        start, size = places[273][0], places[279][0]
    data = content[start : start + size] + secret
    moved = content + data
    for old, new in ((start, len(content)), (size, len(data))):
        at = moved.find(struct.pack("<HHI", 273 if old == start else 279, 4, 1))
        kind = "<I"
        if at < 0:
            at, kind = moved.find(struct.pack("<HHI", 273 if old == start else 279, 3, 1)), "<H"
        moved = moved[: at + 8] + struct.pack(kind, new).ljust(4, b"\0") + moved[at + 12 :]
    return moved


def _tiled(secret: bytes, *, is_deflated: bool) -> bytes:
    """Tiles of 16 x 16, with the text to the right of the picture and below it."""
    tiles = []
    for y in range(0, 32, 16):
        for x in range(0, 32, 16):
            tile = np.zeros((16, 16), np.uint8)
            part = GREY[y : y + 16, x : x + 16]
            tile[: part.shape[0], : part.shape[1]] = part
            if x:
                tile[:, 27 - 16 :] = np.frombuffer(secret.ljust(16)[:5], np.uint8)
            if y:
                tile[-1, :10] = np.frombuffer(secret[:10], np.uint8)
            tiles.append(zlib.compress(tile.tobytes()) if is_deflated else tile.tobytes())
    places = [8 + sum(map(len, tiles[:index])) for index in range(4)]
    end = 8 + sum(map(len, tiles))
    tags = [(256, 27), (257, 19), (258, 8), (259, 8 if is_deflated else 1), (262, 1), (277, 1), (322, 16), (323, 16)]
    directory = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in tags)
    values_at = end + 2 + 12 * 10 + 4
    directory += struct.pack("<HHII", 324, 4, 4, values_at) + struct.pack("<HHII", 325, 4, 4, values_at + 16)
    values = struct.pack("<4I", *places) + struct.pack("<4I", *map(len, tiles))
    return b"II*\0" + struct.pack("<I", end) + b"".join(tiles) + struct.pack("<H", 10) + directory + bytes(4) + values


def _rows_per_strip(secret: bytes) -> bytes:
    content = _tiff(secret)
    at = content.index(struct.pack("<HHI", 278, 3, 1))
    return content[:at] + struct.pack("<HHI", 278, 4, 1) + secret[:4] + content[at + 12 :]


TIFF |= {
    "rows of a strip beyond the height": _rows_per_strip,
    "beside the picture in tiles": lambda secret: _tiled(secret, is_deflated=False),
    "beside the picture in deflated tiles": lambda secret: _tiled(secret, is_deflated=True),
}

# --- WebP, BMP, JPEG ---


def riff(name: bytes, data: bytes) -> bytes:
    return name + struct.pack("<I", len(data)) + data + bytes(len(data) % 2)


def _webp(secret: bytes, *, name: bytes = b"", tail: bytes = b"", within: bool = False, **options: object) -> bytes:
    content = encoded(RGB, "WEBP", **options)
    body = content[12:]
    if within:
        size = int.from_bytes(body[4:8], "little")
        body = riff(body[:4], body[8 : 8 + size] + secret)
    body += riff(name, secret) if name else b""
    return b"RIFF" + struct.pack("<I", 4 + len(body)) + b"WEBP" + body + tail


WEBP: dict[str, Place] = {
    **{
        f"chunk {name.decode()}": (lambda secret, name=name: _webp(secret, name=name))
        for name in (b"EXIF", b"XMP ", b"ICCP", b"zzzz", b"ALPH")
    },
    "behind the end": lambda secret: _webp(secret, tail=secret),
    "behind the lossy picture": lambda secret: _webp(secret, within=True),
    "behind the lossless picture": lambda secret: _webp(secret, within=True, lossless=True),
}
_BMP = encoded(RGB, "BMP")
_INDEXED = encoded(Image.fromarray(RGB).quantize(5), "BMP")


def _bmp_with_gap(secret: bytes) -> bytes:
    start = 54 + len(secret)
    return _BMP[:10] + struct.pack("<I", start) + _BMP[14:54] + secret + _BMP[54:]


BMP: dict[str, Place] = {
    "reserved": lambda secret: _BMP[:6] + secret[:4] + _BMP[10:],
    "size of a pixel": lambda secret: _BMP[:38] + secret[:8].ljust(8) + _BMP[46:],
    "before the rows": _bmp_with_gap,
    "behind the end": lambda secret: _BMP + secret,
    "bytes that fill up rows": lambda secret: _BMP[: 54 + 81] + secret[:3] + _BMP[54 + 84 :],
}
_JPEG = encoded(RGB, "JPEG")


JPEG: dict[str, Place] = {
    **{
        f"segment 0x{marker:02X}": (lambda secret, marker=marker: _JPEG[:2] + segment(marker, secret) + _JPEG[2:])
        for marker in (*range(0xE0, 0xF0), 0xFE)
    },
    "bytes before a segment": lambda secret: _JPEG[:20] + b"\0" + secret + _JPEG[20:],
    "behind the end": lambda secret: _JPEG + secret,
    "a second picture": lambda secret: _JPEG + encoded(GREY, "JPEG", comment=secret),
    "colour profile": lambda secret: encoded(RGB, "JPEG", icc_profile=secret),
    "orientation and owner": lambda secret: encoded(RGB, "JPEG", exif=_exif(secret)),
    **{
        f"{name}, {kind}": (lambda secret, hide=hide, picture=picture: hide(picture, secret[:80]))
        for name, hide in JPEG_PLACES.items()
        for kind, picture in {
            "colour": _JPEG,
            "grey": encoded(GREY, "JPEG"),
            "with restarts": encoded(RGB, "JPEG", restart_marker_blocks=2),
            "progressive": encoded(RGB, "JPEG", progressive=True),
        }.items()
    },
}


def _exif(secret: bytes) -> Image.Exif:
    exif = Image.Exif()
    exif[274], exif[315] = 6, secret.decode("latin-1")
    return exif


PICTURES = {f"{kind}: {name}": place for kind, places in
            {"PNG": PNG, "TIFF": TIFF, "WebP": WEBP, "BMP": BMP, "JPEG": JPEG}.items()
            for name, place in places.items()}  # fmt: skip

# --- NIfTI and Analyze ---


def nifti(*, version: int = 1, sform: bool = True, order: str = "<") -> bytes:
    """A file with a sound sform, or a sound qform alone."""
    kind = nibabel.Nifti1Image if version == 1 else nibabel.Nifti2Image
    header = kind.header_class(endianness=order)
    header.set_data_dtype(np.int16)
    image = kind(VOXELS, None, header)
    affine = AFFINE.copy()
    affine[:3, :3] = np.diag([-0.8, 0.8, 2.5])
    image.set_sform(AFFINE if sform else None, code=1 if sform else 0)
    image.set_qform(affine, code=0 if sform else 1)
    return image.to_bytes()


def overwritten(content: bytes, at: int, secret: bytes, size: int) -> bytes:
    text = secret[:size]
    return content[:at] + text + content[at + len(text) :]


# Fields that nothing is read by: (offset, bytes), in a file whose sform counts.
_NIFTI1 = ((4, 10), (14, 18), (32, 4), (36, 2), (38, 1), (39, 1), (56, 12), (74, 2), (92, 16), (120, 2), (122, 1),
           (124, 16), (140, 8), (148, 80), (228, 24), (256, 24), (328, 16), (348, 4))  # fmt: skip
_NIFTI2 = ((80, 24), (136, 32), (192, 48), (240, 80), (320, 24), (352, 48), (496, 4), (508, 16), (524, 16))
NIFTI: dict[str, Place] = {
    **{f"1, byte {at}": (lambda secret, at=at, size=size: overwritten(nifti(), at, secret, size))
       for at, size in _NIFTI1},
    **{f"2, byte {at}": (lambda secret, at=at, size=size: overwritten(nifti(version=2), at, secret, size))
       for at, size in _NIFTI2},
    "spacing beside a matrix": lambda secret: overwritten(nifti(), 80, secret, 12),
    "srow without a code": lambda secret: overwritten(nifti(sform=False), 280, secret, 48),
    "sizes of further axes": lambda secret: overwritten(nifti(), 48, secret, 8),
    "behind the voxels": lambda secret: nifti() + secret,
    "extension": lambda secret: _with_extension(secret),
    "before the voxels": lambda secret: _with_gap(secret),
    "name in gzip": lambda secret: _gzipped(nifti(), name=secret),
    "comment in gzip": lambda secret: _gzipped(nifti(), comment=secret),
    "extra field in gzip": lambda secret: _gzipped(nifti(), extra=secret),
    "second member": lambda secret: _gzipped(nifti()) + gzip.compress(secret),
    "behind gzip": lambda secret: _gzipped(nifti()) + secret,
    "behind the voxels, packed": lambda secret: _gzipped(nifti() + secret),
    "scale that counts for nothing": lambda secret: overwritten(overwritten(nifti(), 112, bytes(4), 4), 116, secret, 4),
    "big-endian, descrip": lambda secret: overwritten(nifti(order=">"), 148, secret, 80),
}  # fmt: skip


def _with_extension(secret: bytes) -> bytes:
    image = nibabel.Nifti1Image(VOXELS, AFFINE)
    image.header.extensions.append(nibabel.nifti1.Nifti1Extension("comment", secret))
    return image.to_bytes()


def _with_gap(secret: bytes) -> bytes:
    content = nifti()
    return content[:108] + struct.pack("<f", 352 + len(secret)) + content[112:352] + secret + content[352:]


def _gzipped(content: bytes, *, name: bytes = b"", comment: bytes = b"", extra: bytes = b"") -> bytes:
    flags = 4 * bool(extra) | 8 * bool(name) | 16 * bool(comment)
    body = gzip.compress(content, mtime=0)[10:]
    fields = struct.pack("<H", len(extra)) + extra if extra else b""
    for text in filter(None, (name, comment)):
        fields += text.replace(b"\0", b"") + b"\0"
    return b"\x1f\x8b\x08" + bytes([flags]) + bytes(4) + b"\0\xff" + fields + body


# --- NRRD, MetaImage, NPY, NPZ ---

_NRRD_HEAD = (
    b"NRRD0004\ntype: int16\ndimension: 3\nspace: left-posterior-superior\nsizes: 5 4 3\n"
    b"space directions: (0.8,0,0) (0,0.8,0) (0,0,2.5)\nspace origin: (1,-2,3.5)\nencoding: %s\nendian: little\n%s\n\n"
)
_BYTES = VOXELS.tobytes(order="F")


def _nrrd(line: bytes = b"kinds: domain domain domain", *, packing: bytes = b"raw", tail: bytes = b"",
          values: bytes = _BYTES) -> bytes:  # fmt: skip
    packed = {b"raw": bytes, b"gzip": lambda data: gzip.compress(data, mtime=0), b"bzip2": bz2.compress}[packing](
        values
    )
    return _NRRD_HEAD % (packing, line) + packed + tail


NRRD: dict[str, Place] = {
    **{
        f"{line.decode()}": (lambda secret, line=line: _nrrd(line % secret))
        for line in (b"content: %s", b"# %s", b"# http://%s", b"patient:=%s", b'labels: "%s" "y" "z"', b"units: %s",
                     b'space units: "%s" "mm" "mm"', b"min: %s", b"number: %s", b"old min: %s", b"sample units: %s",
                     b"thicknesses: %s", b"centers: %s", b"kinds: domain domain domain\nmeasurement frame: %s")
    },
    "behind the values": lambda secret: _nrrd(tail=secret),
    "behind the values, packed": lambda secret: _nrrd(packing=b"gzip", values=_BYTES + secret),
    "behind gzip": lambda secret: _nrrd(packing=b"gzip", tail=secret),
    "behind bzip2": lambda secret: _nrrd(packing=b"bzip2", tail=secret),
    "name in gzip": lambda secret: (
        _NRRD_HEAD % (b"gzip", b"kinds: domain domain domain") + _gzipped(_BYTES, name=secret)
    ),
}  # fmt: skip
_META_HEAD = (
    b"ObjectType = Image\nNDims = 3\nDimSize = 5 4 3\nElementType = MET_SHORT\nElementSpacing = 0.8 0.8 2.5\n"
    b"Offset = 1 -2 3.5\n%sElementDataFile = LOCAL\n"
)
METAIMAGE: dict[str, Place] = {
    **{
        f"{line.decode()}": (lambda secret, line=line: _META_HEAD % (line % secret + b"\n") + _BYTES)
        for line in (b"Comment = %s", b"Name = %s", b"ID = %s", b"AnatomicalOrientation = %s", b"Modality = %s",
                     b"PatientName = %s", b"CenterOfRotation = %s", b"Color = %s", b"0008|0020 = %s",
                     b"HeaderSize = %s", b"ElementMin = %s")
    },
    "behind the values": lambda secret: _META_HEAD % b"" + _BYTES + secret,
    "behind the values, packed": lambda secret: (
        _META_HEAD % b"CompressedData = True\n" + zlib.compress(_BYTES + secret)
    ),
    "behind zlib": lambda secret: _META_HEAD % b"CompressedData = True\n" + zlib.compress(_BYTES) + secret,
}  # fmt: skip


def _npy(array: np.ndarray) -> bytes:
    file = io.BytesIO()
    np.save(file, array)
    return file.getvalue()


def npz(secret: bytes, *, where: str) -> bytes:
    """Where: the name of the image, another member, a comment, or an extra field."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        name = secret.decode("latin-1").replace("\0", "") if where == "name of the image" else "image"
        info = zipfile.ZipInfo(f"{name}.npy")
        info.comment = secret if where == "comment of a member" else b""
        info.extra = struct.pack("<HH", 0x6375, len(secret)) + secret if where == "extra field" else b""
        archive.writestr(info, _npy(VOXELS))
        if where == "another member":
            archive.writestr("notes.txt", secret)
        archive.comment = secret if where == "comment" else b""
    return file.getvalue()


NPZ: dict[str, Place] = {
    where: (lambda secret, where=where: npz(secret, where=where))
    for where in ("comment", "comment of a member", "extra field", "another member", "name of the image")
}
VOLUMES = {f"{kind}: {name}": (suffix, place) for kind, suffix, places in
           (("NIfTI", ".nii", NIFTI), ("NRRD", ".nrrd", NRRD), ("MetaImage", ".mha", METAIMAGE), ("NPZ", ".npz", NPZ))
           for name, place in places.items()}  # fmt: skip
