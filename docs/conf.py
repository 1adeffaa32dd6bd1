"""The pages of this folder as a site: ``python -m sphinx -W --keep-going docs site``.

The pages are plain Markdown that reads as well where it lies. What a site needs beyond that is made here: the order of
the pages, a page for each source file that a link points into, formulas as MathML, `llms.txt` and the pages as plain
Markdown. `reference.py` and `formulas.py` make the reference and the page of formulas, `notebooks.py` the notebooks of
the lessons. The build needs no network, and neither does the site.
"""

from __future__ import annotations

import json
import posixpath
import re
import sys
import zlib
from pathlib import Path
from typing import Any

from docutils import nodes
from docutils.utils.math.latex2mathml import tex2mathml
from pygments import highlight
from pygments.formatters import HtmlFormatter
from pygments.lexer import Lexer
from pygments.lexers import get_lexer_for_filename
from pygments.lexers.special import TextLexer
from pygments.util import ClassNotFound

DOCS = Path(__file__).resolve().parent
ROOT = DOCS.parent
sys.path.insert(0, str(DOCS))

import formulas  # noqa: E402  # they lie beside this file
import notebooks  # noqa: E402
import reference  # noqa: E402

from gpuprop.version import __version__  # noqa: E402

project = "gpuprop"
author = copyright = "The gpuprop developers"
version = release = __version__
extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "sphinx.ext.intersphinx"]
root_doc = "index"
# Two pages are for those who read the folder: here stand index.md and the reference in their places.
exclude_patterns = ["_build", "README.md", "guide/where.md"]
source_suffix = {".md": "markdown", ".rst": "restructuredtext"}
myst_heading_anchors = 3
myst_enable_extensions = ["dollarmath", "colon_fence", "attrs_inline"]
html_math_renderer = "mathml"
highlight_language = "none"  # a block without a language is a command or what it prints
smartquotes_action = "qe"  # two hyphens stay two: they begin an option
default_role = "py:obj"  # a name between single quotes links to its page where it has one
autodoc_typehints = "none"  # the docstrings say the types, with shapes and dtypes
autodoc_member_order = "bysource"
napoleon_google_docstring = False
napoleon_use_ivar = True
napoleon_use_rtype = False
napoleon_preprocess_types = True
napoleon_type_aliases = {
    "ndarray": "numpy.ndarray",
    "array_like": ":term:`array_like`",
    "Generator": "numpy.random.Generator",
    "DataFrame": "pandas.DataFrame",
    "dtype": "numpy.dtype",
    **{one.path.rpartition(".")[2]: one.path for one in reference.public_names() if one.kind == "class"},
}
nitpicky = False
suppress_warnings = ["myst.xref_missing", "ref.python"]
myst_url_schemes = ["http", "https", "source"]
html_theme = "furo"
html_title = "gpuprop"
html_copy_source = False
html_static_path = ["site.css"]
html_css_files = ["site.css"]
html_theme_options = {
    # Okabe and Ito's blue, in both schemes dark or light enough for text.
    "light_css_variables": {"color-brand-primary": "#0067a3", "color-brand-content": "#0067a3"},
    "dark_css_variables": {"color-brand-primary": "#6cbcf0", "color-brand-content": "#6cbcf0"},
}

#: The pages that the landing page names first; the rest follow in the order of the alphabet.
ORDER = ["guide/README", "tables", "instruments", "when-things-go-wrong", "reference/index", "lessons/README", "play"]
ORDER += ["exercises", "watching", "house/CONTRIBUTING", "house/kernels"]
LATER = ["formats", "cpu-speed", "sources", "reading"]
#: Pages from outside this folder, by the names that they have on the site.
HOUSE = {"CONTRIBUTING.md": "house/CONTRIBUTING", "kernels/README.md": "house/kernels"}
_OUTWARD = re.compile(r"\]\(((?:\.\./)+[^)\s]*)\)")


