"""What the scripts here share: writing files whole or not at all, and failing in one sentence."""

import hashlib
import os
import sys
import tempfile
from pathlib import Path


def fail(sentence):
    """Ends the program with status 1 and one sentence on standard error."""
    sys.exit(f"error: {sentence}")


def write_atomically(path, data):
    """Writes `data` to `path` through a temporary file beside it, so that no reader sees a part."""
    path = Path(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, partial = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
        try:
            with os.fdopen(handle, "wb") as file:
                file.write(data)
            os.chmod(partial, 0o644)
            os.replace(partial, path)
        except BaseException:
            os.unlink(partial)
            raise
    except OSError as error:
        fail(f"cannot write {path}: {error.strerror}")


def write_and_report(path, data):
    """Writes `data` to `path` and prints the path, the size and the SHA-256 of what it wrote."""
    write_atomically(path, data)
    print(f"{path}  {len(data)} bytes  sha256 {hashlib.sha256(data).hexdigest()}")
