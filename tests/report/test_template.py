"""Reports from templates of the user's own: what they may use, that rows stay text, and what is refused."""

import re
import shutil
import subprocess
from pathlib import Path

import pytest
from builders.rows import a_row
from hypothesis import given, settings
from hypothesis import strategies as st
from markdown_it import MarkdownIt

from bench.cli.main import main
from bench.report.own.template import Made
from bench.rows.store import Store
from engines.core.errors import InvalidRequest

ROOT = Path(__file__).parents[2]
HOSTILE = [
    "<script>alert(1)</script>",
    "a|b",
    "*x*",
    "`x`",
    "[x](http://y)",
    "$x$",
    "\\input{x}",
    "%",
    "# x",
    "{{ 7 }}",
    "名",
]
TEXTS = st.one_of(st.sampled_from(HOSTILE), st.text(min_size=1, max_size=12))


def rows(**changes):
    common = {"status": "ok", "valid": True, "source": "measured"} | changes
    return [
        a_row(
            **{"model": "tiny", "batch_size": size, "latency_s": 0.5 * size, "mfu": 0.1 * size} | common,
            point_id=str(size),
        )
        for size in (1, 2, 4)
    ]


def made(tmp_path, text, of=None, name="mine.md.j2", endings=()):
    path = tmp_path / name
    path.write_text(text, encoding="utf-8")
    return Made(path, rows() if of is None else of, endings)


def test_rows_a_pivot_and_a_figure(tmp_path):
    text = """{{ rows | length }} rows of {{ rows[0].model }}; MFU {{ rows[1].mfu | shown("mfu") }}%
{{ pivot(rows="batch_size", value="latency_s", where={"batch_size": [2, 4]}) }}
{{ table(["model", "latency_s"], where(batch_size=4)) }}
{{ figure(x="latency_s", y="mfu", name="one", caption="A caption") }}"""
    report = made(tmp_path, text, endings=["png", "svg"])
    told = report.text()
    assert told.startswith("3 rows of tiny; MFU 20.0%\n")
    assert "| 2 | 1 |" in told
    assert "| 1 | 0.5 |" not in told
    assert "| tiny | 2 | measured |" in told
    assert "![one](figures/one.png)" in told
    assert "*A caption. Kinds of evidence: measured.*" in told
    assert [drawn.name for drawn in report.drawn] == ["one"]


@settings(max_examples=40)
@given(TEXTS)
def test_rows_stay_text_in_every_format(tmp_path_factory, text):
    folder = tmp_path_factory.mktemp("t")
    of = rows(model=text)
    body = '{{ rows[0].model }} {{ table(["model"]) }} {{ pivot(rows="model", value="latency_s") }}'
    html = made(folder, body, of, "x.html.j2").text()
    assert "<script" not in html
    shown = MarkdownIt("commonmark").enable("table").render(made(folder, f"a {body}", of).text())
    assert not re.search(r"<(script|em|a|code|h1|img|blockquote)\b", shown)
    latex = made(folder, "{{ rows[0].model }}", of, "x.tex.j2").text()
    assert not re.search(r"(?<!\\)[%#&]", latex)
    assert "\\input{" not in latex


def test_what_is_marked_safe_is_as_it_stands(tmp_path):
    assert made(tmp_path, "{{ '*x*' | safe }} {{ '*x*' }}").text() == "*x* \\*x\\*"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("a\n{{ nothing }}", "line 2"),
        ("{{ rows[0].nothing }}", "nothing"),
        ("a\nb\n{% if %}", "line 3"),
        ("{{ rows[9].model }}", "line 1"),
        ("{{ rows[0].__class__.__mro__ }}", "unsafe"),
        ("{{ rows.__class__ }}", "unsafe"),
        ("{% set _ = rows[0].details.update({'a': 1}) %}", "unsafe"),
        ("{% for i in range(10000000) %}{% endfor %}", "line 1"),
        ("{{ 1 / 0 }}", "division"),
        ("{% include 'x' %}", "line 1"),
        ("\n{{ pivot(rows='modell', value='mfu') }}", "line 2"),
        ("{{ pivot(rows='model', value='hw') }}", "no number"),
        ("{{ pivot(rows='model', value='mfu', where={'phse': 'decode'}) }}", "phse"),
        ("{{ figure(x='latency_s', y='model') }}", "no number"),
        ("{{ figure(x='latency_s', y='mfu', where={'hw': 'b200'}) }}", "has no row with both"),
        (
            "{{ figure(x='latency_s', y='mfu', name='a') }}{{ figure(x='latency_s', y='mfu', name='a') }}",
            "another figure",
        ),
        ("{{ rows[0].mfu | shown('model') }}", "is no metric"),
        ("{{ figure(z='latency_s') }}", "unexpected keyword"),
    ],
)
def test_a_wrong_template_is_one_sentence_with_its_line(tmp_path, text, said):
    with pytest.raises(InvalidRequest, match=r"template=") as found:
        made(tmp_path, text, endings=["png"]).text()
    assert said in str(found.value)
    assert "\n" not in str(found.value)


@pytest.mark.parametrize("name", ["mine.md", "mine.j2", "mine.py.j2", "j2"])
def test_a_name_that_says_no_format_is_refused(tmp_path, name):
    with pytest.raises(InvalidRequest, match=r"NAME\.md\.j2"):
        made(tmp_path, "x", name=name)


def test_a_file_that_is_not_there_or_no_text_is_refused(tmp_path):
    with pytest.raises(InvalidRequest, match="No such file"):
        Made(tmp_path / "x.md.j2", [], [])
    (tmp_path / "x.md.j2").write_bytes(b"\xff\xfe")
    with pytest.raises(InvalidRequest, match="UTF-8"):
        Made(tmp_path / "x.md.j2", [], [])


def test_the_example_makes_the_same_files_twice(tmp_path, capsys):
    template = ROOT / "examples" / "reports" / "decode.md.j2"
    Store(tmp_path / "store").append(
        rows(model="palm-540b", hw="tpu-v4", phase="decode", num_chips=64, input_len=1984, source="published",
             step_time_s=0.03, cost_chip_s_per_token=0.1)
    )  # fmt: skip
    files = []
    for _ in range(2):
        words = [f"template={template}", f"results_dir={tmp_path / 'store'}", f"out={tmp_path}", "figures=[png,svg]"]
        assert main(["report", *words]) == 0
        files.append({path.name: path.read_bytes() for path in (tmp_path / "decode").rglob("*") if path.is_file()})
    assert files[0] == files[1]
    assert set(files[0]) == {"decode.md", "cost-of-decode.png", "cost-of-decode.svg", "manifest.json"}
    assert "3 of these were published" in " ".join(files[0]["decode.md"].decode().replace("\n", " ").split()).replace(
        "and 3 of", "3 of"
    )
    assert "in " + str(tmp_path / "decode") in capsys.readouterr().out


@pytest.mark.skipif(shutil.which("pdflatex") is None, reason="no pdflatex here")
def test_a_latex_template_compiles(tmp_path):
    text = r"""\documentclass{article}\usepackage{array,booktabs,longtable}\begin{document}
{{ rows[0].model }} {{ pivot(rows="model", columns="batch_size", value="mfu") }}\end{document}"""
    (tmp_path / "x.tex").write_text(made(tmp_path, text, rows(model="100% <a_b> \\x{~^"), "x.tex.j2").text(), "utf-8")
    command = ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", "x.tex"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, errors="replace", check=False)
    assert done.returncode == 0, done.stdout[-1500:]
