"""Thumbnails of images, made with Pillow if it is installed."""

from __future__ import annotations

import io
from importlib import import_module
from importlib.resources import files
from pathlib import Path
from typing import Any

from aioftrackjobs.devserver.api_errors import EntityNotFoundError, UnsupportedOperationError

#: Pixels on the longer side that a client may request.
LARGEST_SIZE = 4096
#: A grey square, which clients show where there is no thumbnail.
PLACEHOLDER = files(__package__).joinpath("no_thumbnail.png").read_bytes()
#: Pixels of an image that is read, each of which takes up to 16 bytes meanwhile.
_MOST_PIXELS = 64_000_000
_JPEG_QUALITY = 85
#: What is read: formats that Pillow decodes by itself. For others it runs programs, as for EPS.
_FORMATS = ("BMP", "GIF", "JPEG", "PNG", "TIFF", "WEBP")


def picture_of(path: Path, size: int, *, keeps_png: bool = False) -> tuple[bytes, str]:
    """Return a picture of the image in a file that fits into *size* pixels, and its type.

    It is never larger than the image, and a JPEG; if *keeps_png*, a PNG or an image with
    transparency becomes a PNG.
    """
    try:  # here, because most servers make no picture
        image, operations = import_module("PIL.Image"), import_module("PIL.ImageOps")
    except ImportError:
        message = "Pictures need Pillow: install aioftrackjobs[server]."
        raise UnsupportedOperationError(message) from None
    try:
        with image.open(path, formats=_FORMATS) as opened:
            return _made(opened, operations, size, keeps_png=keeps_png)
    except FileNotFoundError:
        raise EntityNotFoundError("There is no file for this component.") from None
    except Exception as error:  # noqa: BLE001 - decoders raise any error on broken files
        raise EntityNotFoundError(f"No picture can be made of this file: {error}") from None


def _made(image: Any, operations: Any, size: int, *, keeps_png: bool) -> tuple[bytes, str]:
    if image.width * image.height > _MOST_PIXELS:
        raise ValueError(f"it has more than {_MOST_PIXELS} pixels")
    image.draft("RGB", (size, size))
    upright = operations.exif_transpose(image)
    upright.thumbnail((size, size))
    is_png = keeps_png and (upright.has_transparency_data or image.format == "PNG")
    written = io.BytesIO()
    if is_png:
        mode = "RGBA" if upright.has_transparency_data else "RGB"
        upright.convert(mode).save(written, "PNG")
    else:
        upright.convert("RGB").save(written, "JPEG", quality=_JPEG_QUALITY)
    return written.getvalue(), "image/png" if is_png else "image/jpeg"
