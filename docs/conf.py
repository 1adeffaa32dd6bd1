"""The pages of this folder as a site: ``python -m sphinx -W --keep-going docs site``.

The pages are plain Markdown that reads as well where it lies. What a site needs beyond that is made here: the order of
the pages, and a page for each source file that a link points into, with a place for every line.
"""

from __future__ import annotations

import posixpath
import re
from pathlib import Path
from typing import Any

from docutils import nodes
from pygments import highlight
from pygments.formatters import HtmlFormatter
from pygments.lexers import get_lexer_for_filename

ROOT = Path(__file__).resolve().parent.parent

project = "gpuprop"
author = copyright = "The gpuprop developers"
extensions = ["myst_parser"]
root_doc = "README"
exclude_patterns = ["_build"]
myst_heading_anchors = 3
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

ORDER = ["lessons/README", "exercises", "watching"]
_OUTWARD = re.compile(r"\]\(((?:\.\./)+[^)\s]*)\)")


def _prepare(app: Any, docname: str, source: list[str]) -> None:
    """Turn links that leave this folder into links to source pages, and give index pages their order."""

    def outward(match: re.Match[str]) -> str:
        target, _, line = match[1].partition("#")
        path = posixpath.normpath(posixpath.join("docs", posixpath.dirname(docname), target))
        return match[0] if path.startswith("docs/") else f"](source:{path}{'#' + line if line else ''})"

    source[0] = _OUTWARD.sub(outward, source[0])
    if docname == root_doc:
        rest = sorted(name for name in app.env.found_docs if "/" not in name and name not in (*ORDER, root_doc))
        source[0] += _toctree([*ORDER, *rest])
    elif docname == "lessons/README":
        lessons = (name.removeprefix("lessons/") for name in app.env.found_docs if name.startswith("lessons/"))
        source[0] += _toctree(sorted(name for name in lessons if name != "README"))


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
            target = path if (ROOT / path).is_file() else f"{path}/README.md"
            _linked(app).add(target)
            link["refuri"] = "../" * docname.count("/") + f"source/{target}.html" + (f"#{line}" if line else "")


def _linked(app: Any) -> set[str]:
    """The source files that pages link to, kept with the environment."""
    if not hasattr(app.env, "linked_sources"):
        app.env.linked_sources = set()
    found: set[str] = app.env.linked_sources
    return found


def _write_sources(app: Any, error: Exception | None) -> None:
    """Write a page for each source file that is linked to, with an anchor ``L12`` on every line."""
    if error is not None:
        return
    light, dark = (HtmlFormatter(style=style).get_style_defs(".highlight") for style in ("default", "github-dark"))
    style = (
        "body { margin: 0; font: 14px/1.5 monospace; } "
        "h1 { font: 600 1rem system-ui; padding: 0 1rem; overflow-wrap: anywhere; }"
        ".highlight { margin: 0; padding: 0 1rem 2rem; overflow-x: auto; } a { color: inherit; }"
        f":target {{ background: #ffe9a8; }} {light} @media (prefers-color-scheme: dark) {{ {dark} "
        "body, .highlight { background: #0d1117; color: #e6edf3; } :target { background: #4b3d00; } }"
    )
    for path in sorted(_linked(app)):
        text = (ROOT / path).read_text(encoding="utf-8")
        # One <span id="L12"> around each line.
        formatter = HtmlFormatter(linespans="L", wrapcode=True)
        body = highlight(text, get_lexer_for_filename(path, stripnl=False), formatter).replace('id="L-', 'id="L')
        page = Path(app.outdir) / "source" / f"{path}.html"
        page.parent.mkdir(parents=True, exist_ok=True)
        page.write_text(
            f'<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8"><title>{path}</title>'
            '<meta name="viewport" content="width=device-width, initial-scale=1"><meta name="color-scheme" '
            f'content="light dark"><style>{style}</style></head>\n<body><h1>{path}</h1>{body}</body></html>\n',
            encoding="utf-8",
        )


def setup(app: Any) -> None:
    """Connect the above."""
    app.connect("source-read", _prepare)
    app.connect("doctree-resolved", _resolve)
    app.connect("build-finished", _write_sources)
