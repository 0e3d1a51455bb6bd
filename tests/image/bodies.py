"""Bodies of requests, made with Pillow and the standard library."""

import base64
import io
import json
import zipfile

import numpy as np
from PIL import Image


def picture(level, size=(32, 24)):
    """A photograph of one of the classes."""
    values = np.clip(np.random.default_rng(level).normal(level, 20, (size[1], size[0], 3)), 0, 255)
    return Image.fromarray(values.astype(np.uint8))


def encode(image, kind, **options):
    stream = io.BytesIO()
    image.copy().save(stream, kind, **options)  # Pillow leaves settings on what it saves
    return stream.getvalue()


def as_npy(*images):
    stream = io.BytesIO()
    np.save(stream, np.stack([np.asarray(image).transpose(2, 1, 0) for image in images]))  # (N, C, W, H)
    return stream.getvalue()


def as_json(*bodies):
    return json.dumps({"instances": [{"image": base64.b64encode(body).decode()} for body in bodies]}).encode()


def as_zip(*bodies, name="PATIENT"):
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        for index, body in enumerate(bodies):
            archive.writestr(f"{name}-{index}.png", body)
    return stream.getvalue()


def as_multipart(*bodies):
    parts = [
        f'--edge\r\nContent-Disposition: form-data; name="x"; filename="PATIENT-{index}.png"\r\n\r\n'.encode()
        + body
        + b"\r\n"
        for index, body in enumerate(bodies)
    ]
    return b"".join([*parts, b"--edge--\r\n"])


LIGHT, DARK = picture(190), picture(60)
PNG = encode(LIGHT, "PNG")
# Content type -> one or more bodies of lossless pictures, and how many pictures are in each.
SOUND = {
    "image/png": (PNG, 1),
    "image/bmp": (encode(LIGHT, "BMP"), 1),
    "image/tiff": (encode(LIGHT, "TIFF"), 1),
    "image/webp": (encode(LIGHT, "WEBP", lossless=True), 1),
    "application/x-npy": (as_npy(LIGHT, DARK), 2),
    "application/json": (as_json(PNG, encode(DARK, "PNG")), 2),
    "multipart/form-data; boundary=edge": (as_multipart(PNG, encode(DARK, "PNG")), 2),
    "application/zip": (as_zip(PNG, encode(DARK, "PNG")), 2),
}
ANIMATION = encode(LIGHT, "TIFF", save_all=True, append_images=[picture(120)])
