"""The contract of each kind of plug-in: a class of tests that every one of them subclasses."""

from tests.points_contract import PointsContract
from tests.registry_contract import RegistryContract
from tests.results_contract import ResultsContract


class DatabaseContract(RegistryContract, ResultsContract, PointsContract):
    """A backend's tests give `address`: the URL and root of a database that does not exist yet."""
