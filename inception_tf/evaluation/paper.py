"""Tables 2 to 5 of arXiv 1602.07261, with our errors beside the paper's where they measure the same."""

import dataclasses
import math

from rich.table import Table

from inception_tf import record
from inception_tf.config import TFDS
from inception_tf.errors import UserError
from inception_tf.evaluation.tables import NUMBERS, console, percent

NOT_RUN = "not run"
SIZE = 299  # pixels, of every network of the paper

V3, V4 = ("inception_v3",), ("inception_v4",)
V1 = ("inception_resnet_v1",)
DRAWN, RELEASED = ("inception_resnet_v2",), ("inception_resnet_v2_slim",)


@dataclasses.dataclass(frozen=True)
class Row:
    """One row of a table of the paper.

    Attributes:
        network: its name there.
        crops: 1, 12 or 144; what else it says there for other people's networks.
        top1: the paper's error in percent; None where it gives none.
        top5: as `top1`.
        ours: the networks of this package that it is about, in order of their names; none for other people's.
    """

    network: str
    crops: int | str
    top1: float | None
    top5: float
    ours: tuple[str, ...] = ()


@dataclasses.dataclass(frozen=True)
class PaperTable:
    """One table of the paper.

    Attributes:
        number: its number there.
        title: what it measures.
        images: how many images of ILSVRC 2012's validation set it is about.
        excluded: how many it leaves out, as blacklisted.
        rows: `Row`s.
        notes: what a reader has to know of it, besides what `V2` says.
    """

    number: int
    title: str
    images: int
    excluded: int
    rows: tuple[Row, ...]
    notes: str = ""


V2 = (
    "Which of the two networks, as drawn or as released, the paper's errors of Inception-ResNet-v2 belong to "
    "is not known; they stand beside both."
)

CROPS_144 = "The sizes of our 144 crops are our reading of [14]."


def _both(crops, top1, top5):
    return (
        Row("Inception-ResNet-v2, as drawn", crops, top1, top5, DRAWN),
        Row("Inception-ResNet-v2, as released", crops, top1, top5, RELEASED),
    )


# Found quoted elsewhere: all of Table 4; Inception-v3 and Inception-v4 of Table 2; the top-1 errors of
# ResNet's 10 crops and of both Inception ensembles; 3.08. The rest is from memory of the paper.
TABLES = (
    PaperTable(
        2,
        "single crop, validation set without the blacklisted",
        48238,
        1762,
        (
            Row("BN-Inception [6]", 1, 25.2, 7.8),
            Row("Inception-v3 [15]", 1, 21.2, 5.6, V3),
            Row("Inception-ResNet-v1", 1, 21.3, 5.5, V1),
            Row("Inception-v4", 1, 20.0, 5.0, V4),
            *_both(1, 19.9, 4.9),
        ),
    ),
    PaperTable(
        3,
        "10 or 12 crops, whole validation set",
        50000,
        0,
        (
            Row("ResNet-151 [5]", 10, 21.4, 5.7),
            Row("Inception-v3 [15]", 12, 19.8, 4.6, V3),
            Row("Inception-ResNet-v1", 12, 19.8, 4.6, V1),
            Row("Inception-v4", 12, 18.7, 4.2, V4),
            *_both(12, 18.7, 4.1),
        ),
        "Which 12 crops the paper takes it does not say; ours are our reading.",
    ),
    PaperTable(
        4,
        "144 crops, whole validation set",
        50000,
        0,
        (
            Row("ResNet-151 [5]", "dense", 19.4, 4.5),
            Row("Inception-v3 [15]", 144, 18.9, 4.3, V3),
            Row("Inception-ResNet-v1", 144, 18.8, 4.3, V1),
            Row("Inception-v4", 144, 17.7, 3.8, V4),
            *_both(144, 17.8, 3.7),
        ),
        CROPS_144,
    ),
    PaperTable(
        5,
        "ensembles, 144 crops, whole validation set",
        50000,
        0,
        (
            Row("ResNet-151 [5], 6 networks", "dense", None, 3.6),
            Row("4 x Inception-v3 [15]", 144, 17.3, 3.6, 4 * V3),
            Row("Inception-v4 + 3 x Inception-ResNet-v2, as drawn", 144, 16.5, 3.1, 3 * DRAWN + V4),
            Row("Inception-v4 + 3 x Inception-ResNet-v2, as released", 144, 16.5, 3.1, 3 * RELEASED + V4),
        ),
        f"{CROPS_144} On the test set the paper's ensemble with Inception-ResNet-v2 has 3.08 % (top-5).",
    ),
)


