"""External inference runtimes, each run through its own benchmark program if it is installed."""
