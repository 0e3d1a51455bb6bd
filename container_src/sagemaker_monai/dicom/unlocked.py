"""JPEG-LS and JPEG 2000 decoded by the C libraries of the wheels, called so that other threads run meanwhile.

pyjpegls and pylibjpeg-openjpeg hold the interpreter while they decode, so that threads would not help. Their extension
modules also export the C interface of what they are built on, CharLS and OpenJPEG, and ctypes lets go of the
interpreter during a call. These are the same libraries and give the same values. Where a build of a wheel hides the
symbols, `IS_J2K_UNLOCKED` and its like say so, and the wheel's own function is what is left.

Grey frames only: colour is rare in long series, and how its samples are interleaved is the wheels' business.

Sources: CharLS 2, charls.h; OpenJPEG 2.5, openjpeg.h, whose structures are unchanged since 2.1.
"""

import ctypes
import importlib
from typing import Any

import numpy as np

J2K_START = b"\xff\x4f\xff\x51"  # a bare codestream: SOC and SIZ
PARAMETERS_BYTES = 1 << 16  # opj_dparameters_t has 8 kB of file names; OpenJPEG alone looks into it
AT_END = ctypes.c_size_t(-1).value  # what a stream answers when nothing is left


class _Component(ctypes.Structure):
    """opj_image_comp_t."""

    _fields_ = [
        *((name, ctypes.c_uint32) for name in ("dx", "dy", "w", "h", "x0", "y0", "prec", "bpp", "sgnd")),
        ("resno_decoded", ctypes.c_uint32),
        ("factor", ctypes.c_uint32),
        ("data", ctypes.POINTER(ctypes.c_int32)),
        ("alpha", ctypes.c_uint16),
    ]


class _Image(ctypes.Structure):
    """The beginning of opj_image_t."""

    _fields_ = [
        *((name, ctypes.c_uint32) for name in ("x0", "y0", "x1", "y1", "numcomps")),
        ("color_space", ctypes.c_int),
        ("comps", ctypes.POINTER(_Component)),
    ]


_READ = ctypes.CFUNCTYPE(ctypes.c_size_t, ctypes.c_void_p, ctypes.c_size_t, ctypes.c_void_p)
_SKIP = ctypes.CFUNCTYPE(ctypes.c_int64, ctypes.c_int64, ctypes.c_void_p)
_SEEK = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_int64, ctypes.c_void_p)

# Function -> type of its result and of its arguments; pointers to what only the library knows are void.
_POINTER, _SIZE = ctypes.c_void_p, ctypes.c_size_t
_CHARLS = {"JpegLsDecode": (ctypes.c_int, [_POINTER, _SIZE, ctypes.c_char_p, _SIZE, _POINTER, _POINTER])}
_OPENJPEG = {
    "opj_stream_create": (_POINTER, [_SIZE, ctypes.c_int]),
    "opj_stream_set_user_data_length": (None, [_POINTER, ctypes.c_uint64]),
    "opj_stream_set_read_function": (None, [_POINTER, _READ]),
    "opj_stream_set_skip_function": (None, [_POINTER, _SKIP]),
    "opj_stream_set_seek_function": (None, [_POINTER, _SEEK]),
    "opj_stream_destroy": (None, [_POINTER]),
    "opj_create_decompress": (_POINTER, [ctypes.c_int]),
    "opj_set_default_decoder_parameters": (None, [_POINTER]),
    "opj_setup_decoder": (ctypes.c_int, [_POINTER, _POINTER]),
    "opj_read_header": (ctypes.c_int, [_POINTER, _POINTER, ctypes.POINTER(ctypes.POINTER(_Image))]),
    "opj_decode": (ctypes.c_int, [_POINTER, _POINTER, ctypes.POINTER(_Image)]),
    "opj_destroy_codec": (None, [_POINTER]),
    "opj_image_destroy": (None, [ctypes.POINTER(_Image)]),
}


def _library(module: str, functions: dict[str, Any]) -> Any:
    """The shared object of an extension module, or None where it lacks one of the functions."""
    try:
        library = ctypes.CDLL(importlib.import_module(module).__file__)
        for name, (result, arguments) in functions.items():
            function = getattr(library, name)
            function.restype, function.argtypes = result, arguments
    except (ImportError, OSError, AttributeError, TypeError):
        return None
    return library


