"""``shardbench model``: the model of a checkpoint, as a file for a config folder of the user's own."""

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any, Final

from bench.cli.args import Key
from engines.weights.checkpoint.families import model_of

SUMMARY: Final = "print a checkpoint's model as YAML, for a config folder of your own"
VERBS: Final[Mapping[str, str]] = {}
KEYS: Final = (
    Key(
        "checkpoint",
        None,
        "the folder, in Hugging Face's layout: its config.json is read, its weights are not",
        required=True,
    ),
    Key("name", None, "what to call the model; the folder's name where left out"),
)
EXAMPLES: Final = (
    "shardbench model checkpoint=/data/pythia-1b name=pythia-1b > mine/model/pythia-1b.yaml",
    "shardbench run --config-dir mine model=pythia-1b engine=jax engine.checkpoint=/data/pythia-1b hw=cpu num_chips=1",
)


def main(verb: str | None, settings: Mapping[str, Any]) -> int:
    """Print it. Returns 0."""
    from omegaconf import OmegaConf

    del verb
    name = settings["name"]
    found = model_of(Path(str(settings["checkpoint"])).expanduser(), None if name is None else str(name))
    print(OmegaConf.to_yaml({key: value for key, value in asdict(found).items() if value is not None}), end="")
    return 0
