"""Results in numpy's files of several arrays."""

from __future__ import annotations

import zipfile
import zlib
from collections.abc import Mapping
from typing import Any

from ems.node.job.results_file import opened
from ems.node.job.table_file import TableFile

DAMAGED = (OSError, EOFError, ValueError, zipfile.BadZipFile, zlib.error, KeyError, NotImplementedError)
PICKLED = "Object arrays"  # as numpy begins to say that it would have to unpickle
ONE_EACH = "Each array is a column, and all have one length: np.savez(file, x=x, y=y); numbers alone are repeated."


class NpzFile(TableFile):
    """`np.savez`: each array of one dimension is a column; numbers without a dimension stand in every row."""

    what = "npz"

    def _is_closed(self) -> bool:
        with opened(self.path):
            return zipfile.is_zipfile(self.path)

    def _read(self) -> Any:
        import numpy

        try:
            with numpy.load(self.path, allow_pickle=False) as file:
                return self._table_of({name: file[name] for name in file.files})
        except DAMAGED as error:
            if str(error).startswith(PICKLED):
                hint = "Save numbers and text: x.astype(float), x.astype(str)."
                raise self._wrong("it has pickled objects, which may run any code", hint) from error
            raise self._wrong(str(error) or type(error).__name__, "Close the file before the job ends.") from error
        except TypeError as error:  # a lone array, as of np.save, which numpy loads as such
            raise self._wrong("it is one array without a name", ONE_EACH) from error

    def _table_of(self, arrays: Mapping[str, Any]) -> Any:
        import numpy
        import pyarrow as pa

        for name, array in arrays.items():
            if not isinstance(array, numpy.ndarray):  # whatever else a zip may hold
                raise self._wrong(f"{name!r} is not an array", ONE_EACH)
        lengths = {name: len(array) for name, array in arrays.items() if array.ndim == 1}
        for name, array in arrays.items():
            if array.ndim > 1:
                shape = " × ".join(map(str, array.shape))
                raise self._wrong(f"{name!r} has {array.ndim} dimensions ({shape})", ONE_EACH)
        if len(set(lengths.values())) > 1:
            said = ", ".join(f"{name!r} has {length:,}" for name, length in lengths.items())
            raise self._wrong(f"arrays differ in length: {said}", ONE_EACH)
        rows = next(iter(lengths.values()), 1)
        columns = {name: numpy.broadcast_to(array, (rows,)) for name, array in arrays.items()}
        return pa.table({name: self._arrow(name, array) for name, array in columns.items()})

    def _arrow(self, name: str, array: Any) -> Any:
        import numpy
        import pyarrow as pa

        if array.dtype.kind not in "biufUM":
            raise self._wrong(
                f"array {name!r} is of type {array.dtype}", "Arrays hold numbers, booleans, text or times."
            )
        if array.dtype.kind == "f" and array.dtype.itemsize > 8:
            longer, array = array, array.astype(numpy.float64)
            if not numpy.array_equal(longer, array, equal_nan=True):
                raise self._wrong(f"array {name!r} of type {longer.dtype} has more digits than doubles keep")
        try:
            return pa.array(numpy.ascontiguousarray(array).astype(array.dtype.newbyteorder("="), copy=False))
        except (pa.ArrowException, ValueError) as error:
            raise self._wrong(f"array {name!r} of type {array.dtype}: {error}") from error