def _prepare(app: Any, docname: str, source: list[str]) -> None:
    """Turn links that leave this folder into links to source pages, and give index pages their order."""

    def outward(match: re.Match[str]) -> str:
        target, _, line = match[1].partition("#")
        path = posixpath.normpath(posixpath.join("docs", posixpath.dirname(docname), target))
        if path in HOUSE:
            return f"]({posixpath.relpath(HOUSE[path], posixpath.dirname(docname))}.md)"
        return match[0] if path.startswith("docs/") else f"](source:{path}{'#' + line if line else ''})"

    source[0] = _OUTWARD.sub(outward, source[0]).replace("(guide/where.md)", "(reference/index.rst)")
    if docname.startswith("lessons/") and notebooks.program_of(source[0]) is not None:
        link = f'<a href="../notebooks/{posixpath.basename(docname)}.ipynb" download>Take this lesson as a notebook</a>'
        source[0] = notebooks.with_lines(source[0]).replace("\n## ", f"\n{link}\n\n## ", 1)
    if docname == root_doc:
        named = {*ORDER, *LATER, root_doc}
        rest = sorted(name for name in app.env.found_docs if "/" not in name and name not in named)
        source[0] += _toctree([*ORDER, *rest, *LATER])
    elif docname.endswith("/README"):
        folder = docname.removesuffix("README")
        pages = sorted(name.removeprefix(folder) for name in app.env.found_docs if name.startswith(folder))
        # The guide's pages stand in the order in which its list names them, the lessons in that of their numbers.
        pages.sort(key=lambda name: source[0].find(f"]({name}.md)"))
        source[0] += _toctree([name for name in pages if name != "README"])


def _toctree(names: list[str]) -> str:
    return "\n\n```{toctree}\n:hidden:\n\n" + "\n".join(names) + "\n```\n"


def _resolve(app: Any, doctree: nodes.document, docname: str) -> None:
    """Let links to source files point at their pages, relative to this one."""
    for link in doctree.findall(nodes.reference):
        uri = link.get("refuri", "")
        if uri.startswith("source:"):
            path, _, line = uri.removeprefix("source:").partition("#")
            if not (ROOT / path).exists():
                raise FileNotFoundError(f"{docname}: links to {path}, which does not exist")
            target = _file_of(path)
            _linked(app).add(target)
            link["refuri"] = "../" * docname.count("/") + f"source/{target}.html" + (f"#{line}" if line else "")
    for dash in list(doctree.findall(nodes.Text)):
        if dash.astext() == " -- ":  # Sphinx puts it between a parameter and what is said of it
            dash.parent.replace(dash, nodes.Text(" \u2013 "))
    if not docname.startswith("reference/"):
        _link_names(app, doctree, docname)


def _link_names(app: Any, doctree: nodes.document, docname: str) -> None:
    """Let the public names and commands that a page writes as code point at their pages of the reference."""
    for code in list(doctree.findall(nodes.literal)):
        page = reference.page_for(code.astext())
        above = code.parent
        while above is not None and not isinstance(above, (nodes.reference, nodes.title)):
            above = above.parent
        if page is not None and above is None:
            uri = app.builder.get_relative_uri(docname, f"reference/{page}")
            link = nodes.reference("", "", code.deepcopy(), refuri=uri, internal=True)
            code.replace_self(link)


def _file_of(path: str) -> str:
    """Return the file that stands for a path of the repository: of a folder what says what is in it."""
    if (ROOT / path).is_file():
        return path
    return next(f"{path}/{name}" for name in ("README.md", "__init__.py") if (ROOT / path / name).exists())


def _linked(app: Any) -> set[str]:
    """The source files that pages link to, kept with the environment."""
    if not hasattr(app.env, "linked_sources"):
        app.env.linked_sources = set()
    found: set[str] = app.env.linked_sources
    return found


def _lexer_of(path: str) -> Lexer:
    """Return what colours a file of this name; a table of numbers stays as it is."""
    try:
        return get_lexer_for_filename(path, stripnl=False)
    except ClassNotFound:
        return TextLexer(stripnl=False)


def _write_sources(app: Any, error: Exception | None) -> None:
    """Write a page for each source file that is linked to, with an anchor ``L12`` on every line."""
    if error is not None:
        return
    light, dark = (HtmlFormatter(style=style).get_style_defs(".highlight") for style in ("default", "github-dark"))
    style = (
        "body { margin: 0; font: 14px/1.5 monospace; } "
        "h1 { font: 600 1rem system-ui; padding: 0 1rem; overflow-wrap: anywhere; }"
        ".highlight { margin: 0; padding: 0 1rem 2rem; overflow-x: auto; } a { color: inherit; }"
        ".linenos { opacity: .5; padding-right: 1em; user-select: none; }"
        f":target {{ background: #ffe9a8; }} {light} @media (prefers-color-scheme: dark) {{ {dark} "
        "body, .highlight { background: #0d1117; color: #e6edf3; } :target { background: #4b3d00; } }"
    )
    for path in sorted(_linked(app)):
        text = (ROOT / path).read_text(encoding="utf-8")
        # One <span id="L12"> around each line.
        formatter = HtmlFormatter(linespans="L", wrapcode=True, linenos="inline")
        body = highlight(text, _lexer_of(path), formatter).replace('id="L-', 'id="L')
        page = Path(app.outdir) / "source" / f"{path}.html"
        home = "../" * (path.count("/") + 1)
        page.parent.mkdir(parents=True, exist_ok=True)
        page.write_text(
            f'<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8"><title>{path}</title>'
            '<meta name="viewport" content="width=device-width, initial-scale=1"><meta name="color-scheme" '
            f'content="light dark"><style>{style}</style></head>\n<body><h1><a href="{home}index.html">gpuprop</a> / '
            f"{path}</h1>{body}</body></html>\n",
            encoding="utf-8",
        )


