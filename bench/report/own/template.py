"""A report from a Jinja template of the user's own: rows, pivot tables and figures, and nothing that can do harm."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from bench.report.own.figure import scatter
from bench.report.own.pivot import KEYS, Question, chosen, conditions, pivot
from bench.report.render import latex, style
from bench.report.render.blocks import Image, page
from bench.report.render.html import body
from bench.rows.escape import file_name, markdown
from bench.rows.metrics import METRICS
from bench.rows.table import Column, Table, to_markdown
from engines.core.errors import InvalidRequest, ShardbenchError
from engines.core.row import Row

if TYPE_CHECKING:
    from bench.report.render.style import Drawn

SUFFIX: Final = ".j2"
ENDINGS: Final = (".md", ".html", ".tex", ".csv", ".txt")
"""What a template may make; its values are escaped as that format needs it."""
NEEDS: Final = "reports of your own need Jinja: pip install shardbench[report]"
LONGEST: Final = 10_000_000
"""Characters of a report."""


class Made:
    """What a template makes: its text, and the figures that it drew."""

    def __init__(self, path: Path, rows: Sequence[Row], endings: Sequence[str]) -> None:
        """Read a template ``NAME.ENDING.j2``; ``endings`` are those of figures, none where none are wanted.

        Raises:
            InvalidRequest: it is not such a file, or not a template.
            ShardbenchError: Jinja is not installed.
        """
        self.name = path.name.removesuffix(SUFFIX)
        self.ending = Path(self.name).suffix
        if not path.name.endswith(SUFFIX) or self.ending not in ENDINGS:
            remedy = f"call it NAME{ENDINGS[0]}{SUFFIX} (or {', '.join(ENDINGS[1:])} in place of {ENDINGS[0]})"
            raise InvalidRequest("template", str(path), "is no name of a template", remedy)
        try:
            self._source = path.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            reason = error.strerror if isinstance(error, OSError) else "is not UTF-8"
            raise InvalidRequest("template", str(path), str(reason), "give a text file") from None
        self._path = path
        self._rows = tuple(rows)
        self._endings = tuple(endings)
        self.drawn: list[Drawn] = []

    def text(self) -> str:
        """The report. ``drawn`` has the figures that it shows, as ``figures/NAME.ENDING`` beside it.

        Raises:
            InvalidRequest: the template is wrong: names its line.
        """
        try:
            import jinja2
            from jinja2.sandbox import ImmutableSandboxedEnvironment
        except ImportError:
            raise ShardbenchError(NEEDS) from None
        plain = self.ending != ".html"
        environment = ImmutableSandboxedEnvironment(
            undefined=jinja2.StrictUndefined,
            autoescape=not plain,
            finalize=self._escaped if plain else None,
            keep_trailing_newline=True,
            trim_blocks=True,
            lstrip_blocks=True,
        )
        environment.filters |= {"shown": self._shown}
        try:
            made = environment.from_string(self._source).render(self._offered())
        except jinja2.TemplateSyntaxError as error:
            raise self._wrong(error.lineno, str(error.message)) from None
        except ShardbenchError as error:
            raise self._wrong(_line(error), str(error)) from None
        except (jinja2.TemplateError, TypeError, ValueError, ArithmeticError, LookupError, AttributeError) as error:
            raise self._wrong(_line(error), f"{error}" or type(error).__name__) from None
        except (RecursionError, MemoryError, OverflowError) as error:
            raise self._wrong(_line(error), f"asks for too much ({type(error).__name__})") from None
        if len(made) > LONGEST:
            raise self._wrong(None, f"makes {len(made):,} characters, more than {LONGEST:,}")
        return made

    def _wrong(self, line: int | None, what: str) -> InvalidRequest:
        where = f"{self._path}" if line is None else f"{self._path}, line {line}"
        return InvalidRequest("template", where, f"is wrong: {what}", "see docs/how-to/report.md for what it may use")

    def _offered(self) -> Mapping[str, Callable[..., Any] | tuple[Row, ...]]:
        """What a template may use."""
        return {
            "rows": self._rows,
            "where": self._where,
            "pivot": self._pivot,
            "table": self._table,
            "figure": self._figure,
        }

    def _where(self, **keys: Any) -> tuple[Row, ...]:
        """The rows that have these values: ``where(phase="decode", hw=["h200", "tpu-v5e"])``."""
        return self._chosen(keys)

    def _chosen(self, where: Any) -> tuple[Row, ...]:
        return self._rows if where is None else tuple(chosen(self._rows, _values(where)))

    def _pivot(self, rows: Any, columns: Any = (), value: str = "latency_s", where: Any = None,
               aggregate: str | None = None) -> Any:  # fmt: skip
        """A pivot table, by the rules of ``shardbench report pivot``."""
        question = Question(
            rows=_list(rows), columns=_list(columns), value=value, where=_values(where or {}), aggregate=aggregate
        )
        return self._of_table(pivot(self._rows, question))

    def _table(self, keys: Any, rows: Sequence[Row] | None = None, caption: str = "Rows") -> Any:
        """One line a row, with these keys; ``source`` is always one of them."""
        wanted = [*_list(keys), *(() if "source" in _list(keys) else ("source",))]
        for key in wanted:
            if key not in KEYS:
                raise InvalidRequest("keys", key, "is not known", f"use keys of a row: {', '.join(KEYS[:12])}, …")
        lines = [{key: getattr(row, key) for key in wanted} for row in (self._rows if rows is None else rows)]
        return self._of_table(Table(name="rows", caption=caption, columns=list(map(Column, wanted)), rows=lines))

    def _figure(self, x: str, y: str, colour: str | None = None, where: Any = None, name: str | None = None,
                caption: str = "", lines: bool = False, scale: str = "log") -> Any:  # fmt: skip
        """A figure of ``y`` over ``x``: :func:`scatter`."""
        called = file_name(name or f"{y}-over-{x}-{len(self.drawn) + 1}".lower().replace("_", "-"))
        if any(each.name == called for each in self.drawn):
            raise InvalidRequest("name", called, "is the name of another figure", "give each figure a name of its own")
        if not self._endings:
            return self._ready("")
        with style.settings():
            drawn = scatter(self._chosen(where), x, y, colour, name=called, caption=caption, lines=lines, scale=scale)
        self.drawn.append(drawn)
        image = Image(called, drawn.caption, [f"figures/{called}.{ending}" for ending in self._endings])
        if self.ending == ".tex":
            file = image.file("pdf", "png")
            return self._ready(
                f"\\includegraphics[width=\\linewidth]{{{file}}}\n\n{latex.escape(drawn.caption)}" if file else ""
            )
        text = page([image])
        return self._ready(body(text) if self.ending == ".html" else text)

    def _of_table(self, table: Table) -> Any:
        if self.ending == ".tex":
            return self._ready(latex.to_latex(table))
        text = to_markdown(table)
        return self._ready(body(text) if self.ending == ".html" else text)

    def _ready(self, text: str) -> Any:
        """Text that is not escaped again."""
        from markupsafe import Markup

        return Markup(text)

    def _escaped(self, value: Any) -> Any:
        """A value as this format shows it; what is ready, or marked ``safe``, stays."""
        from markupsafe import Markup

        text = str(value)  # of an undefined value, an error
        if isinstance(value, Markup) or self.ending in (".csv", ".txt"):
            return text
        return latex.escape(text) if self.ending == ".tex" else markdown(text)

    def _shown(self, value: float | None, key: str) -> str:
        """``{{ row.mfu | shown("mfu") }}``: a metric as tables print it, scaled as its heading says."""
        if key not in METRICS:
            raise InvalidRequest("shown", key, "is no metric", f"use one of {', '.join(METRICS)}")
        return METRICS[key].show(value)


def _list(keys: Any) -> list[str]:
    return [keys] if isinstance(keys, str) else [str(each) for each in keys]


def _values(where: Any) -> dict[str, list[str]]:
    """``{"hw": ["h200", "b200"], "batch_size": 8}``, or ``["hw=h200"]``, as texts."""
    found = (
        {key: [str(each) for each in (values if isinstance(values, (list, tuple)) else [values])]
         for key, values in where.items()}
        if isinstance(where, Mapping)
        else conditions(_list(where))
    )  # fmt: skip
    unknown = [key for key in found if key not in KEYS]
    if unknown:
        raise InvalidRequest("where", unknown[0], "is no key of a row", f"use one of {', '.join(KEYS[:12])}, …")
    return found


def _line(error: BaseException) -> int | None:
    """The line of the template at which it happened."""
    line = None
    trace = error.__traceback__
    while trace is not None:
        if trace.tb_frame.f_code.co_filename == "<template>":
            line = trace.tb_lineno
        trace = trace.tb_next
    return line
