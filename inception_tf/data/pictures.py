"""Files of pictures as they are to be seen, the same in training and in prediction."""

import io

import numpy as np
from PIL import ExifTags, Image, UnidentifiedImageError

from inception_tf.errors import UserError

KINDS = ("JPEG", "PNG")
TURNS = {  # by EXIF's orientation; others, 1 first of all, are upright
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
MINIMUM_PIXELS, MAXIMUM_PIXELS = 4, 100_000_000  # of a picture; others are refused by their header


def read(path):
    """A JPEG or PNG file, whatever its ending: turned as the camera says, and white where it is transparent.

    Grey, palettes, 16 bits and CMYK become RGB of 8 bits.

    Returns:
        uint8 [height, width, 3].

    Raises:
        UserError: there is no such file, it is no whole JPEG or PNG picture, or its pixels are fewer than 4
            or more than 100 million.
    """
    try:
        return _pixels(path)
    except FileNotFoundError as error:
        raise UserError(f"There is no picture {path}.") from error
    except Exception as error:  # whatever the decoders of a damaged file come upon
        raise UserError(f"{path} cannot be read as a JPEG or PNG picture: {_reason(error)}") from error


def is_as_stored(content):
    """Whether any decoder of JPEG files shows the bytes of a file as `decode` does, up to how it rounds.

    That is so of grey and RGB pictures of a size that is not refused and that are not to be turned, as their
    header says. TensorFlow's decoder and Pillow's differ by one level in the mean.
    """
    try:
        with Image.open(io.BytesIO(content), formats=KINDS) as image:
            check_size(image)
            return turn_of(image) is None and image.format == "JPEG" and image.mode in ("L", "RGB")
    except Exception:  # whatever the decoders of a damaged file come upon
        return False


def decode(content):
    """`read` of the bytes of a file.

    Raises:
        ValueError: they are no such picture.
    """
    if not content:
        raise ValueError("it is empty")
    try:
        return _pixels(io.BytesIO(content))
    except Exception as error:  # as above
        raise ValueError(f"it cannot be read as a JPEG or PNG picture: {_reason(error)}") from error


def check_size(image):
    """Raises `ValueError` if an opened picture has too few or too many pixels."""
    pixels = image.width * image.height
    if not MINIMUM_PIXELS <= pixels <= MAXIMUM_PIXELS:
        many = "few" if pixels < MINIMUM_PIXELS else "many"
        raise ValueError(f"{image.width} x {image.height} pixels are too {many}")


def _pixels(file):
    with Image.open(file, formats=KINDS) as image:
        check_size(image)
        image.load()
        turn = turn_of(image)
        picture = image if turn is None else image.transpose(turn)
        if picture.mode.startswith("I"):  # 16 bits, which Pillow would clip
            picture = Image.fromarray((np.asarray(picture) >> 8).astype(np.uint8))
        if picture.has_transparency_data:
            picture = picture.convert("RGBA")
            picture = Image.alpha_composite(Image.new("RGBA", picture.size, "white"), picture)
        return np.asarray(picture.convert("RGB"))


def turn_of(image):
    """What turns an opened picture as the camera says, or None.

    `ImageOps.exif_transpose` would write the EXIF data anew, and fail where any of it is odd.
    """
    try:
        return TURNS.get(image.getexif().get(ExifTags.Base.Orientation))
    except Exception:  # EXIF data that is damaged, of a picture that may be sound
        return None


def _reason(error):
    """What is wrong with a picture, where Pillow says it of objects and limits that nobody knows."""
    if isinstance(error, UnidentifiedImageError):
        return "it is none"
    if isinstance(error, Image.DecompressionBombError):
        return "its pixels are too many"
    return str(error) or type(error).__name__
