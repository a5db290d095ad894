"""The paper's tables: its numbers, and which of our results may stand beside them."""

import io

import pytest
from rich.console import Console

from inception_tf.evaluation import paper
from inception_tf.networks import NETWORKS

V2 = ("inception_resnet_v2", "inception_resnet_v2_slim")

# Typed from the paper: networks of ours, top-1 and top-5 error of Tables 2, 3 and 4.
SINGLE = {
    "inception_v3": ("21.2 5.6", "19.8 4.6", "18.9 4.3"),
    "inception_resnet_v1": ("21.3 5.5", "19.8 4.6", "18.8 4.3"),
    "inception_v4": ("20.0 5.0", "18.7 4.2", "17.7 3.8"),
    "inception_resnet_v2": ("19.9 4.9", "18.7 4.1", "17.8 3.7"),
    "inception_resnet_v2_slim": ("19.9 4.9", "18.7 4.1", "17.8 3.7"),
}


def cells(table):
    """The cells that a reader sees, row by row, and the whole text."""
    console = Console(width=110, markup=False, emoji=False, file=io.StringIO())
    console.print(table)
    text = console.file.getvalue()
    assert "…" not in text
    rows = [[cell.strip() for cell in line.split("│")[1:-1]] for line in text.splitlines() if "│" in line]
    return rows, " ".join(text.split())


def ours(results):
    """For each table a dict from a row's network to what stands in our two columns, where it was run."""
    tables, _ = paper.tables(results)
    return [
        {row[0]: (row[4], row[5]) for row in cells(table)[0] if row[4:] != ["not run"] * 2}
        for table in tables
    ]


IMAGENET = {"name": "imagenet", "held_out_split": None, "imagenet": True, "classes": 1000}


def result(*networks, top1=0.1, crops=144, images=50000, **others):
    """What an evaluation of the validation set writes; an ensemble's error is less than its members'."""
    members = [
        {
            "network": name,
            "size": 299,
            "weight": 1 / len(networks),
            "top1_error": top1 + 0.01 * (len(networks) > 1),
            "top5_error": 0.04,
        }
        for name in networks
    ]
    counts = {"crops": crops, "images": images, "excluded": 50000 - images, "left_out": []}
    counts["exclude"] = {"by_number": True} if counts["excluded"] else None
    return {"top1_error": top1, "top5_error": 0.03, **counts, "networks": members, "data": IMAGENET, **others}


@pytest.mark.parametrize("network", SINGLE)
@pytest.mark.parametrize("number", [2, 3, 4])
def test_the_numbers_of_single_networks(network, number):
    table = paper.TABLES[number - 2]
    assert table.number == number
    (row,) = (row for row in table.rows if row.ours == (network,))
    assert f"{row.top1:.1f} {row.top5:.1f}" == SINGLE[network][number - 2]
    assert row.crops == {2: 1, 3: 12, 4: 144}[number]
    assert (table.images, table.excluded) == ((48238, 1762) if number == 2 else (50000, 0))


def test_a_reader_sees_all_rows_of_the_paper():
    drawn = [cells(table)[0] for table in paper.tables([])[0]]
    none = ["not run", "not run"]
    assert [rows[0] for rows in drawn] == [
        ["BN-Inception [6], the paper's only", "1", "25.2 %", "7.8 %", *none],
        ["ResNet-151 [5], the paper's only", "10", "21.4 %", "5.7 %", *none],
        ["ResNet-151 [5], the paper's only", "dense", "19.4 %", "4.5 %", *none],
        ["ResNet-151 [5], 6 networks, the paper's only", "dense", "-", "3.6 %", *none],
    ]
    for rows, crops, errors in zip(
        drawn[:3], ("1", "12", "144"), zip(*SINGLE.values(), strict=True), strict=True
    ):
        shown = [f"{row[2]} {row[3]}".replace(" %", "") for row in rows[1:]]
        assert shown == list(errors)
        assert {row[1] for row in rows[1:]} == {crops}
        assert [row[0] for row in rows[1:]] == [
            "Inception-v3 [15]",
            "Inception-ResNet-v1",
            "Inception-v4",
            "Inception-ResNet-v2, as drawn",
            "Inception-ResNet-v2, as released",
        ]
    assert drawn[3][1:] == [
        ["4 x Inception-v3 [15]", "144", "17.3 %", "3.6 %", *none],
        ["Inception-v4 + 3 x Inception-ResNet-v2, as drawn", "144", "16.5 %", "3.1 %", *none],
        ["Inception-v4 + 3 x Inception-ResNet-v2, as released", "144", "16.5 %", "3.1 %", *none],
    ]


def test_what_a_reader_has_to_know_stands_with_the_tables():
    texts = [cells(table)[1] for table in paper.tables([])[0]]
    for text, images, number in zip(
        texts, ("48,238", "50,000", "50,000", "50,000"), (2, 3, 4, 5), strict=True
    ):
        assert f"Table {number}: " in text and f"({images} images)" in text
        assert "Paper's" in text and "Our" in text
        assert "as drawn or as released" in text and "is not known" in text
    assert "3.08 %" in texts[3] and not any("3.08" in text for text in texts[:3])
    assert all("our reading" in text for text in texts[1:])


def test_every_network_of_ours_in_the_tables_is_one():
    named = {name for table in paper.TABLES for row in table.rows for name in row.ours}
    assert named == set(SINGLE) and named <= set(NETWORKS)
    assert {NETWORKS[name].input_size for name in named} == {paper.SIZE}
    for table in paper.TABLES:
        for row in table.rows:
            assert list(row.ours) == sorted(row.ours)


