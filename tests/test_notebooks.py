"""Notebooks: their stored outputs come from their code as it is, and stay small and whole."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from scripts import load_script

import flyxr as fx
from flyxr import notebook as extension
from flyxr.testing import random_rendering

FOLDER = Path(__file__).parents[1] / "notebooks"
NAMES = [
    "01-custom-stimuli",
    "02-responses-of-one-model",
    "03-the-ensemble",
    "04-functional-clusters",
    "05-what-is-published",
    "06-experiments",
    "07-out-of-core",
    "08-share",
]
MAX_CODE_CELLS = 14

pytest.importorskip("nbformat", reason="nbformat is not installed")


make = load_script(FOLDER / "make.py")


def read(name: str) -> Any:
    return json.loads((FOLDER / f"{name}.ipynb").read_text(encoding="utf-8"))


def source(cell: dict[str, Any]) -> str:
    return "".join(cell["source"])


def code_cells(name: str) -> list[dict[str, Any]]:
    return [cell for cell in read(name)["cells"] if cell["cell_type"] == "code"]


def test_paths__are_the_notebooks() -> None:
    assert [path.stem for path in make.paths()] == NAMES
    assert [path.stem for path in make.paths(["03", "08"])] == [NAMES[2], NAMES[7]]


@pytest.mark.parametrize("name", NAMES)
def test_notebook__is_small_and_was_run_from_top_to_bottom(name: str) -> None:
    path, cells = FOLDER / f"{name}.ipynb", code_cells(name)
    assert path.stat().st_size < make.MAX_BYTES
    assert len(cells) <= MAX_CODE_CELLS
    assert source(read(name)["cells"][0]).startswith(f"# {int(name[:2])}. ")
    assert [cell["execution_count"] for cell in cells] == list(range(1, len(cells) + 1))


@pytest.mark.parametrize("name", NAMES)
def test_notebook__no_cell_was_edited_after_its_run(name: str) -> None:
    for cell in code_cells(name):
        assert cell["metadata"]["source_hash"] == make.source_hash(source(cell)), (
            f"run python notebooks/make.py {name[:2]}: this cell was edited after its run: {source(cell)}"
        )


@pytest.mark.parametrize("name", NAMES)
def test_notebook__outputs_are_text_and_pictures(name: str) -> None:
    """No errors, no warnings, and nothing that needs a script, a server or a network."""
    pictures = 0
    for cell in code_cells(name):
        for output in cell["outputs"]:
            assert output["output_type"] in ("stream", "execute_result", "display_data"), output
            assert output.get("name") != "stderr", output
            assert set(output.get("data", {})) <= {"text/plain", "image/png"}, output
            pictures += "image/png" in output.get("data", {})
    assert pictures > 0


@pytest.mark.parametrize("name", NAMES)
def test_notebook__links_lead_to_notebooks(name: str) -> None:
    """Each leads to the next one."""
    text = "".join(source(cell) for cell in read(name)["cells"] if cell["cell_type"] == "markdown")
    following = [other for other in NAMES if other > name][:1]
    assert [other for other in NAMES if f"({other}.ipynb)" in text] == following


def test_notebook__names_the_models_of_its_outputs() -> None:
    """Values of the published models are not in the repository."""
    for name in NAMES[1:]:
        first = "".join("".join(output.get("text", "")) for output in code_cells(name)[0]["outputs"])
        assert first.startswith("ensemble of 18 trained models"), name


def test_tidy__removes_what_differs_from_run_to_run() -> None:
    import nbformat

    outputs = [
        nbformat.v4.new_output("stream", name="stderr", text="\r 10%"),
        nbformat.v4.new_output("stream", name="stdout", text="a\n"),
        nbformat.v4.new_output("stream", name="stdout", text="b\n"),
    ]
    cell = nbformat.v4.new_code_cell("print('a')", outputs=outputs, metadata={"collapsed": True, "tags": ["t"]})
    tidied = make.tidy(nbformat.v4.new_notebook(cells=[cell], metadata={"widgets": {}}))
    assert tidied.cells[0].metadata == {"tags": ["t"], "source_hash": make.source_hash("print('a')")}
    assert [output.text for output in tidied.cells[0].outputs] == ["a\nb\n"]
    assert make.texts(tidied) == [["a\nb\n"]]
    tidied.cells[0].metadata["tags"] = [make.VARIES]
    assert make.texts(tidied) == [[]]


@pytest.mark.notebook
@pytest.mark.timeout(600)
@pytest.mark.parametrize("name", NAMES)
def test_notebook__runs_and_writes_what_is_stored(name: str) -> None:
    import nbformat

    path = FOLDER / f"{name}.ipynb"
    stored = nbformat.read(path, as_version=4)
    ran = make.run(path)
    assert make.texts(ran) == make.texts(stored)
    assert [len(cell.outputs) for cell in ran.cells if cell.cell_type == "code"] == [
        len(cell.outputs) for cell in stored.cells if cell.cell_type == "code"
    ]


def load_shell() -> Any:
    shells = pytest.importorskip("IPython.core.interactiveshell", reason="IPython is not installed")
    return shells.InteractiveShell()


def test_extension__shows_pictures_as_images() -> None:
    shell = load_shell()
    picture = fx.viz.hexmap(random_rendering().isel(sample=0, time=0))
    shell.run_line_magic("load_ext", "flyxr")
    data, metadata = shell.display_formatter.format(picture)
    assert set(data) == {"image/png", "text/plain"}
    assert metadata["image/png"]["height"] == 342
    shell.run_line_magic("unload_ext", "flyxr")
    assert set(shell.display_formatter.format(picture)[0]) == {"text/plain"}


def test_extension__leaves_pictures_to_hv_extension() -> None:
    class Interactive:
        def _repr_mimebundle_(self) -> tuple[dict[str, str], dict[str, str]]:
            return {"text/html": "sliders"}, {}

    assert extension._show_image(Interactive()) == ({"text/html": "sliders"}, {})


def test_image__of_many_frames_is_animated() -> None:
    import io

    from PIL import Image

    from flyxr.viz.writing import MAX_IMAGE_FRAMES, image

    frames = random_rendering(n_frames=60).isel(sample=0)
    png, width, height = image(fx.viz.hexmap(frames, dynamic=False))
    picture: Any = Image.open(io.BytesIO(png))
    assert (picture.format, picture.n_frames, picture.size) == ("PNG", MAX_IMAGE_FRAMES, (width, height))


def test_image__of_one_frame_has_more_pixels_than_the_screen() -> None:
    import io

    from PIL import Image

    from flyxr.viz.writing import image

    png, width, height = image(fx.viz.hexmap(random_rendering().isel(sample=0, time=0)))
    assert Image.open(io.BytesIO(png)).size == (round(1.5 * width), round(1.5 * height))
