"""One image file: what its header says, and its pixels."""

import dataclasses
import pathlib
import warnings

import numpy as np
from PIL import Image, ImageColor, ImageOps, UnidentifiedImageError

from vae_tf.data.checks import check_images
from vae_tf.data.sizes import resized

SUFFIXES = (
    ".avif", ".bmp", ".gif", ".heic", ".heif", ".jfif", ".jp2", ".jpe", ".jpeg", ".jpg", ".npy", ".pbm",
    ".pgm", ".png", ".pnm", ".ppm", ".tga", ".tif", ".tiff", ".webp",
)  # fmt: skip  # of files that are images, or broken ones
GREY = ("1", "L", "LA", "La")
UPRIGHT = {5, 6, 7, 8}  # the EXIF orientations that turn an image by a quarter
DEEP = (
    "32 bits a pixel, and no file says which values are black and white; an array of floats in [0, 1] is "
    "taken: x = np.array(Image.open({!r})); np.save({!r}, (x - black) / (white - black))"
)


class UnusableError(Exception):
    """An image file that cannot be used; its words say why."""


class TransparentError(UnusableError):
    """An image lets its background through, and none was named."""


@dataclasses.dataclass(frozen=True)
class Header:
    """What is known of an image before it is decoded. `remark`: what of it will not be kept."""

    path: pathlib.Path
    size: tuple[int, int]  # height and width, upright
    grey: bool
    kind: str = "bytes"  # or "floats", or "booleans"
    pixels: int = 0  # to decode
    remark: str | None = None


def look(path):
    """The `Header` of a file; None where it is no image at all.

    Raises:
        UnusableError: it is an image that cannot be used.
    """
    try:
        return _look_at_array(path) if path.suffix.lower() == ".npy" else _look_at_image(path)
    except (MemoryError, UnusableError):
        raise
    except Exception as error:  # Pillow's readers raise whatever a damaged file leads to
        if path.suffix.lower() in SUFFIXES:
            raise UnusableError(_words(error)) from error
        return None


def read(header, grey, size=None, background=None):
    """The pixels of an image file, `(H, W, 1)` where `grey`, or `(H, W, 3)`.

    Raises:
        UnusableError: it is damaged, or transparent without a background.
    """
    try:
        if header.path.suffix.lower() == ".npy":
            image = _read_array(header.path)
        else:
            image = _read_image(header, grey, size, background)
    except (MemoryError, UnusableError):
        raise
    except Exception as error:
        raise UnusableError(_words(error)) from error
    if size is not None and image.shape[:2] != size:
        image = resized(image, size)
    elif size is None and image.shape[:2] != header.size:
        raise UnusableError("its size is not the one that its header says")
    return image if grey or image.shape[2] == 3 else np.broadcast_to(image, (*image.shape[:2], 3))


def is_grey_colour(name):
    """Whether a colour, as Pillow names it, is grey. Raises ValueError if it is none."""
    return len(set(ImageColor.getrgb(name)[:3])) == 1


def _words(error):
    return "" if isinstance(error, UnidentifiedImageError) else str(error) or type(error).__name__


# Arrays.


def _look_at_array(path):
    array = np.load(path, mmap_mode="r", allow_pickle=False)
    if array.ndim not in (2, 3) or (array.ndim == 3 and array.shape[2] not in (1, 3)):
        raise UnusableError(
            f"an array of shape {array.shape}: (H, W), (H, W, 1) or (H, W, 3) is one image; many "
            f"images in one file are a source of their own, data {path.name}"
        )
    kind = {"f": "floats", "b": "booleans"}.get(array.dtype.kind, "bytes")
    return Header(path, array.shape[:2], array.shape[2:] != (3,), kind, array.size)


def _read_array(path):
    image = np.load(path, allow_pickle=False)
    if image.dtype != np.uint8:
        image = check_images(image[None], path.name)[0]
    return image if image.ndim == 3 else image[..., None]


# Pictures.


def _look_at_image(path):
    with _opened(path) as image:
        deep = image.mode.startswith("I")
        if image.mode == "F" or (image.mode == "I" and image.format != "PNG"):
            raise UnusableError(DEEP.format(path.name, f"{path.stem}.npy"))
        exif = image.getexif() if image.format != "PNG" or "exif" in image.info else {}
        width, height = image.size[::-1] if exif.get(0x0112) in UPRIGHT else image.size
        kind = "floats" if deep else "bytes"
        grey = deep or image.mode in GREY or _has_grey_palette(image)
        pixels = image.width * image.height * len(image.getbands())
        return Header(path, (height, width), grey, kind, pixels, _remark(image))


def _opened(path):
    """The image, opened; `Image.MAX_IMAGE_PIXELS` is for services, twice of it for everyone."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)
        return Image.open(path)


def _has_grey_palette(image):
    if image.mode != "P" or image.palette is None:
        return False
    mode, colours = image.palette.getdata()
    colours = np.frombuffer(bytes(colours), np.uint8)
    colours = colours[: len(colours) // 3 * 3].reshape(-1, 3)
    return mode == "RGB" and bool((colours == colours[:, :1]).all())


def _remark(image):
    """What of an image is not kept."""
    if image.mode == "CMYK":
        return "are in CMYK, and become RGB without their colour profile"
    if getattr(image, "is_animated", False) and image.format != "MPO":
        return "have several frames or pages: the first is taken"
    if (
        image.format == "PNG"
        and any("16" in str(tile[3]) for tile in image.tile)
        and image.mode[0] != "I"
    ):
        return "have 16 bits a channel, in colour: their upper 8 are taken"
    return None


def _read_image(header, grey, size, background):
    with _opened(header.path) as image:
        if size is not None:  # a JPEG is decoded at the scale that is needed
            image.draft(None, (2 * max(size),) * 2)
        image = ImageOps.exif_transpose(image)
        if header.kind == "floats":
            return (np.array(image, np.float32) / 65535)[..., None]
        if "A" in image.getbands() or "transparency" in image.info:
            image = _composited(image.convert("RGBA"), background)
        pixels = np.array(image.convert("L" if grey else "RGB"))
    return pixels.reshape(*pixels.shape[:2], -1)


def _composited(image, background):
    if image.getchannel("A").getextrema() == (255, 255):
        return image
    if background is None:
        raise TransparentError("transparent")
    return Image.alpha_composite(Image.new("RGBA", image.size, background), image)
