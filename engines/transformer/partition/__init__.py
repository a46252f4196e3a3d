"""How a model is partitioned: which mesh axes split what, which heads a chip holds, how communication overlaps."""
