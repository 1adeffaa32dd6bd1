"""The pages of docs/ fit the programs, pictures and sources beside them; so this runs in the checkout only."""

from __future__ import annotations

import contextlib
import importlib.util
import io
import json
import re
import shlex
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from gpuprop.__main__ import main
from tests.browser import dom, files_served, needs_chromium
from tests.example_tools import EXAMPLES

ROOT = EXAMPLES.parent
DOCS = ROOT / "docs"
#: Made for the build of the site, and ignored by git.
MADE = {DOCS / "reference", DOCS / "house"}
PAGES = sorted((DOCS / "lessons").glob("[0-9]*.md"))
ALL_PAGES = sorted(page for page in DOCS.rglob("*.md") if MADE.isdisjoint(page.parents))
LESSON = re.compile(r"^    python examples/lesson_(\w+)\.py$", re.M)


def script(name: str) -> ModuleType:
    """Return ``docs/<name>.py`` as a module."""
    spec = importlib.util.spec_from_file_location(f"docs_{name}", DOCS / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def page_name(page: Path) -> str:
    return page.relative_to(DOCS).as_posix()


def test_every_lesson_has_a_page() -> None:
    lessons = {path.stem.removeprefix("lesson_") for path in EXAMPLES.glob("lesson_*.py")}
    assert {name for page in PAGES for name in LESSON.findall(page.read_text())} == lessons


def test_the_index_lists_every_page() -> None:
    text = (DOCS / "lessons" / "README.md").read_text()
    assert re.findall(r"\]\((\d\d-[\w-]+\.md)\)", text) == [page.name for page in PAGES]
    on_pages = [name for page in PAGES for name in LESSON.findall(page.read_text())]
    assert re.findall(r"`lesson_(\w+)\.py`", text) == on_pages


@pytest.mark.parametrize("page", ALL_PAGES, ids=page_name)
def test_links(page: Path) -> None:
    for target, anchor in re.findall(r"\]\((?!https?:)([^)#]*)#?([^)]*)\)", page.read_text()):
        file = (page.parent / target) if target else page
        assert file.exists(), target
        if re.fullmatch(r"L\d+", anchor):
            assert int(anchor[1:]) <= len(file.read_text().splitlines())
        elif anchor:
            headings = re.findall(r"^#+ (.*)$", file.read_text(), re.M)
            slugs = [re.sub(r"[^\w -]", "", heading).strip().lower().replace(" ", "-") for heading in headings]
            assert anchor in slugs, anchor


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_page(page: Path) -> None:
    """A lesson ends by pointing at file and line of the library; its pictures are small."""
    *_, last = re.split(r"^## ", page.read_text(), flags=re.M)
    assert last.startswith("In the library\n")
    assert re.search(r"\[`\w+`\]\(\.\./\.\./(gpuprop|kernels)/\S+\.py#L\d+\)", last)
    for picture in re.findall(r"\((images/[^)]+)\)", page.read_text()):
        assert (page.parent / picture).stat().st_size < 150_000


def test_lines_that_links_point_at() -> None:
    """If this fails: ``python docs/source_lines.py`` rewrites the lines."""
    lines = script("source_lines")
    assert [complaint for page in lines.pages() for complaint in lines.current(page, page.read_text())[1]] == []


def test_a_stale_line_is_found_and_renewed() -> None:
    lines = script("source_lines")
    page, source = DOCS / "reading.md", (ROOT / "gpuprop" / "core" / "step.py").read_text().splitlines()
    text, complaints = lines.current(
        page, "[`training_step`](../gpuprop/core/step.py#L1) [`nothing`](../gpuprop/core/step.py)"
    )
    where = next(n for n, line in enumerate(source, 1) if line.startswith("def training_s"))
    assert text == f"[`training_step`](../gpuprop/core/step.py#L{where}) [`nothing`](../gpuprop/core/step.py)"
    assert len(complaints) == 2


def test_every_line_of_the_reading_list_points_into_the_source() -> None:
    rows = re.findall(r"^\| (?!source|---)(.*) \|$", (DOCS / "reading.md").read_text(), re.M)
    assert len(rows) == 12
    for row in rows:
        *_, lesson, lines = row.split(" | ")
        assert re.search(r"\]\(lessons/\d\d-[\w-]+\.md\)", lesson)
        assert re.search(r"\[`\w+`\]\(\.\./\S+\.py#L\d+\)", lines)


def test_every_picture_has_its_command() -> None:
    """Programs and commands know the words of it; what the programs' options do is in test_lessons.py."""
    commands = script("pictures").COMMANDS
    pictures = {path.relative_to(DOCS).as_posix() for kind in ("png", "svg", "gif") for path in DOCS.rglob(f"*.{kind}")}
    assert pictures == set(commands)
    for program, *words in commands.values():
        if program.endswith(".py"):
            source = (DOCS / program).read_text()
            assert all(f'"{word}"' in source for word in words if word.startswith("--"))
        else:
            assert (program, words[0]) == ("-m", "gpuprop")
            parsed(words[1], ["1" if word in ("OUT", "RUN") else word for word in words[2:]])


def test_every_picture_is_on_a_page() -> None:
    shown = {
        (page.parent / picture).resolve()
        for page in [*ALL_PAGES, ROOT / "README.md"]
        for picture in re.findall(r"!\[[^\]]+\]\(([^)]+)\)", page.read_text())
    }
    assert shown == {(DOCS / name).resolve() for name in script("pictures").COMMANDS}


def test_the_script_makes_the_diagram_again(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    name = "lessons/images/worked-example.svg"
    script("pictures").make(name, tmp_path / "new.svg")
    assert (tmp_path / "new.svg").read_text() == (DOCS / name).read_text()


# --- every block of code ---------------------------------------------------------------------------------------


def blocks(page: Path, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", page.read_text(), re.M | re.S)


def python_blocks(page: Path) -> list[str]:
    """Return a page's Python but for the solutions of a lesson, which `tests/test_lesson_solutions.py` runs."""
    text = page.read_text()
    if page in PAGES:
        text = re.sub(r"^<details>.*?^</details>$", "", text, flags=re.M | re.S)
    return re.findall(r"^```python\n(.*?)^```", text, re.M | re.S)


#: Its blocks need files and processes, which `tests/test_scaling_page.py` gives them.
APART = "scaling.md"


@pytest.mark.parametrize(
    "page", [page for page in ALL_PAGES if python_blocks(page) and page.name != APART], ids=page_name
)
def test_python_blocks(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    module = ModuleType("page")  # which dataclasses of a page look up
    monkeypatch.setitem(sys.modules, "page", module)
    for block in python_blocks(page):
        exec(compile(block, page.name, "exec", dont_inherit=True), vars(module))


@pytest.mark.parametrize("page", [page for page in ALL_PAGES if blocks(page, "console")], ids=page_name)
def test_console_blocks(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Commands after ``$`` print what stands below them."""
    monkeypatch.chdir(tmp_path)
    for block in blocks(page, "console"):
        for session in re.split(r"^\$ ", block, flags=re.M)[1:]:
            command, _, expected = session.partition("\n")
            program, *words = shlex.split(command)
            assert program == "gpuprop"
            printed = io.StringIO()
            with contextlib.redirect_stdout(printed):
                assert main(words) == 0
            assert printed.getvalue().strip() == expected.strip()


def test_the_kernels_on_the_page_are_those_of_the_library() -> None:
    on_page = blocks(DOCS / "lessons" / "13-kernel.md", "text")[:2]
    folder = ROOT / "kernels" / "gpuprop_kernels" / "ladder"
    for block, source in zip(on_page, ("delta.py", "coalesced.py"), strict=True):
        code = [line.split("#")[0].strip() for line in block.splitlines()]
        assert "\n".join(code) in "\n".join(line.strip() for line in (folder / source).read_text().splitlines())


#: What a reader replaces, by what stands for it here.
PLACEHOLDERS = {"N": "1", "...": "", "--help": ""}


def parsed(name: str, words: list[str]) -> None:
    """Have a command of gpuprop read its options; nothing is run. Without words the text only names the command."""
    import typer

    from gpuprop.cli import application

    group: Any = typer.main.get_command(application())
    assert name in group.commands
    if words:
        group.commands[name].make_context(name, words)


@pytest.mark.parametrize("page", [*ALL_PAGES, ROOT / "README.md"], ids=lambda page: page.relative_to(ROOT).as_posix())
def test_commands_have_these_options(page: Path) -> None:
    """Every ``gpuprop ...`` of the text is parsed as far as its options."""
    text = page.read_text()
    found = re.findall(r"^ {4}(gpuprop [a-z].*?)(?:  +#.*)?$", text, re.M) + re.findall(
        r"`(gpuprop [a-z][^`\n]*)`", text
    )
    for line in found:
        if line.startswith("gpuprop: "):  # what a command answers
            continue
        _, name, *words = [PLACEHOLDERS.get(word, word) for word in shlex.split(line.replace("[", "").replace("]", ""))]
        parsed(name, [word for word in words if word])


# --- the site --------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The pages as a site, built without a warning."""
    for package in ("sphinx", "furo", "myst_parser"):
        if importlib.util.find_spec(package) is None:
            pytest.skip(f"{package} is not installed: pip install 'gpuprop[docs]'")
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "sphinx", "-q", "-W", "--keep-going", "-d", str(folder / "cache")]
    done = subprocess.run([*command, str(DOCS), str(folder / "site")], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return folder / "site"


def test_the_site_has_its_parts(site: Path) -> None:
    """A landing page, the playground, a notebook for each lesson, formulas as MathML, and all of it as Markdown."""
    assert "See it move" in (site / "index.html").read_text()
    assert "const ACTIVATIONS" in (site / "playground.html").read_text()
    assert [page.stem for page in sorted((site / "notebooks").glob("*.ipynb"))] == [page.stem for page in PAGES]
    formulas = (site / "reference" / "formulas.html").read_text()
    assert formulas.count("<math") > 20
    network = (site / "reference" / "gpuprop.Network.html").read_text()
    assert "https://numpy.org/doc/stable/reference/generated/numpy.ndarray.html" in network
    assert 'href="gpuprop.Activation.html' in network
    listed = re.findall(r"\]\(([^)]+)\)", (site / "llms.txt").read_text())
    assert all((site / page).exists() for page in listed)
    pages = {page.relative_to(site).with_suffix(".md").as_posix() for page in site.rglob("*.html")}
    generated = {"genindex.md", "search.md", "playground.md"} | {name for name in pages if name.startswith("source/")}
    assert pages - generated - {name for name in pages if "/group-" in name} == set(listed)


def test_solutions_unfold_on_the_site(site: Path) -> None:
    """Each exercise keeps its number and folds a hint and a solution, with nothing of their Markdown left over."""
    for page in PAGES:
        text = (site / "lessons" / f"{page.stem}.html").read_text().partition('<section id="exercises">')[2]
        numbers = re.findall(r"^(\d+)\. ", page.read_text().partition("## Exercises\n")[2], re.M)
        folded = re.findall(r"<details><summary>(\w+)</summary>(.*?)</details>", text, re.S)
        n_exercises = text.count("<summary>Hint</summary>")
        assert [kind for kind, _ in folded] == ["Hint", "Solution"] * n_exercises
        lists = [int(start or 1) for start in re.findall(r'<ol class="[^"]*"(?: start="(\d+)")?', text)]
        assert lists == list(range(1, n_exercises + 1)), page.name
        assert set(map(str, lists)) <= set(numbers)
        assert all("```" not in inside and "<p>" in inside for _, inside in folded)


def test_the_site_loads_nothing_from_elsewhere(site: Path) -> None:
    for page in site.rglob("*.html"):
        assert re.findall(r"<(?:script|link|img|iframe)[^>]*(?:src|href)=\"https?:[^>]*>", page.read_text()) == [], page


def test_the_site_has_a_place_for_every_line_that_is_linked_to(site: Path) -> None:
    for page in site.rglob("*.html"):
        for target, line in re.findall(r'href="([^"#]*source/[^"#]*)#(L\d+)"', page.read_text()):
            assert f'id="{line}"' in (page.parent / target).read_text()


#: Shows each page in the width of a phone, and writes down how wide it and its pictures are.
PHONE = """<!DOCTYPE html><pre></pre><script>
(async () => {
  for (const page of PAGES) {
    const phone = document.createElement("iframe");
    phone.style.width = "390px";
    phone.src = page;
    document.body.append(phone);
    await new Promise(loaded => { phone.onload = loaded; });
    const inside = phone.contentDocument;
    const pictures = [...inside.querySelectorAll("article img")].map(img => img.getBoundingClientRect().width);
    const line = [page, inside.documentElement.scrollWidth, ...pictures].join(" ");
    document.querySelector("pre").append(line + "\\n");
    phone.remove();
  }
})();
</script>"""


@needs_chromium
def test_the_site_on_a_phone(site: Path, tmp_path: Path) -> None:
    """No page is wider than the screen; pictures are moved sideways instead of made illegible."""
    pages = [page.relative_to(site).as_posix() for page in site.rglob("*.html")]
    (site / "phone.html").write_text(PHONE.replace("PAGES", json.dumps(pages)))
    with files_served(site) as address:
        lines = (
            dom(f"{address}/phone.html", tmp_path, milliseconds=100_000)
            .partition("<pre>")[2]
            .partition("</pre>")[0]
            .splitlines()
        )
    found = {name: [float(width) for width in widths] for name, *widths in map(str.split, lines)}
    assert set(found) == set(pages)
    assert {name: width for name, (width, *_) in found.items() if width > 390} == {}
    pictures = [width for _, *widths in found.values() for width in widths]
    assert len(pictures) == len(script("pictures").COMMANDS) - 1  # one is on the README only
    assert min(pictures) > 550
