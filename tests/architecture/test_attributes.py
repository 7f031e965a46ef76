"""The store's attributes are read through typed properties of `PatchStore`, outside of `preprocessing`."""

import ast

import pytest

from preprocessing.store.schema import StoreAttributes
from preprocessing.store.store import PatchStore


def reads(tree: ast.Module) -> list[int]:
    """Lines that read or set an attribute named `attributes`, by name or with `getattr`."""
    nodes = list(ast.walk(tree))
    named = [node.lineno for node in nodes if isinstance(node, ast.Attribute) and node.attr == "attributes"]
    calls = [node for node in nodes if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "getattr"]
    asked = [node.lineno for node in calls if any(getattr(one, "value", None) == "attributes" for one in node.args)]
    return named + asked


def test_no_module_outside_preprocessing_touches_attributes(trees):
    found = {file: reads(tree) for file, tree in trees.items() if not file.startswith("preprocessing/")}
    assert len(found) > 40
    assert {file: lines for file, lines in found.items() if lines} == {}


@pytest.mark.parametrize("code", ["store.attributes['mpp']", "x = store.attributes", "getattr(s, 'attributes')"])
def test_the_check_would_see_it(code):
    assert reads(ast.parse(code)) == [1]
    assert reads(ast.parse(code.replace("attributes", "size_l0"))) == []


def test_every_property_is_one_of_the_store():
    names = {"slide_id", "source", "vendor", "size_l0", "bounds_l0", "mpp_source", "mpp", "tile_st", "side_l0"}
    names |= {"grid_shape", "lattice", "arrays", "passthrough", "warnings"}
    assert names <= set(StoreAttributes.model_fields)
    assert all(name in (PatchStore.__doc__ or "") for name in names | {"mpp_l0"})
