"""The programs of a ``function=module:name``: imported, and called if it makes them."""

import difflib
import importlib
import inspect
import sys
import traceback
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from bench.programs.question import Question
from engines.core.errors import InvalidRequest, ShardbenchError
from engines.core.text import sentence

if TYPE_CHECKING:
    from jax.sharding import Mesh

CONTRACT: Final = (
    "return (function, arguments), or (function, arguments, keywords); a list of these for a step of several programs, "
    "a mapping of names to these for several rows"
)
MOST_PARTS: Final = 3


@dataclass(frozen=True, kw_only=True)
class Call:
    """A function and what it is called with. ``in_shardings`` are those typed for its arguments."""

    function: Any
    arguments: Sequence[Any]
    keywords: Mapping[str, Any]
    in_shardings: Any = None


def calls_of(question: Question, mesh: "Mesh") -> dict[str, list[Call]]:
    """Name → the calls of one step. With ``arguments`` the function itself, without them what the factory returns.

    A factory is called with ``settings`` as keywords, and with ``mesh`` if it has a parameter of that name.

    Raises:
        InvalidRequest: there is no such module or name, it takes no such settings, or it returns something else.
        ShardbenchError: it raises.
    """
    assert question.function is not None
    found = _imported(question.function, question.path)
    name = question.called
    if question.arguments is not None:
        shapes = tuple(each.abstract() for each in question.arguments)
        specs = tuple(each.spec() for each in question.arguments)
        typed = Call(function=found, arguments=shapes, keywords=dict(question.settings), in_shardings=specs)
        return {name: [typed]}
    made = _made(question.function, found, question.settings, mesh)
    if isinstance(made, Mapping):
        return {f"{name}.{key}": _step(question.function, value) for key, value in made.items()}
    return {name: _step(question.function, made)}


def _imported(text: str, path: Sequence[str]) -> Any:
    module, colon, name = text.partition(":")
    if not colon or not module or not name:
        raise InvalidRequest("function", text, "must be module:name", "write it like function=train:step")
    if module.endswith(".py") or "/" in module:
        raise InvalidRequest("function", text, "names a file", f"name the module: {Path(module).stem}:{name}")
    sys.path[:0] = [str(Path(each).absolute()) for each in path]
    sys.path.append(str(Path.cwd()))  # last, so that a user's jax.py or bench/ is not taken for the library
    try:
        found: Any = importlib.import_module(module)
    except ModuleNotFoundError as error:
        known = module == error.name or module.startswith(f"{error.name}.")
        problem = "there is no such module" if known else f"importing it needs {error.name}, which is not installed"
        remedy = "run in its folder, or add path=FOLDER" if known else "install it beside shardbench"
        raise InvalidRequest("function", text, problem, remedy) from None
    except Exception as error:
        raise ShardbenchError(f"function={text}: importing {module} fails{_at(error)}: {_reason(error)}") from error
    for part in name.split("."):
        if not hasattr(found, part):
            public = [each for each in vars(found) if not each.startswith("_") and callable(getattr(found, each))]
            near = difflib.get_close_matches(part, public, n=3)
            remedy = f"use {' or '.join(near)}" if near else f"it has {', '.join(public[:10]) or 'no functions'}"
            raise InvalidRequest("function", text, f"there is no {part}", remedy)
        found = getattr(found, part)
    return found


def _made(text: str, factory: Any, settings: Mapping[str, Any], mesh: "Mesh") -> Any:
    if not callable(factory):
        raise InvalidRequest("function", text, "is not a function", CONTRACT)
    given = dict(settings)
    try:
        parameters = inspect.signature(factory).parameters
        if "mesh" in parameters and "mesh" not in given:
            given["mesh"] = mesh
        inspect.signature(factory).bind(**given)
    except TypeError as error:
        remedy = (
            "give the shapes of a function as arguments=[bf16[8,128],…], those of a factory as settings=[key=value,…]"
        )
        raise InvalidRequest("function", text, f"cannot be called without arguments ({error})", remedy) from None
    try:
        return factory(**given)
    except ShardbenchError:
        raise
    except Exception as error:
        raise ShardbenchError(f"function={text}: fails{_at(error)}: {_reason(error)}") from error


def _step(text: str, made: Any) -> list[Call]:
    programs = made if isinstance(made, list) else [made]
    return [_call(text, each) for each in programs]


def _call(text: str, made: Any) -> Call:
    if isinstance(made, tuple) and 2 <= len(made) <= MOST_PARTS and callable(made[0]):
        function, arguments, *rest = made
        if isinstance(arguments, (tuple, list)) and all(isinstance(each, Mapping) for each in rest):
            return Call(function=function, arguments=tuple(arguments), keywords=dict(rest[0]) if rest else {})
    raise InvalidRequest("function", text, f"returned {_shown(made)}", CONTRACT)


def _shown(made: Any) -> str:
    if isinstance(made, tuple):
        return f"({', '.join(type(each).__name__ for each in made[:4])})"
    return f"a {type(made).__name__}"


def _reason(error: BaseException) -> str:
    return sentence(f"{type(error).__name__}: {error}")


def _at(error: BaseException) -> str:
    """`` at FILE:LINE`` of the user's innermost frame."""
    own = str(Path(__file__).parents[2])
    frames = [each for each in traceback.extract_tb(error.__traceback__) if not each.filename.startswith("<")]
    frames = [each for each in frames if not each.filename.startswith((own, str(Path(importlib.__file__).parent)))]
    return f" at {frames[-1].filename}:{frames[-1].lineno}" if frames else ""
