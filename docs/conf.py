"""Build of the documentation: ``python -m sphinx -W --keep-going docs docs/_build/html``.

The pages are the Markdown files in this folder, which GitHub shows as well. Generated at build time, and ignored by
git, are a page for each public name (``generated/``) and the notebooks with a gallery (``notebooks/``).
Nothing is executed, and the site needs neither a server nor a network.
"""

from __future__ import annotations

import base64
import json
import re
import shutil
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from docutils.utils.math.latex2mathml import tex2mathml
from PIL import Image

if TYPE_CHECKING:
    from docutils import nodes
    from sphinx.application import Sphinx

HERE = Path(__file__).parent
NOTEBOOKS = HERE.parent / "notebooks"
sys.path.insert(0, str(HERE.parent))

import flyxr  # noqa: E402

project = "flyxr"
author = copyright = "The flyxr developers"
version = release = flyxr.__version__

extensions = ["myst_nb", "sphinx.ext.autodoc", "sphinx.ext.autosummary", "numpydoc"]
exclude_patterns = ["_build", "ensemble", "images"]
templates_path = ["_templates"]
suppress_warnings = ["toc.empty_glob"]  # pages and notebooks that are not there yet

myst_enable_extensions = ["colon_fence", "dollarmath"]
myst_heading_anchors = 4
nb_execution_mode = "off"
nb_merge_streams = True

autosummary_generate = True
autodoc_typehints = "none"
numpydoc_class_members_toctree = False
numpydoc_show_class_members = False

html_theme = "pydata_sphinx_theme"
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_title = "flyxr"
html_show_sourcelink = False
html_show_search_summary = False  # a page that was opened from a folder may not read others
html_math_renderer = "mathml"
html_theme_options = {
    "navbar_align": "left",
    "header_links_before_dropdown": 7,
    "show_toc_level": 2,
    "navigation_with_keys": False,
    "footer_start": ["copyright"],
    "footer_end": [],
}
html_sidebars = {"index": [], "start": [], "measures": [], "flyvis*": []}


def visit_math(self: Any, node: nodes.math) -> None:
    """Write an equation as MathML, which browsers draw without a script."""
    self.body.append(tex2mathml(node.astext(), as_block=False))
    raise_skip_node()


def visit_math_block(self: Any, node: nodes.math_block) -> None:
    """Write a displayed equation as MathML."""
    self.body.append(f'<div class="math">{tex2mathml(node.astext(), as_block=True)}</div>')
    raise_skip_node()


def raise_skip_node() -> None:
    """Leave out the text of the equation, which was written already."""
    from docutils.nodes import SkipNode

    raise SkipNode


def copy_notebooks(app: Sphinx) -> None:
    """Copy the notebooks beside the pages, and write a gallery with a picture of each."""
    target = HERE / "notebooks"
    shutil.rmtree(target, ignore_errors=True)
    target.mkdir()
    lines = ["# Gallery", ""]
    names = []
    for path in sorted(NOTEBOOKS.glob("*.ipynb")):
        text = (
            path.read_text(encoding="utf-8").replace("](../docs/", "](../").replace("](../README.md", "](../start.md")
        )
        (target / path.name).write_text(text, encoding="utf-8")
        notebook = json.loads(text)
        title, summary = title_and_summary(notebook)
        picture = write_thumbnail(notebook, target / "thumbnails" / path.stem)
        names.append(path.stem)
        image = f"[![{title}]({picture.relative_to(target).as_posix()})]({path.name})\n" if picture else ""
        lines += [":::{container} card", image, f"**[{title}]({path.name})**", "", summary, ":::", ""]
    if not names:
        lines += ["The notebooks lie in the folder `notebooks/` of the repository; this site was built without them."]
    else:
        intro = "Notebooks with their results. They are in the folder `notebooks/` of the repository, to be run."
        lines[2:] = [intro, "", "::::{container} gallery", *lines[2:], "::::"]
        lines += ["", "```{toctree}", ":hidden:", "", *names, "```"]
    (target / "index.md").write_text("\n".join(lines) + "\n", encoding="utf-8")


def title_and_summary(notebook: dict[str, Any]) -> tuple[str, str]:
    """Heading of a notebook, and the first paragraph below it."""
    texts = ["".join(cell["source"]) for cell in notebook["cells"] if cell["cell_type"] == "markdown"]
    paragraphs = [part.strip() for text in texts for part in re.split(r"\n\s*\n", text) if part.strip()]
    title = next((part for part in paragraphs if part.startswith("# ")), "# Notebook")
    heading, _, rest = title.partition("\n")
    after = [rest.strip()] if rest.strip() else paragraphs[paragraphs.index(title) + 1 :] if title in paragraphs else []
    summary = next((part for part in after if not part.startswith(("#", "```", "|", "- "))), "")
    # Links of the notebook lead elsewhere from the gallery.
    summary = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", summary).replace("\n", " ")
    return heading.removeprefix("# "), summary


def write_thumbnail(notebook: dict[str, Any], stem: Path) -> Path | None:
    """Write the largest stored picture of a notebook, or the one of a cell with the tag ``thumbnail``."""
    pictures = [
        (("thumbnail" in cell.get("metadata", {}).get("tags", []), len(str(data[kind]))), kind, data[kind])
        for cell in notebook["cells"]
        for output in cell.get("outputs", [])
        if (data := output.get("data", {}))
        for kind in ("image/png", "image/svg+xml", "image/jpeg", "image/gif")
        if kind in data
    ]
    if not pictures:
        return None
    _, kind, content = max(pictures, key=lambda picture: picture[0])
    stem.parent.mkdir(exist_ok=True)
    text = content if isinstance(content, str) else "".join(content)
    if kind == "image/svg+xml":
        path = stem.with_suffix(".svg")
        path.write_text(text, encoding="utf-8")
        return path
    path = stem.with_suffix(f".{kind.removeprefix('image/')}")
    path.write_bytes(base64.b64decode(text))
    if path.suffix == ".png":
        picture = Image.open(path)
        picture.thumbnail((800, 800))
        picture.save(path)
    return path


def link_to_copies(app: Sphinx, name: str, source: list[str]) -> None:
    """Let links to notebooks of the repository lead to their copies beside the pages, and to the gallery."""
    source[0] = source[0].replace("](../notebooks/README.md)", "](notebooks/index.md)")
    source[0] = source[0].replace("](../notebooks/", "](notebooks/")


def setup(app: Sphinx) -> None:
    """Connect the functions above to the build."""
    app.connect("source-read", link_to_copies)
    app.connect("builder-inited", copy_notebooks, priority=1)  # before autosummary looks for pages
    app.add_html_math_renderer("mathml", (visit_math, None), (visit_math_block, None))