# --- what is made for the build --------------------------------------------------------------------------------


def _make_pages(app: Any) -> None:
    """Write the sources of the pages that are made from the library; git ignores them."""
    reference.write_pages(DOCS / "reference", formulas.page())
    for path, name in HOUSE.items():
        _write_house_page(path, DOCS / f"{name}.md")


def _write_house_page(path: str, page: Path) -> None:
    """Write a page from outside this folder into it, with links that are right there."""

    def from_docs(match: re.Match[str]) -> str:
        target = posixpath.normpath(posixpath.join(posixpath.dirname(path), match[1]))
        return f"]({posixpath.relpath(target, posixpath.join('docs', page.parent.name))}{match[2] or ''})"

    text = (ROOT / path).read_text(encoding="utf-8")
    text = re.sub(r"\]\((?!https?:|#)([^)#\s]+)(#[^)\s]*)?\)", from_docs, text)
    page.parent.mkdir(exist_ok=True)
    if not page.exists() or page.read_text(encoding="utf-8") != text:
        page.write_text(text, encoding="utf-8")


# --- docstrings ------------------------------------------------------------------------------------------------


def _attributes_one_by_one(app: Any, what: str, name: str, obj: Any, options: Any, lines: list[str]) -> None:
    """Give ``a, b : int`` among the attributes of a class an entry for each: napoleon takes it for one."""
    inside = False
    found: list[str] = []
    rest = lines.copy()
    while rest:
        line = rest.pop(0)
        if rest and re.fullmatch(r"-{3,}", rest[0]):
            inside = line == "Attributes"
        entry = re.match(r"((?:\w+, )+\w+)( : .*)", line) if inside else None
        if entry is None:
            found.append(line)
            continue
        said = []
        while rest and rest[0].startswith(" "):
            said.append(rest.pop(0))
        for one in entry[1].split(", "):
            found += [one + entry[2], *said]
    lines[:] = found


# --- links to other projects -----------------------------------------------------------------------------------

#: What the docstrings name of other projects. A build asks no server for an inventory: these few lines are it.
_OTHERS: dict[str, tuple[str, dict[str, str]]] = {
    "numpy": (
        "https://numpy.org/doc/stable/",
        {
            "numpy.ndarray py:class": "reference/generated/numpy.ndarray.html",
            "numpy.dtype py:class": "reference/generated/numpy.dtype.html",
            "numpy.random.Generator py:class": "reference/random/generator.html",
            "array_like std:term": "glossary.html#term-array_like",
        },
    ),
    "sklearn": (
        "https://scikit-learn.org/stable/",
        {
            f"sklearn.{name} py:class": f"modules/generated/sklearn.{name}.html"
            for name in (
                "neural_network.MLPClassifier",
                "neural_network.MLPRegressor",
                "model_selection.GridSearchCV",
                "pipeline.Pipeline",
                "base.BaseEstimator",
            )
        },
    ),
    "cupy": ("https://docs.cupy.dev/en/stable/", {"cupy.ndarray py:class": "reference/generated/cupy.ndarray.html"}),
    "numba": (
        "https://numba.readthedocs.io/en/stable/",
        {
            "numba.njit py:function": "user/jit.html",
            "numba.cuda.jit py:function": "cuda-reference/kernel.html#numba.cuda.jit",
        },
    ),
    "pandas": (
        "https://pandas.pydata.org/docs/",
        {"pandas.DataFrame py:class": "reference/api/pandas.DataFrame.html"},
    ),
}


def _inventories(folder: Path) -> dict[str, tuple[str, str]]:
    """Write an inventory for each other project, and return where it is, as Sphinx wants to know it."""
    folder.mkdir(parents=True, exist_ok=True)
    found = {}
    for project, (address, objects) in _OTHERS.items():
        lines = "".join(f"{what} 1 {place} -\n" for what, place in objects.items())
        head = f"# Sphinx inventory version 2\n# Project: {project}\n# Version:\n"
        head += "# The remainder of this file is compressed using zlib.\n"
        (folder / f"{project}.inv").write_bytes(head.encode() + zlib.compress(lines.encode()))
        found[project] = (address, str(folder / f"{project}.inv"))
    return found


