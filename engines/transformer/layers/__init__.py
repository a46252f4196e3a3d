"""The layers of the Transformer and the state that they read: positions, masks and the cache."""
