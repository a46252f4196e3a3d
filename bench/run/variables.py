"""Variables of this process's environment that are set for a while."""

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any


@contextmanager
def variables_set(variables: Mapping[str, Any]) -> Iterator[None]:
    """Set them, each as text, and in the end put back what was there before."""
    before = {name: os.environ.get(name) for name in variables}
    os.environ.update({str(name): str(value) for name, value in variables.items()})
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value
