"""How training images are distorted: what is done to each as it is decoded, and to a batch on the device.

Whatever is drawn follows from the key of the image alone, two int64 of seed, epoch and index, so that it does
not matter which worker, thread or attempt draws it. On the way to the device pixels are uint8.
"""

import dataclasses
import functools
import math
from typing import Literal

import tensorflow as tf

from inception_tf import inputs
from inception_tf.data import colour, decoding
from inception_tf.data.preprocessing import rgb

SECOND_KEY = (0, 1 << 62)  # added to a key for numbers that are independent of the first ones


def key(seed, epoch, index):
    """The key of an image in an epoch: int64 [2], no two alike for seeds of less than 2**32."""
    return tf.stack([seed + epoch * 2**32, index])


@dataclasses.dataclass(frozen=True)
class Affine:
    """Turned, zoomed and moved a little over a black ground: for digits and text, which have no mirror image.

    Attributes:
        angle: radians by which the image is turned at most, either way.
        zoom: share of its size by which it is shrunk or enlarged at most.
        shift: share of its size by which it is moved at most, along each axis.
        central_fraction: share of height and width that evaluation shows.
    """

    angle: float = math.radians(10)
    zoom: float = 0.1
    shift: float = 1 / 14
    central_fraction: float = 1.0

    def distort(self, example, size, key):
        """The example's image, distorted, and what is left to draw for `finish`.

        Args:
            example: dict of tensors, as `Images.example` gives it.
            size: height and width of the result, in pixels.
            key: int64 [2], see `key`.

        Returns:
            (uint8 [size, size, 1 or 3], float32 [0]).
        """
        image = decoding.read_part(example, decoding.whole)
        angle, zoom, *shift = tf.unstack(tf.random.stateless_uniform([4], key, -1.0, 1.0))
        height, width = _height_width(image)
        shift = [self.shift * width * shift[0], self.shift * height * shift[1]]
        pixels = affine(image, size, self.angle * angle, 1.0 + self.zoom * zoom, shift)
        return tf.cast(pixels + 0.5, tf.uint8), tf.zeros([0])

    def finish(self, pixels, draws, scale):
        """What the network sees of a batch from `distort`, on the device.

        Args:
            pixels: [n, size, size, 1 or 3].
            draws: float32 [n, 0].
            scale: that of a `weights.Preprocessing`.

        Returns:
            float32 [n, size, size, 3] of the scale.
        """
        return inputs.rescale(rgb(pixels), scale)


@dataclasses.dataclass(frozen=True)
class Crop:
    """A part of the image, resized, mirrored or not, its colours distorted or not.

    Attributes:
        area: least and largest share of the image's area that a crop shows.
        aspect: least and largest width of a crop by its height.
        object_covered: share of a box, or of the image where the source has none, that a crop shows at least.
        resize: `bilinear`; or `any`: bilinear, nearest neighbour, bicubic or area, as TensorFlow 1 resized.
        colour: `linear`, one affine transform of RGB, of the batch; `hsv`, slim's own, of each image; None.
        fancy_upscaling: whether the colours of a JPEG file that has fewer of them are interpolated, which is
            TensorFlow's default and takes the decoder a little longer.
        central_fraction: share of height and width that evaluation shows.
    """

    area: tuple[float, float]
    aspect: tuple[float, float] = (3 / 4, 4 / 3)
    object_covered: float = 0.1
    resize: Literal["bilinear", "any"] = "bilinear"
    colour: Literal["linear", "hsv"] | None = None
    fancy_upscaling: bool = True
    central_fraction: float = 0.875

    def distort(self, example, size, key):
        """As `Affine.distort`; draws are float32 [1 + colour.DRAWS], pixels float32 where colour is `hsv`."""
        draws = tf.random.stateless_uniform([2 + colour.DRAWS], key + SECOND_KEY)
        boxes = example.get("boxes", tf.zeros([0, 4]))
        window = functools.partial(self._window, boxes, key)
        crop = decoding.read_part(example, window, self.fancy_upscaling)
        if self.resize == "any":
            pixels = _resize_any(crop, size, draws[0])
        else:
            pixels = tf.image.resize(crop, (size, size))
        if self.colour == "hsv":
            return colour.hsv(rgb(pixels), draws[2:]), draws[1:]
        return tf.cast(pixels, tf.uint8), draws[1:]  # cut off, which is quicker; `finish` adds half a level

    def finish(self, pixels, draws, scale):
        """As `Affine.finish`."""
        pixels = rgb(pixels)
        if pixels.dtype == tf.uint8:
            pixels = tf.cast(pixels, tf.float32) + 0.5
        if self.colour == "linear":
            pixels = colour.linear(pixels, draws[:, 1:])
        pixels = inputs.rescale(tf.minimum(pixels, 255.0), scale)
        return tf.where(draws[:, 0, None, None, None] < 0.5, pixels[:, :, ::-1], pixels)

    def _window(self, boxes, key, shape):
        begin, extent, _ = tf.image.stateless_sample_distorted_bounding_box(
            shape,
            boxes[None],
            key,
            min_object_covered=self.object_covered,
            aspect_ratio_range=self.aspect,
            area_range=self.area,
            max_attempts=100,
            use_image_if_no_bounding_boxes=True,
        )
        return tf.concat([begin[:2], extent[:2]], 0)


