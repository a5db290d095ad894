"""From values to a page: one file, which asks nobody for anything."""

import jinja2

from inception_tf import __version__
from inception_tf.files import written_beside
from inception_tf.report import curves

PAGES = jinja2.Environment(
    loader=jinja2.PackageLoader("inception_tf.report"),
    autoescape=True,
    undefined=jinja2.StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
)


def write(path, template, **values):
    """Fills a template and writes the page beside `path`, which it then becomes."""
    page = PAGES.get_template(template).render(version=__version__, **values)
    with written_beside(path) as beside:
        beside.write_text(page, encoding="utf-8")


def chart(name, lines, **keywords):
    """What a page shows of `curves.chart`: a dict, or None where there is nothing to draw."""
    svg = curves.chart(name, lines, **keywords)
    return svg and {"name": name, "svg": svg}


def plain(value):
    """A value of a record as a reader takes it."""
    if value is None or value == "":
        return "–"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:g}"
    if isinstance(value, list | tuple):
        return ", ".join(map(plain, value))
    return str(value)