@pytest.mark.parametrize("network", SINGLE)
@pytest.mark.parametrize(("number", "crops", "images"), [(2, 1, 48238), (3, 12, 50000), (4, 144, 50000)])
def test_a_result_stands_in_its_row_and_nowhere_else(network, number, crops, images):
    found = ours([result(network, crops=crops, images=images, top1=0.1234)])
    (row,) = (row.network for row in paper.TABLES[number - 2].rows if row.ours == (network,))
    assert found[number - 2] == {row: ("12.34 %", "4.00 %")}
    assert not any(found[: number - 2] + found[number - 1 :])


V4 = "inception_v4"
WHOLE = {"crops": 1, "images": 48238}


@pytest.mark.parametrize(
    "changed",
    [
        {"images": 50000},
        {"images": 48237},
        {"excluded": 0},
        {"excluded": 1761},
        {"crops": 12},
        {"crops": 144},
        {"left_out": ["ILSVRC2012_val_00000001.JPEG (cut off)"]},
        {"data": {"name": "pets", "held_out_split": None, "imagenet": False, "classes": 1000}},
        {"data": {**IMAGENET, "name": "tfds:imagenet2012", "held_out_split": "train[:50000]"}},
        {"data": {**IMAGENET, "name": "tfds:imagenet2012_corrupted/fog_1", "held_out_split": "validation"}},
        {"exclude": {"by_number": False}},
    ],
)
def test_what_measures_something_else_stands_beside_nothing(changed):
    fits = result(V4, **WHOLE)
    assert ours([fits])[0]
    other = {**fits, **changed}
    assert not any(ours([other]))
    assert paper.tables([other, fits])[1] == [other]


@pytest.mark.parametrize("crops", [12, 144])
@pytest.mark.parametrize(
    "changed",
    [{"images": 49999}, {"images": 48238, "excluded": 1762}, {"excluded": 1762}, {"left_out": ["x"]}],
)
def test_several_crops_are_of_the_whole_validation_set(crops, changed):
    assert not any(ours([{**result(V4, crops=crops), **changed}]))


def test_another_network_or_size_stands_beside_nothing():
    assert not any(ours([result("inception_resnet_v1_facenet", **WHOLE)]))
    assert not any(ours([result("my_network", **WHOLE)]))
    small = result(V4, **WHOLE)
    small["networks"][0]["size"] = 160
    assert not any(ours([small]))


@pytest.mark.parametrize(("v2", "name"), zip(V2, ("as drawn", "as released"), strict=True))
def test_an_ensemble_fills_table_5_and_its_members_table_4(v2, name):
    found = ours([result(v2, v2, V4, v2, top1=0.16)])
    assert found == [
        {},
        {},
        {"Inception-v4": ("17.00 %", "4.00 %"), f"Inception-ResNet-v2, {name}": ("17.00 %", "4.00 %")},
        {f"Inception-v4 + 3 x Inception-ResNet-v2, {name}": ("16.00 %", "3.00 %")},
    ]


def test_four_inception_v3_are_an_ensemble_too():
    found = ours([result(*4 * ["inception_v3"], top1=0.16)])
    assert found[3] == {"4 x Inception-v3 [15]": ("16.00 %", "3.00 %")}


@pytest.mark.parametrize(
    "networks",
    [
        3 * ["inception_v3"],
        5 * ["inception_v3"],
        [V4, *2 * [V2[0]]],
        [V4, *4 * [V2[0]]],
        [V4, V4, *2 * [V2[0]]],
        [V4, V2[0], V2[1], V2[1]],
        [V4, *3 * ["inception_resnet_v1"]],
    ],
)
def test_another_ensemble_does_not_fill_table_5(networks):
    found = ours([result(*networks)])
    assert found[2] and not found[3]


@pytest.mark.parametrize("crops", [1, 12])
def test_an_ensemble_of_fewer_crops_does_not_fill_table_5(crops):
    images = 48238 if crops == 1 else 50000
    found = ours([result(*4 * ["inception_v3"], crops=crops, images=images)])
    assert not found[3]
    assert found[0 if crops == 1 else 1] == {"Inception-v3 [15]": ("11.00 %", "4.00 %")}


def test_an_ensemble_with_other_weights_or_sizes_does_not_fill_table_5():
    weighted, small = result(*4 * ["inception_v3"]), result(*4 * ["inception_v3"])
    for member, weight in zip(weighted["networks"], (0.4, 0.2, 0.2, 0.2), strict=True):
        member["weight"] = weight
    small["networks"][3]["size"] = 224
    for each in (weighted, small):
        found = ours([each])
        assert found[2] and not found[3]


def test_of_several_results_for_a_row_the_last_counts():
    first, second = (result(V4, **WHOLE, top1=top1) for top1 in (0.21, 0.22))
    assert ours([first, second])[0] == {"Inception-v4": ("22.00 %", "4.00 %")}
    assert ours([second, first])[0] == {"Inception-v4": ("21.00 %", "4.00 %")}
    assert paper.tables([first, second])[1] == []


def test_results_are_told_that_belong_to_no_row():
    fits, ensemble = result(V4), result(V4, "inception_resnet_v1_facenet")
    digits = result(V4, data={"name": "digits", "imagenet": False, "classes": 10})
    # A member of the ensemble stands in a row of Table 4.
    assert paper.tables([digits, fits, ensemble])[1] == [digits]


@pytest.mark.parametrize("name", ["tfds:imagenet2012", "tfds:imagenet2012:5.1.0", "records"])
def test_the_validation_split_by_its_name(name):
    data = {**IMAGENET, "name": name, "held_out_split": "validation"}
    assert ours([result(V4, data=data)])[2]
