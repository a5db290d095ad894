"""The crops of an evaluation, drawn on a photo.

docs/crops.png is drawn anew, from the photo `coffee` of scikit-image, with

    python -m inception_tf.crop_picture coffee.png docs/crops.png "Photo: Rachel Michetti, CC0"
"""

import io
import sys

import numpy as np
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from PIL import Image

from inception_tf.data import crops

SIZE = 299
SQUARES = (("left", "centre", "right"), ("top", "centre", "bottom"))  # of a landscape, of a portrait
# In the order of `crops.boxes`: the colour of the outline, and by how many widths of a line it is moved
# inwards, so that those which share an edge do not hide each other.
CROPS = (
    ("top left", "#19e3ff", 1),
    ("top right", "#2457ff", 2),
    ("bottom left", "#2ecc40", 2),
    ("bottom right", "#ff3fd0", 1),
    ("centre", "#ffe600", 0),
    ("whole square, resized", "#ffffff", 0),
)
LINE = 4  # width of an outline, in pixels of the resized photo
COLOURS = 128  # of the file, which stays small


def draw(photo, path, credit=""):
    """Draws what `figure` gives as a small PNG file, `path`."""
    png = io.BytesIO()
    figure(photo, credit).savefig(png, dpi=100)
    picture = Image.open(png).convert("RGB")
    picture.quantize(COLOURS, dither=Image.Dither.NONE).save(path, optimize=True)


def figure(photo, credit=""):
    """The boxes of the 144 crops at 299 pixels: a row for each scale, a column for each square.

    Args:
        photo: uint8 [height, width, 3].
        credit: whose photo it is.

    Returns:
        a Matplotlib figure.
    """
    height, width = photo.shape[:2]
    boxes = crops.boxes(height, width, SIZE, 144)
    rows = [boxes[start : start + 18] for start in range(0, len(boxes), 18)]
    sides = [row[0].shorter for row in rows]
    widest = width * sides[-1] / min(height, width)
    inches = 3.5 / widest  # for each pixel of the resized photos
    drawn = Figure(figsize=(11, inches * sum(sides) * height / min(height, width) + 1.6))
    drawn.subplots_adjust(left=0.03, right=0.995, bottom=0.075, top=0.925, wspace=0.02, hspace=0.03)
    grid = drawn.subplots(4, 3, height_ratios=sides)
    for axes_of_row, row in zip(grid, rows, strict=True):
        axes_of_row[0].set_ylabel(f"shorter side {row[0].shorter}", fontsize=11)
        for axes, start in zip(axes_of_row, range(0, 18, 6), strict=True):
            _draw_square(axes, photo, row[start : start + 6], widest)
    for axes, name in zip(grid[0], SQUARES[height > width], strict=True):
        axes.set_title(f"{name} square", fontsize=11)
    drawn.suptitle(
        f"The 144 crops at {SIZE} x {SIZE} pixels: 4 scales x 3 squares x 6 crops, and the mirror of each",
        fontsize=13,
        y=0.985,
    )
    handles = [Rectangle((0, 0), 1, 1, facecolor=colour, edgecolor="black") for _, colour, _ in CROPS]
    names = [name for name, _, _ in CROPS]
    drawn.legend(handles, names, ncols=6, loc="lower center", frameon=False, bbox_to_anchor=(0.5, 0.028))
    note = "All twelve are drawn at one scale; outlines that share an edge lie side by side."
    drawn.text(0.5, 0.014, f"{note}  {credit}", ha="center", fontsize=9)
    return drawn


def _draw_square(axes, photo, boxes, widest):
    """The resized photo, pale outside one square, and the six crops of that."""
    height, width = (side * boxes[0].shorter / min(photo.shape[:2]) for side in photo.shape[:2])
    margin = (widest - width) / 2
    extent = (0, width, height, 0)
    axes.imshow(photo // 3 + 170, extent=extent)
    shown = axes.imshow(photo, extent=extent)
    shown.set_clip_path(_outline(boxes[-1], 0, transform=axes.transData))
    for box, (_, colour, lines) in zip(boxes, CROPS, strict=True):
        inset = LINE * (lines + 0.5)
        axes.add_patch(_outline(box, inset, facecolor="none", edgecolor=colour, linewidth=1.5))
    axes.set(xlim=(-margin, width + margin), ylim=(height, 0), xticks=[], yticks=[])
    axes.spines[:].set_visible(False)


def _outline(box, inset, **how):
    side = box.side - 2 * inset
    return Rectangle((box.left + inset, box.top + inset), side, side, **how)


if __name__ == "__main__":
    draw(np.asarray(Image.open(sys.argv[1]).convert("RGB")), *sys.argv[2:])
