"""Keep the links to lines of the library true: ``[`name`](../gpuprop/core/step.py#L42)``.

    python docs/source_lines.py           # rewrites the lines of all pages; prints what changed
    python docs/source_lines.py --check   # changes nothing; status 1 if a line is stale

A link whose text is a name in backquotes and whose target is a Python file points at the line where that file defines
the name. The test of the pages runs the check.
"""

from __future__ import annotations

import ast
import re
import sys
from functools import cache
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
LINK = re.compile(r"\[`(\w+)`\]\(([^)\s#]+\.py)(?:#L(\d+))?\)")


def pages() -> list[Path]:
    """All pages whose links are kept."""
    made = {ROOT / "docs" / "reference", ROOT / "docs" / "house"}  # by the build of the site
    found = [page for page in (ROOT / "docs").rglob("*.md") if made.isdisjoint(page.parents)]
    return [*sorted(found), ROOT / "README.md"]


@cache
def definitions(path: Path) -> dict[str, int]:
    """The first line on which a file defines each name: functions, classes, methods, constants."""
    found: dict[str, int] = {}
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):  # breadth first: the outermost comes first
        if isinstance(node, (ast.FunctionDef, ast.ClassDef)):
            found.setdefault(node.name, node.lineno)
        elif isinstance(node, (ast.Assign, ast.AnnAssign)):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            for target in targets:
                if isinstance(target, ast.Name):
                    found.setdefault(target.id, node.lineno)
    return found


def current(page: Path, text: str) -> tuple[str, list[str]]:
    """Return a page's text with current lines, and what is wrong with it as it is."""
    complaints: list[str] = []

    def renewed(match: re.Match[str]) -> str:
        name, target, line = match.groups()
        file = (page.parent / target).resolve()
        now = definitions(file).get(name) if file.exists() else None
        if now is None:
            complaints.append(f"{page.relative_to(ROOT)}: {target} does not define {name}")
            return match[0]
        if str(now) != line:
            complaints.append(f"{page.relative_to(ROOT)}: {name} is in line {now} of {target}, not {line}")
        return f"[`{name}`]({target}#L{now})"

    return LINK.sub(renewed, text), complaints


def main(arguments: list[str]) -> int:
    """Check or rewrite all pages."""
    stale = missing = False
    for page in pages():
        text = page.read_text(encoding="utf-8")
        new, complaints = current(page, text)
        for complaint in complaints:
            print(complaint)
            missing = missing or "does not define" in complaint
        stale = stale or bool(complaints)
        if "--check" not in arguments and new != text:
            page.write_text(new, encoding="utf-8")
    return int(missing or (stale and "--check" in arguments))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
