"""Files of pictures as they are to be seen, the same in training and in prediction."""

import numpy as np
from PIL import Image, ImageOps

from inception_tf.errors import UserError

KINDS = ("JPEG", "PNG")
MAXIMUM_PIXELS = 100_000_000  # above which a picture is refused, by its header


def read(path):
    """A JPEG or PNG file, whatever its ending: turned as the camera says, and white where it is transparent.

    Grey, palettes, 16 bits and CMYK become RGB of 8 bits.

    Returns:
        uint8 [height, width, 3].

    Raises:
        UserError: there is no such file, it is no whole JPEG or PNG picture, or of more than 100 megapixels.
    """
    try:
        with Image.open(path, formats=KINDS) as image:
            if image.width * image.height > MAXIMUM_PIXELS:
                raise ValueError(f"{image.width} x {image.height} pixels are too many")
            picture = ImageOps.exif_transpose(image)
            if picture.mode.startswith("I"):  # 16 bits, which Pillow would clip
                picture = Image.fromarray((np.asarray(picture) >> 8).astype(np.uint8))
            if picture.has_transparency_data:
                picture = picture.convert("RGBA")
                picture = Image.alpha_composite(Image.new("RGBA", picture.size, "white"), picture)
            return np.asarray(picture.convert("RGB"))
    except FileNotFoundError as error:
        raise UserError(f"There is no picture {path}.") from error
    except Exception as error:  # whatever the decoders of a damaged file come upon
        raise UserError(f"{path} cannot be read as a JPEG or PNG picture: {error}") from error
