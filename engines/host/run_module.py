"""Runs a module of these packages as a script: ``python -P run_module.py ROOT MODULE [ARGUMENT ...]``.

``python -m`` puts the current folder first on the path, where the user's own ``json.py`` or ``bench/`` would be found
before the library's. Here the packages are those in ``ROOT``, wherever the process starts, and ``ROOT`` itself is not
on the path: what else lies there (a whole ``site-packages``) keeps its place behind the standard library.
"""

import runpy
import sys
from importlib.machinery import PathFinder
from importlib.util import module_from_spec

PACKAGES = ("engines", "bench")


def main(words: list[str]) -> None:
    """Run ``words[1]`` with the arguments after it, with the packages in the folder ``words[0]``."""
    root, module, *arguments = words
    for name in PACKAGES:
        spec = PathFinder.find_spec(name, [root])
        if spec is not None and spec.loader is not None:
            package = sys.modules[name] = module_from_spec(spec)
            spec.loader.exec_module(package)
    sys.argv = [module, *arguments]
    runpy.run_module(module, run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main(sys.argv[1:])
