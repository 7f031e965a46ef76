"""Kinds of tasks and of tokens are asked, not told apart: a third one needs no change elsewhere."""

import ast

from longvit.config import EmbeddingInput, LabelTask, PixelInput, SurvivalTask, Task
from longvit.tasks import TASKS

KINDS = {kind.__name__ for kind in (*TASKS, Task, LabelTask, SurvivalTask, PixelInput, EmbeddingInput)}


def asked(node: ast.AST) -> set[str]:
    """Names of the classes that a call of `isinstance` compares with."""
    if not isinstance(node, ast.Call) or ast.unparse(node.func) not in ("isinstance", "issubclass"):
        return set()
    return {name.id for name in ast.walk(node.args[1]) if isinstance(name, ast.Name)}


def test_no_code_asks_of_which_kind_a_task_or_an_input_is(trees):
    assert len(KINDS) == 8
    found = [f"{file}:{node.lineno}" for file, tree in trees.items() for node in ast.walk(tree) if KINDS & asked(node)]
    assert found == []


def test_the_search_would_find_one():
    call = ast.parse("isinstance(task, CoxTask | NllTask)", mode="eval").body
    assert asked(call) == {"CoxTask", "NllTask"}
