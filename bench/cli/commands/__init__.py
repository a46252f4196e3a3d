"""One module a subcommand of ``shardbench``: its keys, its help, its ``main``."""
