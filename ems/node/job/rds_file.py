"""Results in R's files of one object, a data frame (`saveRDS`)."""

from __future__ import annotations

import warnings
from typing import Any, Literal

from ems.node.job.csv_file import ROW_NAMES
from ems.node.job.results_file import ResultsError
from ems.node.job.table_file import TableFile

NA_BITS = 1954  # the lower half of the double that is R's NA


def require() -> Any:
    """The package that reads such files. ResultsError where it is not installed."""
    try:
        import rdata
    except ImportError as error:
        raise ResultsError(
            f"Files of R (.rds) are read by the package rdata: {error}.", "pip install 'ems-experiments[rds]'"
        ) from error
    return rdata


class RdsFile(TableFile):
    """`saveRDS` of a data frame, read when the job has ended. Row names that are text become the column `row_names`."""

    what = "rds"

    def _is_closed(self) -> bool:
        return False

    def _read(self) -> Any:
        import pyarrow as pa

        frame = self._frame()
        names = [str(name) for name in frame.columns]
        if len(set(names)) < len(names):
            raise self._wrong("two columns have one name", "In R: names(frame) <- make.unique(names(frame))")
        columns = {name: self._arrow(name, frame.iloc[:, place]) for place, name in enumerate(names)}
        if frame.index.inferred_type == "string" and ROW_NAMES not in columns:
            columns = {ROW_NAMES: pa.array([str(name) for name in frame.index], pa.string()), **columns}
        return pa.table(columns)

    def _frame(self) -> Any:
        import pandas

        rdata = require()
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # of classes that it does not know
                found = rdata.read_rds(self.path, constructor_dict={**rdata.conversion.DEFAULT_CLASS_MAP, **_CLASSES})
        except Exception as error:  # of a damaged file it raises nearly anything
            raise self._wrong(f"{type(error).__name__}: {error}", "Write it with saveRDS(frame, file).") from error
        if isinstance(found, pandas.DataFrame):
            return found
        hint = "Save a data frame: saveRDS(as.data.frame(x), file)."
        raise self._wrong(f"it has no data frame, but what is a {type(found).__name__} in Python", hint)

    def _arrow(self, name: str, values: Any) -> Any:
        """NA becomes null, and NaN stays."""
        import numpy
        import pyarrow as pa

        try:
            if values.dtype == numpy.float64:
                numbers = values.to_numpy().astype("<f8")
                missing = numpy.isnan(numbers) & (numbers.view("<u8") & 0xFFFFFFFF == NA_BITS)
                return pa.array(numbers, mask=missing)
            return pa.array(values)
        except (pa.ArrowException, TypeError, ValueError) as error:
            hint = "Columns are numbers, text, booleans, factors, dates or times."
            raise self._wrong(f"column {name!r}: {error}", hint) from error


def _dates(days: Any, _attributes: Any) -> Any:
    """As text, `2026-01-31`."""
    import pandas

    return pandas.array(_times_of(days, "D").strftime("%Y-%m-%d"), dtype="string")


def _times(seconds: Any, _attributes: Any) -> Any:
    """In UTC, whatever zone R would show them in."""
    return _times_of(seconds, "s").tz_localize("UTC")


def _times_of(numbers: Any, unit: Literal["D", "s"]) -> Any:
    import numpy
    import pandas

    return pandas.DatetimeIndex(pandas.to_datetime(numpy.asarray(numbers, dtype=float), unit=unit))


_CLASSES = {"Date": _dates, "POSIXct": _times, "difftime": lambda numbers, _attributes: numbers}
