"""How to read the checkpoints of each family: one module a family; ``registry`` lists them by ``model_type``."""
