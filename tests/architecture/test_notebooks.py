"""Notebooks are stored as they are read: without outputs, with names that cells keep, on the public names alone."""

import ast
import importlib

import nbformat
import pytest

SHOWN = {
    "longvit.model.predictor": {"load_model"},
    "longvit.pretraining.views": {"RegionDataset"},
    "preprocessing.synthetic.cohort": {"make_cohort"},
}
"""What notebooks may import beside it: a trained model, the views that it was trained on, a cohort with known truth."""


@pytest.fixture(scope="module")
def notebooks(root) -> dict[str, nbformat.NotebookNode]:
    """Name -> notebook, of all five."""
    found = {path.name: nbformat.read(path, as_version=4) for path in sorted((root / "notebooks").glob("*.ipynb"))}
    assert len(found) == 5
    return found


@pytest.fixture(scope="module")
def public(trees) -> dict[str, set[str]]:
    """Module -> names that a user may import: what `__init__` exports, configs, and the `run` of every verb."""
    names = {"longvit.config": configs()} | SHOWN
    for file, tree in trees.items():
        if file.startswith("longvit/") and file.endswith("/__init__.py"):
            names[file.removesuffix("/__init__.py").replace("/", ".")] = set(exported(tree))
    for lazy in ("preprocessing", "longvit.explanation"):
        names[lazy] = set(importlib.import_module(lazy).__all__)
    for node in ast.walk(trees["longvit/cli/app.py"]):
        if isinstance(node, ast.ImportFrom) and "run" in {alias.name for alias in node.names}:
            names[node.module] = {"run"}
    return names


def configs() -> set[str]:
    module = importlib.import_module("longvit.config")
    return {name for name, value in vars(module).items() if isinstance(value, type)}


def exported(tree: ast.Module) -> list[str]:
    froms = [node for node in tree.body if isinstance(node, ast.ImportFrom)]
    return [alias.name for node in froms for alias in node.names if alias.asname == alias.name]


def code(notebook: nbformat.NotebookNode) -> ast.Module:
    """All code cells as one tree."""
    return ast.parse("\n".join(cell.source for cell in notebook.cells if cell.cell_type == "code"))


def test_no_notebook_is_stored_with_outputs(notebooks):
    for name, notebook in notebooks.items():
        nbformat.validate(notebook)
        cells = [cell for cell in notebook.cells if cell.cell_type == "code"]
        assert len(cells) >= 5, name
        assert [cell.id for cell in cells if cell.outputs or cell.execution_count is not None] == [], name
        assert set(notebook.metadata) == {"kernelspec", "language_info"}, name
        assert notebook.metadata.language_info == {"name": "python"}, name


def test_cells_have_names_that_stay(notebooks):
    for name, notebook in notebooks.items():
        ids = [cell.id for cell in notebook.cells]
        assert len(ids) == len(set(ids)), name
        assert [one for one in ids if not one.replace("-", "").isalpha()] == [], name


def test_notebooks_import_public_names_alone(notebooks, public):
    ours = 0
    for name, notebook in notebooks.items():
        for node in ast.walk(code(notebook)):
            modules = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            assert [m for m in modules if m.split(".")[0] in ("longvit", "preprocessing")] == [], name
            if isinstance(node, ast.ImportFrom) and node.module.split(".")[0] in ("longvit", "preprocessing"):
                imported = {alias.name for alias in node.names}
                assert imported - public.get(node.module, set()) == set(), f"{name}: {node.module}"
                ours += len(imported)
    assert ours > 20


def test_every_notebook_is_explained_in_the_readme(notebooks, root):
    text = (root / "notebooks" / "README.md").read_text(encoding="utf-8")
    assert [name for name in notebooks if name not in text] == []
