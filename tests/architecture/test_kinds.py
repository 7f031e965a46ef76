"""Kinds of tasks and of tokens are asked, not told apart: a third one needs no change elsewhere."""

import ast

import pytest

from longvit.config import EmbeddingInput, LabelTask, PixelInput, SurvivalTask, Task
from longvit.tasks import TASKS

KINDS = {kind.__name__ for kind in (*TASKS, Task, LabelTask, SurvivalTask, PixelInput, EmbeddingInput)}


def asked(node: ast.AST) -> set[str]:
    """Names of the classes that `isinstance`, a comparison or a pattern compares with."""
    compared = []
    if isinstance(node, ast.Call) and ast.unparse(node.func) in ("isinstance", "issubclass"):
        compared = node.args[1:]
    elif isinstance(node, ast.Compare):
        compared = [node.left, *node.comparators]
    elif isinstance(node, ast.MatchClass):
        compared = [node.cls]
    names = [name for one in compared for name in ast.walk(one)]
    return {getattr(name, "id", getattr(name, "attr", "")) for name in names}


def test_no_code_asks_of_which_kind_a_task_or_an_input_is(trees):
    assert len(KINDS) == 8
    found = [f"{file}:{node.lineno}" for file, tree in trees.items() for node in ast.walk(tree) if KINDS & asked(node)]
    assert found == []


@pytest.mark.parametrize(
    "code",
    [
        "isinstance(task, SubtypeTask | CoxTask)",
        "isinstance(task, config.CoxTask)",
        "type(task) is CoxTask",
        "match task:\n    case CoxTask(): pass",
    ],
)
def test_the_search_would_find_one(code):
    assert "CoxTask" in set.union(*map(asked, ast.walk(ast.parse(code))))
