"""docs/scale.md is what benchmarks/scale.py prints, and its figures follow from others by hand."""

import importlib.util
import sys
from pathlib import Path

import keras
import pytest

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def scale():
    spec = importlib.util.spec_from_file_location("scale", ROOT / "benchmarks" / "scale.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules["scale"] = module
    spec.loader.exec_module(module)
    yield module
    del sys.modules["scale"]


@pytest.fixture(scope="module")
def page(scale):
    return scale.page()


def row(page, *begin):
    """The cells of the only row that begins so."""
    (line,) = (line for line in page.splitlines() if line.startswith(f"| {' | '.join(begin)} |"))
    return line.strip("| ").split(" | ")


def number(cell):
    return float(cell.split()[0].strip("*").replace(",", ""))


def test_the_committed_page_is_what_the_script_prints_now(page):
    committed = (ROOT / "docs" / "scale.md").read_text(encoding="utf-8")
    assert committed == page, "run: python benchmarks/scale.py > docs/scale.md"


def test_every_table_is_whole(page):
    for table in page.split("\n\n"):
        if table.startswith("|"):
            assert len({line.count(" | ") for line in table.splitlines()}) == 1, table
    assert all(len(line) <= 110 for line in page.splitlines() if not line.startswith("|"))


@pytest.mark.parametrize(
    ("title", "command"),
    [
        ("Inception-v4", "inception_v4"),
        ("Inception-ResNet-v2 as drawn", "inception_resnet_v2"),
        ("Inception-ResNet-v2 as released", "inception_resnet_v2_slim"),
    ],
)
def test_flops_follow_from_the_readmes_table(page, title, command):
    (line,) = (line for line in README.splitlines() if f"| `{command}` |" in line)
    parameters, multiply_adds = (number(cell) for cell in line.split(" | ")[2:4])
    cells = next(line for line in page.splitlines() if line.startswith(f"| {title} |")).split(" | ")
    assert number(cells[2]) == pytest.approx(3 * 2 * 64 * multiply_adds / 1e3, rel=0.01)
    assert 0.998 * parameters < number(cells[1]) < parameters


def test_a_step_of_v4_by_hand(page):
    """From the printed flops and bytes, and the chip's figures."""
    cells = row(page, "TPU v5e-1", "Inception-v4")
    assert number(cells[2]) == pytest.approx(4.71e12 / 197e12 * 1e3, rel=0.01)
    assert number(cells[3]) == pytest.approx(58.75e9 / 819e9 * 1e3, rel=0.01)
    assert number(cells[5]) == pytest.approx(64 / (58.75e9 / 819e9), rel=0.01)
    eight = row(page, "TPU v5e-8", "Inception-v4")
    assert number(eight[5]) == pytest.approx(8 * 64 / (58.75e9 / 819e9), rel=0.01)
    seconds = 200 * 1_281_167 / number(eight[5])
    line = next(line for line in page.splitlines() if line.startswith("| TPU v5e-8 | 10.0 "))
    assert seconds / 3600 == pytest.approx(10.0, abs=0.06)
    assert f"({seconds / 0.4 / 3600:.1f})" in line


def test_the_all_reduce_of_v4_by_hand(page):
    """42,711,400 parameters, of which 2 x 31,584 are batch norm's statistics; seven eighths, twice."""
    gradient_bytes = 4 * (42_711_400 - 2 * 31_584)
    (line,) = (line for line in page.splitlines() if line.startswith("| TPU v5e-8 | 100 |"))
    assert number(line.split(" | ")[2]) == pytest.approx(1.75 * gradient_bytes / 100e9 * 1e3, abs=0.05)
    (line,) = (
        line for line in page.splitlines() if line.startswith("| 8 machines of one A100") and " ms " in line
    )
    assert number(line.split(" | ")[2]) == pytest.approx(1.75 * gradient_bytes / 12.5e9 * 1e3, abs=0.05)


def test_the_checkpoint_of_v4_by_hand(page):
    (line,) = (line for line in page.splitlines() if line.startswith("| Inception-v4 | 683 |"))
    assert round((8 * 42_711_400 + 8 * 42_648_232) / 1e6) == 683


def test_the_input_rate_is_the_readmes(scale, page):
    assert "| **`inception`** | 1,723 |" in README and "reached 1,807 " in README
    cells = next(line for line in page.splitlines() if line.startswith("| TPU v5e-8 | 1 |")).split(" | ")
    assert number(cells[3]) == pytest.approx(2 * number(cells[2]) / 1723, abs=0.05)


def test_a_small_network_is_counted_as_by_hand(scale):
    image = keras.Input((4, 4, 3))
    x = keras.layers.Conv2D(2, 3, padding="same", use_bias=False)(image)  # 48 in, 32 out
    x = keras.layers.BatchNormalization(scale=False)(x)
    x = keras.layers.Activation("relu")(x)
    a = keras.layers.Conv2D(5, 1, strides=2, use_bias=False)(x)  # 32 in, 20 out
    b = keras.layers.MaxPooling2D(2)(x)  # 32 in, 8 out
    network = scale.count(keras.Model(image, keras.layers.Concatenate()([a, b])))

    assert network.trainable == 3 * 3 * 3 * 2 + 2 + 2 * 5 == network.parameters - 2 * 2
    assert network.multiply_adds == 16 * 27 * 2 + 4 * 2 * 5
    assert network.inside == (2 + 3 + 3 + 2) ** 2 * 3 * 2 + 4 * 2 * 5
    forward = (48 + 32) + (32 + 32 + 32) + (32 + 32) + (32 + 20) + (32 + 8) + (28 + 28)
    first = 32 + 32 + 48  # its gradient twice, the image; no gradient of the image
    norm = 2 * (32 + 32) + 32
    relu = 32 + 32 + 32
    conv = 20 + 20 + 32 + 32
    pool = 8 + 8 + 32 + 32
    assert network.plain == forward + first + norm + relu + conv + pool + (28 + 28) + (32 + 32 + 32)
    forward = (48 + 32) + (32 + 32) + (32 + 20) + (32 + 8)
    assert network.fused == forward + first + norm + conv + (8 + 32 + 32) + 32
    assert network.kept == 48 + 32 + 32 + 8  # image, convolution, ReLU, pool
    assert network.flops(10) == 60 * network.multiply_adds
    assert network.traffic(10) == 20 * network.plain + 50 * network.trainable


def test_the_largest_batch_fits_and_the_next_does_not(scale):
    network = scale.Network(10**7, 10**7, 0, 0, 0, 0, kept=4 * 10**7)
    batch = network.largest_batch(scale.V5E)
    assert batch % 32 == 0
    assert network.memory(batch) <= 0.9 * 16e9 < network.memory(batch + 32)
