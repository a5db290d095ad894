"""docs/scale.md is what benchmarks/scale.py prints, and its figures follow from others by hand."""

import importlib
import sys
from pathlib import Path

import keras
import pytest

from inception_tf.config import TrainConfig

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
SPEED = (ROOT / "docs" / "speed.md").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def scale():
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(ROOT / "benchmarks")
        yield importlib.import_module("scale")
    for name in ("scale", "accelerators", "tpu_programs"):
        del sys.modules[name]


@pytest.fixture(scope="module")
def accelerators(scale):
    return sys.modules["accelerators"]


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


def test_a_program_that_is_missing_is_named(scale, monkeypatch):
    monkeypatch.setattr(scale, "COMPILED", None)
    words = "no inception_v4 on v5e, batch 64: run python benchmarks/tpu_programs.py"
    monkeypatch.setattr(scale, "NETWORKS", {})  # it says so before it builds any
    with pytest.raises(SystemExit, match=words):
        scale.page()


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


def test_the_checkpoints_of_v4_by_hand(page):
    """One every ten minutes and one an epoch; of what is trained four values, of statistics two."""
    size = (8 * 42_711_400 + 8 * 42_648_232) / 1e9
    (line,) = (line for line in page.splitlines() if line.startswith("| Inception-v4 | 683 |"))
    cells = [number(cell) for cell in line.strip("| ").split(" | ")[1:]]
    assert cells[:2] == [round(1e3 * size), round(3 * size, 1)]
    assert len(cells) == 7
    for setup, gigabytes in zip(("TPU v5e-1", "TPU v5e-8", "TPU v6e-8"), cells[2:], strict=False):
        seconds = 200 * 1_281_167 / number(row(page, setup, "Inception-v4")[5]) / 0.4
        assert gigabytes == pytest.approx((seconds // 600 + 200) * size, abs=1)


def test_the_checkpoints_are_those_of_the_trainers_defaults(page):
    text = " ".join(page.split())
    config = TrainConfig()
    assert f"one every {config.checkpoint_minutes} minutes" in text and config.checkpoint_every is None
    assert f"the newest {config.keep} (`--keep`) and the best are kept" in text


def test_what_is_from_memory_is_marked_so_wherever_it_stands(page):
    marked = "unchecked (from memory)"
    assert page.count("from memory") == page.count(marked)
    for figure in ("180 (ct6e-standard-8t)", "96 (a2-highgpu-8g)"):
        (line,) = (line for line in page.splitlines() if figure in line)
        assert f"{figure}, {marked}" in line
    for figure in ("180 vCPUs", "96 vCPUs", "1,281,167 images; 110 KB an image"):
        (line,) = (line for line in page.splitlines() if line.startswith(f"| {figure}"))
        assert line.endswith(f" | {marked} |")
    text = " ".join(page.split())
    assert f"1,281,167 images an epoch, {marked}" in text and f"110 KB an image, {marked}" in text


def test_the_input_rate_is_the_measured_one(page):
    assert "| **`inception`** | 1,723 |" in SPEED and "reached 1,807 " in SPEED
    cells = next(line for line in page.splitlines() if line.startswith("| TPU v5e-8 | 1 |")).split(" | ")
    assert number(cells[3]) == pytest.approx(2 * number(cells[2]) / 1723, abs=0.05)


def test_a_small_network_is_counted_as_by_hand(accelerators):
    image = keras.Input((4, 4, 3))
    x = keras.layers.Conv2D(2, 3, padding="same", use_bias=False)(image)  # 48 in, 32 out
    x = keras.layers.BatchNormalization(scale=False)(x)
    x = keras.layers.Activation("relu")(x)
    a = keras.layers.Conv2D(5, 1, strides=2, use_bias=False)(x)  # 32 in, 20 out
    b = keras.layers.MaxPooling2D(2)(x)  # 32 in, 8 out
    network = accelerators.count(keras.Model(image, keras.layers.Concatenate()([a, b])))

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


def test_the_largest_batch_fits_and_the_next_does_not(accelerators):
    network = accelerators.Network(10**7, 10**7, 0, 0, 0, 0, kept=4 * 10**7)
    batch = accelerators.SETUPS[0].largest_batch(network)
    assert batch % 32 == 0
    assert network.memory(batch) <= 0.9 * 16e9 < network.memory(batch + 32)
