"""Files that are there whole or not at all."""

import contextlib
import os
import tempfile
from pathlib import Path


@contextlib.contextmanager
def written_beside(path):
    """A path in a folder beside `path`, to write to; what lies there in the end is moved, in order of names.

    Args:
        path: of the file to write, or what the names of several begin with; written over.
    """
    path = Path(path)
    with tempfile.TemporaryDirectory(dir=path.parent, prefix=f".{path.name}.") as folder:
        yield Path(folder, path.name)
        for file in sorted(Path(folder).iterdir()):
            os.replace(file, path.with_name(file.name))
