"""A choice as shardings that a compiler can be told: roles as ordered axes."""

from engines.analytic.alpa.graph import Choice
from engines.analytic.alpa.roles import having, roles_of
from engines.core.model import Model
from engines.core.shardings import Shardings, projections
from engines.core.slice import MeshShape

BATCH_ORDER, COLUMN_ORDER = "xyz", "zyx"


def shardings_of(model: Model, mesh: MeshShape, choice: Choice) -> Shardings:
    """The shardings of a choice; axes of one chip split nothing.

    Axes that stay where they are between two operators come first, as slowest: a collective over the others then moves
    whole blocks.
    """
    real = {axis for axis, size in zip("xyz", mesh, strict=True) if size > 1}

    def axes(name: str, letters: str, *before: str) -> str:
        mine = [axis for axis in having(choice[name], letters) if axis in real]
        ranks = [*"".join(before), *COLUMN_ORDER]
        return "".join(sorted(mine, key=ranks.index))

    def tokens(name: str, *before: str) -> str:
        mine = [axis for axis in having(choice[name], "t") if axis in real]
        return "".join(sorted(mine, key=[*"".join(before), *BATCH_ORDER].index))

    first, last = projections(model)[0], projections(model)[-1]
    attended = axes(f"{first}.in", "n"), axes(f"{first}.out", "k")
    cuts = {
        "attention": (
            tokens("attention", tokens(f"{first}.columns"), tokens(f"{first}.joined")),
            axes("attention", "c", *attended),
        ),
        "residual": (tokens("residual"), axes("residual", "c", axes(f"{last}.out", "n"), axes(f"{first}.in", "k"))),
        "table": (axes("table", "k"), axes("table", "n")),
    }
    if model.block == "serial":
        order = axes("attn.out", "n"), axes("ffn.in", "k")
        cuts["middle"] = (tokens("middle"), axes("middle", "c", *order))
    for name in projections(model):
        into, out = axes(f"{name}.in", "n"), axes(f"{name}.out", "k")
        cuts[f"{name}.columns"] = (tokens(f"{name}.columns"), axes(f"{name}.columns", "c", into, out))
        if name != "ffn":
            cuts[f"{name}.joined"] = (tokens(f"{name}.joined"), axes(f"{name}.joined", "c", out, into))
        for side in ("in", "out"):
            matmul = f"{name}.{side}"
            cuts[matmul] = (tokens(matmul), axes(matmul, "k"), axes(matmul, "n"))  # type: ignore[assignment]
            stored = f"{matmul}.weights"
            cuts[stored] = (axes(stored, "k", axes(matmul, "k")), axes(stored, "n", axes(matmul, "n")))
    return Shardings.of(cuts)


def choice_of_shardings(shardings: Shardings) -> Choice:
    """The choice that shardings are: the inverse of :func:`shardings_of`."""
    letters = {2: "tc", 3: "tkn"}
    found = {}
    for name, dims in shardings.cuts:
        matrix = name == "table" or name.endswith(".weights")
        found[name] = roles_of(dict(zip("kn" if matrix else letters[len(dims)], dims, strict=True)))
    return found