DISTORTIONS = {
    "affine": Affine(),
    "crop": Crop(area=(0.08, 1.0), object_covered=0.0, central_fraction=1.0),
    "inception": Crop(area=(0.05, 1.0), colour="linear", fancy_upscaling=False),
    "slim": Crop(area=(0.05, 1.0), colour="hsv", resize="any"),
}


@functools.cache
def finisher(name, scale):
    """`finish` of a distortion, from a batch of `batches.training_batches` to float32 [n, size, size, 3].

    XLA makes one pass over the pixels of it, which on a CPU is four times as fast.
    """
    finish = functools.partial(DISTORTIONS[name].finish, scale=scale)
    finish = tf.function(finish, jit_compile=True, autograph=False)
    return lambda batch: finish(batch["pixels"], batch["draws"])


def affine(image, size, angle, zoom, shift):
    """The image resized, turned about its centre, zoomed and moved; bilinear, black outside.

    Args:
        image: uint8 [height, width, channels].
        size: height and width of the result, in pixels.
        angle: radians, counter-clockwise for positive ones.
        zoom: factor on the size of what the image shows.
        shift: pixels of `image`, to the left and upwards for positive ones: (x, y).

    Returns:
        float32 [size, size, channels] in [0, 255].
    """
    height, width = _height_width(image)
    cos, sin = tf.cos(angle) / zoom, tf.sin(angle) / zoom
    # From the coordinates of a pixel of the result to those of the pixel of `image` that it shows.
    xx, xy = cos * width / size, -sin * height / size
    yx, yy = sin * width / size, cos * height / size
    centre = (size - 1) / 2
    x = (width - 1) / 2 + shift[0] - (xx + xy) * centre
    y = (height - 1) / 2 + shift[1] - (yx + yy) * centre
    return tf.raw_ops.ImageProjectiveTransformV3(
        images=tf.cast(image, tf.float32)[None],
        transforms=tf.stack([xx, xy, x, yx, yy, y, 0.0, 0.0])[None],
        output_shape=(size, size),
        fill_value=0.0,
        interpolation="BILINEAR",
    )[0]


def _height_width(image):
    """Numbers where the shape is static, else tensors."""
    if image.shape[0] is not None and image.shape[1] is not None:
        return image.shape[:2]
    return tf.unstack(tf.cast(tf.shape(image)[:2], tf.float32))


def _resize_any(image, size, draw):
    """float32 in [0, 255], by one of TensorFlow 1's four methods, which draw in [0, 1) stands for."""
    resize = tf.compat.v1.image.resize
    methods = tf.compat.v1.image.ResizeMethod
    order = (methods.BILINEAR, methods.NEAREST_NEIGHBOR, methods.BICUBIC, methods.AREA)
    return tf.switch_case(
        tf.cast(draw * len(order), tf.int32),
        [lambda method=method: tf.cast(resize(image, (size, size), method), tf.float32) for method in order],
    )
