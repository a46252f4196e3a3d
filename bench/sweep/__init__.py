"""From a composed config to points."""