_charls, _openjpeg = _library("_CharLS", _CHARLS), _library("_openjpeg", _OPENJPEG)
IS_JPEG_LS_UNLOCKED = _charls is not None
IS_J2K_UNLOCKED = _openjpeg is not None


def decode_jpeg_ls(data: bytes, rows: int, columns: int, precision: int) -> np.ndarray:
    """Decode a grey JPEG-LS frame.

    Args:
        data: the codestream, whose own header was found to have the size that follows.
        rows, columns: of the frame.
        precision: bits of a sample, 2 to 16.

    Returns:
        uint8 or uint16 (rows, columns).

    Raises:
        ValueError: CharLS refuses it, or there is no CharLS to call.
    """
    if _charls is None:
        raise ValueError("CharLS cannot be called")
    values = np.empty((rows, columns), np.uint8 if precision <= 8 else np.uint16)
    code = _charls.JpegLsDecode(values.ctypes.data, values.nbytes, data, len(data), None, None)
    if code:
        raise ValueError(f"CharLS refuses the frame with code {code}")
    return values


def decode_j2k(data: bytes, rows: int, columns: int, precision: int) -> np.ndarray:
    """Decode a grey JPEG 2000 frame (also HTJ2K).

    Args:
        data: a bare codestream, without the boxes of JP2; its own header was found to have the size that follows.
        rows, columns: of the frame.
        precision: bits of a sample, 1 to 32.

    Returns:
        uint8, uint16 or uint32 (rows, columns); signed samples as their two's complement.

    Raises:
        ValueError: OpenJPEG refuses it, or there is no OpenJPEG to call.
    """
    if _openjpeg is None or not data.startswith(J2K_START):
        raise ValueError("OpenJPEG cannot be called for this")
    reader = _Reader(data)
    codec = _openjpeg.opj_create_decompress(0)  # OPJ_CODEC_J2K
    stream = _openjpeg.opj_stream_create(max(len(data), 1), 1)
    image = ctypes.POINTER(_Image)()
    try:
        _openjpeg.opj_stream_set_user_data_length(stream, len(data))
        _openjpeg.opj_stream_set_read_function(stream, reader.read)
        _openjpeg.opj_stream_set_skip_function(stream, reader.skip)
        _openjpeg.opj_stream_set_seek_function(stream, reader.seek)
        parameters = ctypes.create_string_buffer(PARAMETERS_BYTES)
        _openjpeg.opj_set_default_decoder_parameters(parameters)
        if not (
            _openjpeg.opj_setup_decoder(codec, parameters)
            and _openjpeg.opj_read_header(stream, codec, ctypes.byref(image))
            and _is_grey_of(image.contents, rows, columns)  # before it allocates anything of that size
            and _openjpeg.opj_decode(codec, stream, image)
        ):
            raise ValueError("OpenJPEG refuses the frame")
        component = image.contents.comps[0]
        if (component.w, component.h) != (columns, rows) or not component.data:
            raise ValueError("OpenJPEG made another size")
        width = 1 if precision <= 8 else 2 if precision <= 16 else 4
        return np.ctypeslib.as_array(component.data, (rows, columns)).astype(f"u{width}")
    finally:
        _openjpeg.opj_stream_destroy(stream)
        _openjpeg.opj_destroy_codec(codec)
        if image:
            _openjpeg.opj_image_destroy(image)


def _is_grey_of(image: _Image, rows: int, columns: int) -> bool:
    if image.numcomps != 1 or (image.x1 - image.x0, image.y1 - image.y0) != (columns, rows):
        return False
    return bool(image.comps[0].dx == image.comps[0].dy == 1)


class _Reader:
    """Bytes as an OpenJPEG stream. As the stream's buffer has their size, Python is called once or twice a frame."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._position = 0
        self.read, self.skip, self.seek = _READ(self._read), _SKIP(self._skip), _SEEK(self._seek)

    def _read(self, target: int, size: int, _user: object) -> int:
        part = self._data[self._position : self._position + size]
        ctypes.memmove(target, part, len(part))
        self._position += len(part)
        return len(part) or AT_END

    def _skip(self, count: int, _user: object) -> int:
        moved = min(max(count, -self._position), len(self._data) - self._position)
        self._position += moved
        return moved

    def _seek(self, position: int, _user: object) -> int:
        is_inside = 0 <= position <= len(self._data)
        if is_inside:
            self._position = position
        return int(is_inside)
