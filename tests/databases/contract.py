"""The contract of each kind of plug-in: a class of tests that every one of them subclasses."""

from tests.databases.outputs_contract import OutputsContract
from tests.databases.points_contract import PointsContract
from tests.databases.reading_contract import ReadingContract
from tests.databases.registry_contract import RegistryContract
from tests.databases.results_contract import ResultsContract
from tests.databases.rounds_contract import RoundsContract
from tests.databases.runs_contract import RunsContract


class DatabaseContract(
    RegistryContract, RunsContract, ResultsContract, ReadingContract, PointsContract, RoundsContract, OutputsContract
):
    """A backend's tests give `address`: the URL and root of a database that does not exist yet."""
