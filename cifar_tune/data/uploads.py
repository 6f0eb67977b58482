"""Images that anyone may send: decoded within limits, or refused in a sentence. Knows no server."""

from __future__ import annotations

import io
import warnings

import numpy as np
from PIL import Image, UnidentifiedImageError

from cifar_tune.data.images import to_pixels
from cifar_tune.errors import RefusedError

MAX_BYTES = 10_000_000
MAX_PIXELS = 25_000_000
"""Of a photograph; a request holds three bytes each while it is decoded."""
FORMATS = ("BMP", "JPEG", "PNG", "WEBP")
"""Formats whose decoders are opened; those of others are never asked."""

BAD_REQUEST, TOO_LARGE, UNSUPPORTED = 400, 413, 415
"""HTTP's names for what is wrong with an upload."""


def check_size(size: int) -> None:
    """RefusedError where an upload has more bytes than are read."""
    if size > MAX_BYTES:
        raise RefusedError(TOO_LARGE, f"the upload has more than {MAX_BYTES:,} bytes")


def check_type(content_type: str) -> None:
    """RefusedError where an upload says that it is no image."""
    kind = content_type.partition(";")[0].strip().lower()
    if kind and kind != "application/octet-stream" and not kind.startswith("image/"):
        raise RefusedError(UNSUPPORTED, f"content type is {kind}; allowed are {', '.join(FORMATS)} images")


def decode_upload(body: bytes, side: int) -> np.ndarray:
    """An image file as uint8 (side, side, 3), made as those the model was trained on.

    The size that its header claims is read before any pixel, so that a small file cannot unpack to gigabytes.

    Raises:
        RefusedError: it is empty, no image of FORMATS, too large, or damaged.
    """
    if not body:
        raise RefusedError(BAD_REQUEST, "the upload is empty; send the bytes of an image file")
    check_size(len(body))
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            image = Image.open(io.BytesIO(body), formats=FORMATS)
    except UnidentifiedImageError as error:
        raise RefusedError(UNSUPPORTED, f"the upload is no image of {', '.join(FORMATS)}") from error
    except (Image.DecompressionBombWarning, Image.DecompressionBombError) as error:
        raise RefusedError(TOO_LARGE, f"the image has more than {MAX_PIXELS:,} pixels") from error
    except Exception as error:  # Pillow has no common base for what damaged files raise
        raise RefusedError(BAD_REQUEST, "the image is damaged") from error
    if image.width * image.height > MAX_PIXELS:
        raise RefusedError(
            TOO_LARGE, f"the image has {image.width} x {image.height} pixels; {MAX_PIXELS:,} are allowed"
        )
    try:
        return to_pixels(image, side)
    except Exception as error:  # decoding is lazy: what was opened may be damaged further on
        raise RefusedError(BAD_REQUEST, "the image is damaged") from error
