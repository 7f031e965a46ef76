"""Tiny predictions, small enough to check by hand."""

from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest

SUBTYPING = """\
patient_id,slide_id,fold,split,label,p_LUAD,p_LUSC,shuffled
A,A-1,0,test,LUAD,0.9,0.1,
B,B-1,0,test,LUAD,0.6,0.4,
C,C-1,0,test,LUSC,0.75,0.25,
C,C-2,0,test,LUSC,0.55,0.45,
D,D-1,0,test,LUSC,0.2,0.8,
E,E-1,1,test,LUAD,0.7,0.3,
F,F-1,1,test,LUSC,0.1,0.9,
A,A-1,0,test,LUAD,0.1,0.9,0
B,B-1,0,test,LUAD,0.6,0.4,0
C,C-1,0,test,LUSC,0.75,0.25,0
C,C-2,0,test,LUSC,0.75,0.25,0
D,D-1,0,test,LUSC,0.5,0.5,0
E,E-1,1,test,LUAD,0.7,0.3,0
F,F-1,1,test,LUSC,0.9,0.1,0
"""
"""Fold 0: LUSC scores C 0.35, D 0.8 against A 0.1, B 0.4, so 3 of 4 pairs. Fold 1: 1 of 1. Shuffled: 1 of 4; 0 of 1."""

SURVIVAL = """\
patient_id,slide_id,fold,split,time,event,risk,shuffled
A,A-1,0,test,2,1,0.9,
B,B-1,0,test,5,1,0.1,
C,C-1,0,test,7,0,0.4,
D,D-1,0,test,9,1,0.2,
E,E-1,1,test,1,1,-5,
F,F-1,1,test,3,0,-6,
G,G-1,1,test,8,1,-7,
"""
"""Fold 0: pairs AB AC AD agree, BC BD do not: 3 of 5. Fold 1: EF EG agree: 2 of 2. Pooled within folds: 5 of 7."""


@pytest.fixture
def subtyping_csv(tmp_path: Path) -> Path:
    return _write(tmp_path / "subtyping.csv", SUBTYPING)


@pytest.fixture
def survival_csv(tmp_path: Path) -> Path:
    return _write(tmp_path / "survival.csv", SURVIVAL)


@pytest.fixture
def edited(tmp_path: Path) -> Callable[[Path, Callable[[pd.DataFrame], pd.DataFrame]], Path]:
    """A copy of a CSV after a change to its table of strings."""

    def edit(path: Path, change: Callable[[pd.DataFrame], pd.DataFrame]) -> Path:
        table = change(pd.read_csv(path, dtype=str, keep_default_na=False))
        copy = tmp_path / "edited.csv"
        table.to_csv(copy, index=False)
        return copy

    return edit


def _write(path: Path, text: str) -> Path:
    path.write_text(text)
    return path
