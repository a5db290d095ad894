"""What `tpu-check` says: as a record for JSON, and as text."""

import dataclasses

from inception_tf.recipes import recipe_of
from inception_tf.tpu_check.chips import CHIPS, GIB


def record(config, verdict):
    """A `TpuCheckConfig`, with nothing left open, and a `Verdict` on a batch of it: a dict fit for JSON.

    `bound` is `compute` or `memory`. What the compiler does not say of a step that does not fit is None.
    """
    epochs = recipe_of(config.recipe, config.model).epochs
    asked = dataclasses.asdict(config)
    return {
        **{key: value for key, value in asked.items() if key not in ("find_batch", "json")},
        "batch": verdict.batch,
        "fits": verdict.fits,
        "hbm_bytes": verdict.hbm_bytes,
        "hbm_limit_bytes": round(verdict.chip.usable),
        "argument_bytes": verdict.argument_bytes,
        "temp_bytes": verdict.temp_bytes,
        "code_bytes": verdict.code_bytes,
        "flops": verdict.flops,
        "bytes_accessed": verdict.bytes_accessed,
        "hbm_traffic_bytes": verdict.hbm_traffic_bytes,
        "bound": verdict.bound,
        "images_per_second_bound": verdict.images_per_second_bound,
        "epochs": epochs,
        "hours_bound": verdict.hours_bound(epochs),
    }


def text(found):
    """The lines that say what `check.check` found."""
    lines = _of_batch(found)
    if "largest" in found:
        largest = found["largest"]
        if largest is None:
            lines.append("Largest batch that fits: none.")
        else:
            lines += [f"Largest batch that fits: {largest['batch']}.", *_of_batch(largest)]
    lines.append(
        f"By the compiler of libtpu {found['libtpu']} and the chip's public figures; no TPU was run."
    )
    return "\n".join(lines)


def _of_batch(found):
    chip = CHIPS[found["chip"]]
    how = [found["policy"], f"recipe {found['recipe']}"]
    if found["rematerialize"]:
        how.append("rematerialized")
    answer = "fits" if found["fits"] else "does not fit"
    lines = [
        f"{found['model']}, {found['size']} px, batch {found['batch']}, {', '.join(how)}, on one "
        f"{chip.name}: {answer}."
    ]
    limit = f"of {chip.usable / GIB:.2f} GiB"
    if found["flops"] is None:
        wanted = found["hbm_bytes"]
        taken = "more than there is" if wanted is None else f"at least {wanted / GIB:.2f}"
        return [*lines, _line("HBM", f"{taken} {limit}")]
    parts = ", ".join(
        f"{name} {found[key] / GIB:.2f}"
        for name, key in (
            ("arguments", "argument_bytes"),
            ("temporaries", "temp_bytes"),
            ("code", "code_bytes"),
        )
    )
    lines.append(_line("HBM", f"{found['hbm_bytes'] / GIB:.2f} {limit}: {parts}"))
    flops, moved = found["flops"], found["hbm_traffic_bytes"]
    lines += [
        _line(
            "Compute",
            f"{flops / 1e12:.3g} Tflop a step, {1e3 * flops / chip.flops:.1f} ms at "
            f"{chip.flops / 1e12:g} Tflop/s",
        ),
        _line(
            "Traffic",
            f"{moved / 1e9:.3g} GB a step, {1e3 * moved / chip.bandwidth:.1f} ms at "
            f"{chip.bandwidth / 1e9:,.0f} GB/s",
        ),
    ]
    if found["fits"]:
        lines.append(
            _line(
                "Bound",
                f"at most {found['images_per_second_bound']:,.0f} images/s, by {found['bound']}; "
                f"{found['epochs']} epochs of ImageNet in at least {found['hours_bound']:,.1f} hours",
            )
        )
    return lines


def _line(title, said):
    return f"{title:8}{said}"