def read(path):
    """The results of an evaluation, from its results.json.

    Raises:
        UserError: the file cannot be read, or is another's.
    """
    results = record.read_json(path)
    try:
        tables([results])
        _strange(results)
    except (KeyError, TypeError, AttributeError) as error:
        raise UserError(
            f"--results {path} is not that of an evaluation: give results.json of --output."
        ) from error
    return results


def show(results):
    """Prints the paper's tables with our errors, and says which results belong to no row.

    Args:
        results: list of the dicts that evaluations write.
    """
    shown, strangers = tables(results)
    to = console()
    for table in shown:
        to.print(table)
    for result in strangers:
        to.print(_strange(result))


def _strange(result):
    """What is said of a result that belongs to no row."""
    networks = " + ".join(each["network"] for each in result["networks"])
    where = f"{result['images']:,} images of {result['data']['name']}, {result['crops']} crop(s)"
    return f"{networks} on {where}: none of the paper's rows."


def tables(results):
    """The paper's tables with our errors in the rows that they belong to.

    A result belongs to a row if its networks, their size and the crops are the row's, it is of ImageNet's
    1,000 classes and of exactly the table's images, and an ensemble gives its networks equal weights. The
    networks of an ensemble also stand each in their own rows. Of several results for one row the last counts.

    Args:
        results: list of the dicts that evaluations write.

    Returns:
        the `rich.table.Table`s in the paper's order, and a list of those of `results` that belong to no row.
    """
    ours, strangers = {}, []
    for result in results:
        belongs = [
            ((table.number, row), errors)
            for table in TABLES
            for row in table.rows
            for networks, errors in _measured(result)
            if networks == row.ours and _is_like(result, table, row)
        ]
        ours.update(belongs)
        if not belongs:
            strangers.append(result)
    return [_shown(table, ours) for table in TABLES], strangers


def _measured(result):
    """Names of networks, and a dict with their errors: each network by itself, then the ensemble."""
    networks = result["networks"]
    for each in networks:
        if each["size"] == SIZE:
            yield (each["network"],), each
    if len(networks) > 1 and all(
        each["size"] == SIZE and math.isclose(each["weight"], 1 / len(networks)) for each in networks
    ):
        yield tuple(sorted(each["network"] for each in networks)), result


def _is_like(result, table, row):
    return (
        result["crops"] == row.crops
        and result["data"]["imagenet"]
        and _is_validation_set(result["data"])
        and (result["images"], result["excluded"]) == (table.images, table.excluded)
        and (result["exclude"] is None or result["exclude"]["by_number"])
        and not result["left_out"]
    )


def _is_validation_set(data):
    """Whether data of ImageNet's classes may be its validation images, and no other version or split."""
    other = data["name"].startswith(TFDS) and data["name"].split(":")[1] != "imagenet2012"
    return not other and data["held_out_split"] in (None, "validation")


def _shown(table, ours):
    shown = Table(
        title=f"Table {table.number}: {table.title} ({table.images:,} images)",
        caption=" ".join(filter(None, (V2, table.notes))),
    )
    shown.add_column("Network")
    for heading in ("Crops", "Paper's\ntop-1", "Paper's\ntop-5", "Our\ntop-1", "Our\ntop-5"):
        shown.add_column(heading, **NUMBERS)
    for row in table.rows:
        paper = ("-" if error is None else f"{error:.1f} %" for error in (row.top1, row.top5))
        errors = ours.get((table.number, row))
        run = (NOT_RUN,) * 2 if errors is None else (percent(errors[f"top{k}_error"]) for k in (1, 5))
        name = row.network if row.ours else f"{row.network}, the paper's only"
        shown.add_row(name, str(row.crops), *paper, *run)
    return shown