def _configure(app: Any, config: Any) -> None:
    """Point intersphinx at the inventories before it looks for them."""
    config.intersphinx_mapping = _inventories(Path(app.doctreedir) / "inventories")


# --- formulas --------------------------------------------------------------------------------------------------


def _inline_formula(writer: Any, node: nodes.math) -> None:
    writer.body.append(tex2mathml(node.astext(), as_block=False))
    raise nodes.SkipNode


def _block_formula(writer: Any, node: nodes.math_block) -> None:
    writer.body.append(f'<div class="formula">{tex2mathml(node.astext(), as_block=True)}</div>\n')
    raise nodes.SkipNode


# --- notebooks -------------------------------------------------------------------------------------------------


def _write_notebooks(app: Any, error: Exception | None) -> None:
    """Write each lesson as a notebook, to be downloaded from its page."""
    if error is not None:
        return
    folder = Path(app.outdir) / "notebooks"
    folder.mkdir(exist_ok=True)
    for page in sorted((DOCS / "lessons").glob("[0-9]*.md")):
        text = json.dumps(notebooks.notebook(page), indent=1, ensure_ascii=False)
        (folder / f"{page.stem}.ipynb").write_text(text + "\n", encoding="utf-8")


# --- the playground -------------------------------------------------------------------------------------------


def _write_playground(app: Any, error: Exception | None) -> None:
    """Write the page that `play.md` shows in its frame."""
    from gpuprop.learn.play import render, worked_problem, xor_problem

    if error is None:
        page = Path(app.outdir) / "playground.html"
        page.write_text(render([worked_problem(), xor_problem()]), encoding="utf-8")


# --- for readers that are programs -----------------------------------------------------------------------------


def _write_markdown(app: Any, error: Exception | None) -> None:
    """Write each page as plain Markdown beside it, and ``llms.txt``, which lists them."""
    if error is not None:
        return
    out = Path(app.outdir)
    texts = {f"reference/{name}": text for name, text in reference.markdown_pages().items()}
    for name in sorted(app.env.found_docs):
        source = Path(app.env.doc2path(name))
        if source.suffix == ".md":
            texts[name] = _for_programs(source.read_text(encoding="utf-8"), name)
    for name, text in texts.items():
        (out / f"{name}.md").parent.mkdir(parents=True, exist_ok=True)
        (out / f"{name}.md").write_text(text, encoding="utf-8")
    (out / "llms.txt").write_text(_llms(texts), encoding="utf-8")


def _for_programs(text: str, docname: str) -> str:
    """Return a page whose links to sources point at the pages that the site has of them."""

    def outward(match: re.Match[str]) -> str:
        target, _, line = match[1].partition("#")
        path = posixpath.normpath(posixpath.join("docs", posixpath.dirname(docname), target))
        if path.startswith("docs/"):
            return match[0]
        if path in HOUSE:
            return f"]({posixpath.relpath(HOUSE[path], posixpath.dirname(docname))}.md)"
        file = _file_of(path)
        return f"]({'../' * docname.count('/')}source/{file}.html{'#' + line if line else ''})"

    return _OUTWARD.sub(outward, text)


def _llms(texts: dict[str, str]) -> str:
    """Return the list of pages in the form of llmstxt.org."""
    parts = {"Guide": "guide/", "Reference": "reference/", "Lessons": "lessons/", "Pages": ""}
    found: dict[str, list[str]] = {part: [] for part in parts}
    for name, text in texts.items():
        part = next(part for part, folder in parts.items() if name.startswith(folder))
        title = re.search(r"^# (.*)$", text, re.M)
        found[part].append(f"- [{title[1] if title else name}]({name}.md)")
    lines = [
        "# gpuprop",
        "",
        "> Multilayer perceptrons on CPUs and NVIDIA GPUs: fast to train, and every number can be seen.",
    ]
    for part, links in found.items():
        lines += ["", f"## {part}", "", *links]
    return "\n".join(lines) + "\n"


def setup(app: Any) -> None:
    """Connect the above."""
    app.add_html_math_renderer("mathml", (_inline_formula, None), (_block_formula, None))
    app.connect("config-inited", _configure, priority=1)
    app.connect("builder-inited", _make_pages)
    app.connect("source-read", _prepare)
    app.connect("autodoc-process-docstring", _attributes_one_by_one, priority=400)
    app.connect("doctree-resolved", _resolve)
    app.connect("build-finished", _write_sources)
    app.connect("build-finished", _write_notebooks)
    app.connect("build-finished", _write_playground)
    app.connect("build-finished", _write_markdown)
