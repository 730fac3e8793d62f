"""One list of the names that results tables cannot have, whichever database a lab has or will have."""

from __future__ import annotations

from ems.databases import tables
from ems.stack.fields import RESERVED_TABLES


def test_every_name_that_a_database_keeps_is_reserved():
    indexes = {str(index.name) for table in tables.metadata.tables.values() for index in table.indexes}
    assert tables.KEPT | indexes == RESERVED_TABLES
