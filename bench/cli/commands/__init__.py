"""One module per subcommand of ``shardbench``: its keys, its help, its ``main``."""
