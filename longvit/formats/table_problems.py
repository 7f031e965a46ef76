"""Problems of a table of any origin, collected so that one error names all of them."""

from pathlib import Path
from typing import NamedTuple

import pandas as pd

from longvit.formats.csv_rows import exact_numbers, name_lines
from preprocessing.errors import CohortError, short


class Problem(NamedTuple):
    """Problem of a file's lines: a sentence, the column and lines, and the fix."""

    what: str
    where: str
    fix: str


class Problems(list[Problem]):
    """List of all problems of a table of strings, indexed by the line in the file."""

    def __init__(self, table: pd.DataFrame) -> None:
        super().__init__()
        self.table = table

    def note(self, bad: pd.Series, column: str, what: str, fix: str) -> None:
        """Add a problem of the lines where `bad` is True, with the value of the first of these lines."""
        lines = self.table.index[bad.to_numpy(dtype=bool)]
        if len(lines):
            value = f": {short(self.table[column].loc[lines[0]])!r}" if column in self.table else ""
            self.append(Problem(f"`{column}` {what}{value}", f"column {column}, {name_lines(lines)}", fix))

    def numbers(self, column: str) -> pd.Series:
        """Return a column as floats; a value that is not a finite number is a problem and becomes NaN."""
        number = exact_numbers(self.table[column])
        self.note(number.isna(), column, "is not a number", "write a finite decimal number in every row")
        return number

    def refuse(self, path: Path) -> None:
        """Raise one error for all problems.

        Raises:
            CohortError: There are problems; the error describes all of them.
        """
        if len(self) == 1:
            raise CohortError(self[0].what, where=f"{path}, {self[0].where}", fix=self[0].fix)
        if self:
            listed = "".join(f"\n  - {one.what} ({one.where}); {one.fix}" for one in self)
            what = f"the predictions have {len(self)} problems:{listed}"
            raise CohortError(what, where=path, fix="correct the lines above; nothing was evaluated")
