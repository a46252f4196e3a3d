"""How tokens are decided: a token a step, with exits, or several a turn."""
