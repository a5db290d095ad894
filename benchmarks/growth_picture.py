"""The picture of training_growth.py: seconds and memory of a step, and the roofline."""

from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullFormatter, StrMethodFormatter

COLOURS = {"float32": "#5b83a8", "mixed_bfloat16": "#b3401f"}
MARKERS = {"batch": "o", "size": "s", "width": "^"}
AXES = {"batch": "Batch (images)", "size": "Image size (px)", "width": "Width multiplier"}
HOLLOW = {"markerfacecolor": "none", "linestyle": "none"}
QUANTITIES = {"seconds": "Seconds a step", "gigabytes": "Peak memory (GB)"}


def draw(record, path):
    """Draws what training_growth.py measured.

    Args:
        record: its JSON file.
        path: the picture to write.
    """
    figure = Figure(figsize=(15, 6.6), layout="constrained")
    mosaic = [[f"{quantity} {axis}" for axis in AXES] + ["roofline"] * 2 for quantity in QUANTITIES]
    panels = figure.subplot_mosaic(mosaic)
    for quantity, label in QUANTITIES.items():
        for axis in AXES:
            draw_growth(panels[f"{quantity} {axis}"], record, axis, quantity)
        panels[f"{quantity} batch"].set_ylabel(label)
    panels["seconds batch"].legend(frameon=False, fontsize="small")
    draw_roofline(panels["roofline"], record)
    base = record["base"]
    figure.suptitle(
        f"A training step of {record['network']} on {record['threads']} threads of {record['cpu']['name']}: "
        f"batch {base['batch']}, {base['size']} px, width {base['width']:g}, where nothing else is said"
    )
    figure.savefig(path, dpi=110)


def along(record, axis, policy):
    """The points that differ from the base along an axis alone, in its order."""
    others = {name: value for name, value in record["base"].items() if name != axis} | {"policy": policy}
    found = [point for point in record["points"] if "seconds" in point and others.items() <= point.items()]
    return sorted(found, key=lambda point: point[axis])


def draw_growth(panel, record, axis, quantity):
    ticks = set()
    for policy, colour in COLOURS.items():
        points = along(record, axis, policy)
        places = [point[axis] for point in points]
        ticks.update(places)
        panel.plot(
            places, [point[quantity] for point in points], color=colour, marker=MARKERS[axis], label=policy
        )
        for base in points:
            if quantity == "seconds" and base[axis] == record["base"][axis]:
                by_flops = [base["seconds"] * point["flops"] / base["flops"] for point in points]
                panel.plot(places, by_flops, color=colour, linestyle=":", label="as its flops")
    panel.set(xscale="log", xlabel=AXES[axis])
    panel.set_xticks(sorted(ticks))
    if quantity == "seconds":
        panel.set_yscale("log")
        panel.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    else:
        panel.set_ylim(0, None)
    plain_numbers(panel)


def plain_numbers(panel):
    for scale in (panel.xaxis, panel.yaxis):
        scale.set_major_formatter(StrMethodFormatter("{x:g}"))
        scale.set_minor_formatter(NullFormatter())
    panel.grid(alpha=0.3)


def draw_roofline(panel, record):
    rates = record["rates"]
    intensities = [point["flops"] / point["bytes"] for point in record["points"]]
    for policy, colour in COLOURS.items():
        flops = rates["flops"][policy]
        ridge = flops / rates["bytes"]
        places = [min(ridge, *intensities) / 4, ridge, 2 * max(ridge, *intensities)]
        roof = [min(flops, rates["bytes"] * place) / 1e9 for place in places]
        panel.plot(places, roof, color=colour, label=f"{policy}, products: {flops / 1e9:,.0f} Gflop/s")
        for axis, marker in MARKERS.items():
            points = along(record, axis, policy)
            panel.plot(
                [point["flops"] / point["bytes"] for point in points],
                [point["flops"] / point["seconds"] / 1e9 for point in points],
                **HOLLOW,
                color=colour,
                marker=marker,
            )
    for axis, marker in MARKERS.items():
        panel.plot([], [], **HOLLOW, color="0.4", marker=marker, label=f"steps by {axis}")
    panel.set(
        xscale="log",
        yscale="log",
        xlabel="Flops a byte, by the plain count",
        ylabel="Gflop/s",
        title=f"Roofline, copies: {rates['bytes'] / 1e9:.0f} GB/s",
    )
    panel.set_ylim(None, 4 * max(rates["flops"].values()) / 1e9)  # room for the legend
    for scale in (panel.xaxis, panel.yaxis):
        scale.set_major_locator(LogLocator(subs=(1, 2, 5)))
    plain_numbers(panel)
    panel.legend(frameon=False, loc="upper left")
