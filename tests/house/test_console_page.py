"""The page of the console has every page and every route of the read API, and the pages load nothing from elsewhere."""

from __future__ import annotations

import re
from pathlib import Path
from types import SimpleNamespace

from house.test_docs import first_cells

from bridge.console.reading import Pages

CONSOLE = Path(__file__).parents[2] / "bridge" / "console"
PAGES = Pages(SimpleNamespace())  # nothing is read


def test_console_page_has_every_page_and_every_route() -> None:
    assert set(first_cells("reference/console.md", "## Pages")) == set(PAGES.pages())
    routes = {cell for cell in first_cells("reference/console.md", "## The read API") if cell.startswith("/")}
    assert routes == set(PAGES.answers())


def test_console_loads_nothing_from_another_host() -> None:
    files = [path for path in CONSOLE.rglob("*") if path.suffix in {".html", ".css", ".js", ".svg"}]
    assert len(files) >= 10
    for path in files:
        text = path.read_text().replace('xmlns="http://www.w3.org/2000/svg"', "")
        assert not re.search(r"https?://|//[\w-]+\.\w|@import|url\(", text), path


def test_console_pages_have_neither_inline_styles_nor_inline_code() -> None:
    for path in (CONSOLE / "templates").glob("*.html"):
        assert not re.search(r"<style|<script>|\sstyle=|\son[a-z]+=", path.read_text()), path
