"""``shardbench model``: the models of checkpoints as YAML, for the user's own config folder."""

import shlex
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from bench.cli.args import Key
from bench.cli.values import FilePath, ListOf
from engines.core.errors import InvalidRequest

SUMMARY: Final = "write the model of a checkpoint into your own config folder, or print it as YAML"
VERBS: Final[Mapping[str, str]] = {}
KEYS: Final = (
    Key(
        "checkpoint",
        None,
        "the folder in Hugging Face's layout, its config.json, or a list of these; no weight is read",
        required=True,
        kind=ListOf(FilePath()),
    ),
    Key("name", None, "name of the model (default: the folder's name)"),
    Key(
        "out",
        None,
        "the config folder to write to (default: that of --config-dir; without one, print the model)",
        kind=FilePath(),
    ),
)
EXAMPLES: Final = (
    "shardbench model checkpoint=/data/pythia-1b out=mine",
    "shardbench run --config-dir mine model=pythia-1b engine=jax engine.checkpoint=/data/pythia-1b hw=cpu num_chips=1",
    "shardbench model checkpoint=[/data/pythia-1b,/data/Qwen2.5-7B/config.json] out=mine",
)


def main(verb: str | None, settings: Mapping[str, Any]) -> int:
    """Write or print the models. Returns 0.

    Raises:
        InvalidRequest: a checkpoint is of no supported model, or a name is taken; nothing is written then.
    """
    from bench.sweep.config_dirs import user_dirs
    from bench.sweep.model_files import check_names, model_yaml, named_model, write_models

    del verb
    paths = [Path(each) for each in settings["checkpoint"]]
    name = settings["name"]
    if name is not None and len(paths) > 1:
        raise InvalidRequest("name", name, f"is one name for {len(paths)} checkpoints", "leave it out, or give one")
    found = [named_model(path, name) for path in paths]
    check_names(found)
    for each in found:
        for note in each.notes:
            print(f"{each.model.name}: {note}", file=sys.stderr)
    folder = Path(settings["out"]) if settings["out"] is not None else next(iter(user_dirs()), None)
    if folder is None:
        if len(found) > 1:
            raise InvalidRequest("checkpoint", paths, "are several models, each of a file of its own", "add out=FOLDER")
        print(model_yaml(found[0].model), end="")
        return 0
    for each, path in zip(found, write_models(found, folder), strict=True):
        print(
            f"{each.model.name}: {path}" if path else f"{each.model.name}: one of shardbench's own, no file is needed"
        )
        words = ["shardbench", "run", "--config-dir", str(folder), f"model={each.model.name}", *each.smallest_slice]
        print(f"  {shlex.join(words)}")
    return 0
