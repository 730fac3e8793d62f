"""The contract of each kind of plug-in: a class of tests that every one of them subclasses."""

from tests.registry_contract import RegistryContract
from tests.results_contract import ResultsContract


class DatabaseContract(RegistryContract, ResultsContract):
    """A backend's tests give `address`: the URL and root of a database that does not exist yet."""
