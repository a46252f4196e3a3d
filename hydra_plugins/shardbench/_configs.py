"""The choices of ``hydra/launcher`` and ``hydra/sweeper`` that this package has: one YAML file each."""

from pathlib import Path
from typing import Final

from hydra.core.config_store import ConfigStore
from omegaconf import OmegaConf

GROUPS: Final = {
    "ray": "launcher",
    "submitit_local": "launcher",
    "submitit_slurm": "launcher",
    "optuna": "sweeper",
}
"""Name of a choice, and of its file → its group."""
PROVIDER: Final = "shardbench"


def store_configs() -> None:
    """Let Hydra compose our choices, in place of those that a plugin from PyPI may have under the same names.

    They are kept in Hydra's own store: a file of the same name in ``conf/`` would be merged into the plugin's. Where
    the store has ours, nothing is read: it takes Hydra a fifth of the time of composing a config.
    """
    store = ConfigStore.instance()
    for name, group in GROUPS.items():
        stored = store.repo.get("hydra", {}).get(group, {}).get(f"{name}.yaml")
        if stored is None or stored.provider != PROVIDER:
            content = OmegaConf.load(Path(__file__).with_name(f"{name}.yaml"))
            store.store(group=f"hydra/{group}", name=name, node=content, provider=PROVIDER)
