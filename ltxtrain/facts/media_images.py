"""Images: probed and decoded with Pillow, in a child like everything else that a file can break.

They come out as a person sees them: turned as EXIF says, 8 bits a channel, RGB. Transparent parts become black, as
nothing lies behind them. CMYK is turned into RGB by Pillow's own formula, without a printer's profile. Of an animated
image the first frame counts.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from ltxtrain.facts.media_facts import ClipFacts, MediaError, told

if TYPE_CHECKING:
    from PIL.Image import Image

IMAGE_EXTENSIONS = frozenset((".png", ".jpg", ".jpeg", ".webp", ".bmp", ".avif", ".tiff"))
# Pillow knows many more, and some of them start programs. The name of the file has no say.
FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "AVIF", "TIFF")
MAX_IMAGE_PIXELS = 8192 * 8192
ORIENTATION = 0x0112  # of EXIF
TURNED = {3: 180, 4: 180, 5: 270, 6: 270, 7: 90, 8: 90}  # counter-clockwise, as for videos
UPRIGHT = {
    2: "FLIP_LEFT_RIGHT",
    3: "ROTATE_180",
    4: "FLIP_TOP_BOTTOM",
    5: "TRANSPOSE",
    6: "ROTATE_270",
    7: "TRANSVERSE",
    8: "ROTATE_90",
}

# What Pillow raises for damaged files; each of these was seen, or stands in its readers.
FAULTS = (
    OSError,
    SyntaxError,
    ValueError,
    TypeError,
    LookupError,
    AttributeError,
    ArithmeticError,
    NotImplementedError,
    EOFError,
    RuntimeError,
    struct.error,
)


def probe_image(path: Path, file: BinaryIO) -> ClipFacts:
    """Decode the image whole: a header alone tells nothing of a file that is cut off. Raises ``MediaError``."""
    with opened_image(file) as image:
        codec, mode = (image.format or "").lower(), image.mode
        image.load()
        check_mode(image)
        orientation = _orientation(image)
        turned = TURNED.get(orientation, 0)
        width, height = image.size if turned % 180 == 0 else image.size[::-1]
    return ClipFacts(
        path=path,
        bytes=path.stat().st_size,
        width=width,
        height=height,
        rotation=turned,
        frames=1,
        declared_frames=1,
        fps=0.0,
        first_pts_s=0.0,
        duration_s=0.0,
        variable_rate=False,
        codec=codec,
        pixel_format=mode,
        kind="image",
    )


def read_image(file: BinaryIO) -> Image:
    """The image as RGB, upright. Raises ``MediaError``."""
    with opened_image(file) as image:
        return upright_rgb(image)


@contextmanager
def opened_image(file: BinaryIO) -> Iterator[Image]:
    """An image whose header has been read and whose size is bearable. What Pillow raises becomes ``MediaError``."""
    import warnings

    from PIL import Image, ImageFile, UnidentifiedImageError

    ImageFile.LOAD_TRUNCATED_IMAGES = False
    Image.MAX_IMAGE_PIXELS = MAX_IMAGE_PIXELS
    try:
        if not file.read(1):
            raise MediaError("empty", "the file is empty (0 bytes)")
        file.seek(0)
        with warnings.catch_warnings(action="ignore"), Image.open(file, formats=FORMATS) as image:
            if image.width * image.height > MAX_IMAGE_PIXELS:
                raise MediaError("too-large", _told_size(image.width, image.height))
            yield image
    except UnidentifiedImageError as error:
        raise MediaError("not-image", "its first bytes are of no image format that is known here") from error
    except Image.DecompressionBombError as error:
        raise MediaError("too-large", f"more than {MAX_IMAGE_PIXELS} pixels are not opened") from error
    except MemoryError as error:
        raise MediaError("too-large", "reading it takes more memory than one file is given") from error
    except FAULTS as error:
        raise MediaError("damaged", f"it cannot be read: {told(error)}") from error


def upright_rgb(image: Image) -> Image:
    """RGB, turned as EXIF says."""
    from PIL import Image as images

    image.load()
    check_mode(image)
    orientation = _orientation(image)
    if image.mode in ("I", "I;16", "I;16B", "I;16L", "I;16N"):
        image = _eight_bits(image)
    if image.mode in ("RGBA", "LA", "PA", "La", "RGBa") or "transparency" in image.info:
        coloured = image.convert("RGBA")
        image = images.new("RGB", coloured.size)
        image.paste(coloured, mask=coloured.getchannel("A"))
    image = image.convert("RGB")
    way = UPRIGHT.get(orientation)
    return image if way is None else image.transpose(images.Transpose[way])


def check_mode(image: Image) -> None:
    """Raises ``MediaError`` for floating point numbers: some files mean 1 by white, others 255, and none says it."""
    if image.mode == "F":
        raise MediaError("damaged", "its pixels are floating point numbers, and nothing says what is white")


def _eight_bits(image: Image) -> Image:
    """Sixteen bits of grey; the upper eight are kept. Mode I also holds what had only eight."""
    import numpy as np
    from PIL import Image as images

    grey = np.asarray(image).astype(np.int64)
    shift = 8 if image.mode != "I" or grey.max(initial=0) > 255 else 0
    return images.fromarray(np.clip(grey >> shift, 0, 255).astype(np.uint8))


def _orientation(image: Image) -> int:
    """Of a loaded image: Pillow turns TIFF by itself, and in PNG the word may stand behind the pixels."""
    value = image.getexif().get(ORIENTATION, 1)
    return value if isinstance(value, int) else 1


def _told_size(width: int, height: int) -> str:
    return f"{width}x{height} pixels; at most {MAX_IMAGE_PIXELS} are opened"
