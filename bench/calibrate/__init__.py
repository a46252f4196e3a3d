"""Constants of a chip and a runtime from measured rows."""
