"""``shardbench model``: the model of a checkpoint as YAML, for the user's own config folder."""

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any, Final

from bench.cli.args import Key
from bench.cli.values import FilePath
from engines.weights.checkpoint.families import model_of

SUMMARY: Final = "print the model of a checkpoint as YAML, for your own config folder"
VERBS: Final[Mapping[str, str]] = {}
KEYS: Final = (
    Key(
        "checkpoint",
        None,
        "the folder in Hugging Face's layout; only its config.json is read",
        required=True,
        kind=FilePath(),
    ),
    Key("name", None, "name of the model (default: the folder's name)"),
)
EXAMPLES: Final = (
    "shardbench model checkpoint=/data/pythia-1b name=pythia-1b > mine/model/pythia-1b.yaml",
    "shardbench run --config-dir mine model=pythia-1b engine=jax engine.checkpoint=/data/pythia-1b hw=cpu num_chips=1",
)


def main(verb: str | None, settings: Mapping[str, Any]) -> int:
    """Print the model. Returns 0."""
    from omegaconf import OmegaConf

    del verb
    found = model_of(Path(settings["checkpoint"]), settings["name"])
    print(OmegaConf.to_yaml({key: value for key, value in asdict(found).items() if value is not None}), end="")
    return 0
