"""Makes Hydra look into the user's config folders before our own, as all other commands do."""

from hydra.core.config_search_path import ConfigSearchPath
from hydra.core.plugins import Plugins
from hydra.plugins.search_path_plugin import SearchPathPlugin

from bench.sweep.config_dirs import user_dirs
from hydra_plugins.shardbench._configs import store_configs


class UserFolders(SearchPathPlugin):
    """Puts the folders of ``--config-dir`` and ``SHARDBENCH_CONFIG_DIR`` first."""

    def manipulate_search_path(self, search_path: ConfigSearchPath) -> None:
        """Called by Hydra for every search path that it makes."""
        for folder in reversed(user_dirs()):
            search_path.prepend(provider="--config-dir", path=f"file://{folder}")


def use_user_folders() -> None:
    """From now on, every config that Hydra composes in this process is looked up in the user's folders, too.

    And ours are the launchers and sweepers whose names others may have.
    """
    Plugins.instance().register(UserFolders)  # loads all other plugins first
    store_configs()
