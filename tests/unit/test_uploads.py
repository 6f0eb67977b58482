"""Uploads from anyone: what is no fit image gets a status and a sentence (R25)."""

from __future__ import annotations

import numpy as np
import pytest
from upload_files import bomb, encoded

from cifar_tune.data.uploads import MAX_BYTES, check_type, decode_upload
from cifar_tune.errors import RefusedError


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "BMP", "WEBP"])
def test_image_is_resized_to_what_the_model_takes(kind: str) -> None:
    pixels = decode_upload(encoded(kind), 8)
    assert (pixels.shape, pixels.dtype) == ((8, 8, 3), np.uint8)


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (b"", 400),
        (b"no image at all", 415),
        (encoded()[:200], 400),
        (encoded("JPEG")[:300], 400),
        (encoded("GIF"), 415),
        (bomb(8_000), 413),
        (bomb(60_000), 413),
        (b"\0" * (MAX_BYTES + 1), 413),
    ],
    ids=["empty", "text", "truncated PNG", "truncated JPEG", "another format", "large", "bomb", "too many bytes"],
)
def test_what_is_no_fit_image_is_refused(body: bytes, status: int) -> None:
    with pytest.raises(RefusedError) as refused:
        decode_upload(body, 8)
    assert refused.value.status == status
    assert "\n" not in str(refused.value)


def test_content_types_of_images_pass() -> None:
    for kind in ("image/png", "image/jpeg; q=1", "application/octet-stream", ""):
        check_type(kind)
    with pytest.raises(RefusedError) as refused:
        check_type("text/html")
    assert refused.value.status == 415
