"""Plain words, as far as a program can judge them: docstrings begin as they should, clauses and pronouns have a noun.

Rules 1, 2 and 7 of the prose that CONTRIBUTING.md asks for, and the words of rules 3 to 5 that are never right here.
"""

import ast
import re
from itertools import pairwise

import pytest

_VERBS = """
Add Allow Announce Answer Append Apply Attend Audit Average Bind Blend Build Call Change Check Choose Classify Clear
Close Collect Combine Compare Complete Compose Compute Continue Convert Copy Count Create Cut Deal Decide Decode
Delete Discard Divide Draw Drop Embed Encode End Enlarge Enter Evaluate Expand Explain Extend Feed Fill Find
Finetune Fit Fold Format Freeze Gather Generate Give Group Hash Hide Hold Import Initialise Insert Interpolate Join
Keep Label Leave Let List Load Log Make Map Mark Match Maximise Measure Merge Mix Move Name Normalise Note Open
Order Pack Pad Paint Parse Place Plan Pool Predict Prepare Pretrain Prevent Print Probe Project Quote Raise Read
Rebuild Record Refill Refuse Remove Rename Render Repeat Replace Report Require Reset Resize Resolve Restore Return
Rotate Round Run Sample Save Scale Score Search See Seed Send Serve Set Settle Share Shorten Show Shuffle Shut Skip
Sort Split Standardise Start Stop Store Stretch Sum Switch Take Tile Train Transform Translate Turn Undo Unpack
Update Validate Verify Visit Wait Walk Warn Weight Wrap Write Yield
"""
VERBS = frozenset(_VERBS.split())
"""First words of the docstrings of functions; add a verb that is missing, in the imperative."""
RELATIVE = {"what", "who", "whom", "whose", "how", "where", "whether", "when", "which", "why", "that", "if"}
PRONOUNS = {"it", "one", "they", "those", "these", "this", "them"}
_BEFORE = "of by is in than from with for and are was but to Return Read Write".replace(" ", "|")
NOUNLESS = re.compile(rf"(?:^|[.;(,] |\b(?:{_BEFORE}) )(?:[Ww]hat|[Ww]ho|[Ww]hom)(?:ever)?\b(?!:)")
"""A relative clause without its noun: "what was read", "who was censored"; `what:` is an argument."""
VAGUE = re.compile(r"\b(?:the ones?|those|that) (?:who|that|which|whose)\b", re.IGNORECASE)
DIALECT = re.compile(
    r"\b(?:tells?|told|forgives?|speaks|anew|nobody)\b|\b(?:code|file|function|page)s? (?:says?|knows?)\b"
)


def first_word(text: str) -> str:
    return re.split(r"\W", text.strip("`\"'"), maxsplit=1)[0]


def begins_badly(node: ast.AST, text: str) -> bool:
    """Return whether a docstring begins with another word than a function's verb, or a noun of a class or module."""
    word = first_word(text)
    is_function = isinstance(node, ast.FunctionDef)
    if is_function and not any("property" in ast.unparse(one) for one in node.decorator_list):
        return word not in VERBS
    return word.lower() in RELATIVE | PRONOUNS


def has_no_noun(text: str) -> list[str]:
    flat = " ".join(re.sub(r"``?[^`]*``?", "`x`", text).split())
    return [match[0].strip() for pattern in (NOUNLESS, VAGUE, DIALECT) for match in pattern.finditer(flat)]


def docstrings(tree: ast.Module):
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef) and (text := ast.get_docstring(node)):
            yield node, text


def sentences_below_names(tree: ast.Module):
    """Yield the line and text of the sentence below each setting, field and constant."""
    for node in ast.walk(tree):
        body = node.body if isinstance(node, ast.Module | ast.ClassDef) else []
        for above, below in pairwise(body):
            if isinstance(above, ast.Assign | ast.AnnAssign) and isinstance(below, ast.Expr):
                yield below.lineno, ast.literal_eval(below.value)


def sentences(tree: ast.Module):
    """Line and text of every string of three words or more, docstrings and fields' sentences included."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and node.value.count(" ") >= 2:
            yield node.lineno, node.value


def test_docstrings_begin_with_a_verb_or_a_noun(trees):
    found = [
        f"{file}:{node.body[0].lineno}: {text.splitlines()[0]}"
        for file, tree in trees.items()
        for node, text in docstrings(tree)
        if begins_badly(node, text)
    ]
    assert found == []


def test_sentences_below_names_begin_with_a_noun(trees):
    below = [(file, *one) for file, tree in trees.items() for one in sentences_below_names(tree)]
    assert len(below) > 500
    assert [one for one in below if first_word(one[2]).lower() in RELATIVE | PRONOUNS] == []


def test_clauses_and_pronouns_have_a_noun(trees):
    found = [
        f"{file}:{line}: {words}"
        for file, tree in trees.items()
        for line, text in sentences(tree)
        for words in has_no_noun(text)
    ]
    assert found == []


@pytest.mark.parametrize(
    "source",
    ['def f():\n    "What it gives."', 'def f():\n    "Tiles of a slide."', 'class A:\n    "Whether it is."', '"How."'],
)
def test_a_docstring_that_begins_badly_is_found(source):
    assert [begins_badly(node, text) for node, text in docstrings(ast.parse(source))] == [True]


@pytest.mark.parametrize(
    "text",
    ["Return what was read.", "Patients, who were censored", "the share of who had it", "those that have it", "anew"],
)
def test_a_clause_without_a_noun_is_found(text):
    assert has_no_noun(text)


@pytest.mark.parametrize("text", ["Return the rows read.", "patients who were censored", "what: Cause of the error."])
def test_a_plain_sentence_passes(text):
    assert not has_no_noun(text)
