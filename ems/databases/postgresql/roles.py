"""The roles of a lab in PostgreSQL, and what the present one may do.

Of the database `lab`: `lab_reader` reads; `lab_agent` also runs experiments, and owns results tables; `lab_owner` also
describes the lab (`ems up lab`) and owns EMS's tables. They are groups: people log in as members.
"""

from __future__ import annotations

from sqlalchemy import Connection, func, select

from ems.databases import MAY, tables

ROLES = """DO $$
DECLARE
    reader name := current_database() || '_reader';
    agent name := current_database() || '_agent';
    owner name := current_database() || '_owner';
    role name;
    part text;
BEGIN
    FOREACH role IN ARRAY ARRAY[reader, agent, owner] LOOP
        IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = role) THEN
            EXECUTE format('CREATE ROLE %I NOLOGIN', role);
        END IF;
    END LOOP;
    EXECUTE format('GRANT %I TO %I', reader, agent);
    EXECUTE format('GRANT %I TO %I', agent, owner);
    EXECUTE format('GRANT %I TO CURRENT_USER', owner);  -- who gives a table away must belong to its new owner
    EXECUTE format('GRANT USAGE ON SCHEMA %I TO %I', current_schema, reader);
    EXECUTE format('GRANT CREATE ON SCHEMA %I TO %I', current_schema, agent);
    EXECUTE format('GRANT CREATE ON SCHEMA %I TO %I', current_schema, owner);
    FOREACH part IN ARRAY ARRAY[{tables}] LOOP
        EXECUTE format('ALTER TABLE %I OWNER TO %I', part, owner);
        EXECUTE format('GRANT SELECT ON %I TO %I', part, reader);
    END LOOP;
    EXECUTE format('GRANT INSERT, UPDATE ON {running} TO %I', agent);
    EXECUTE format('GRANT DELETE ON point, copied, output TO %I', agent);
    FOR part IN {results} LOOP
        EXECUTE format('ALTER TABLE %I OWNER TO %I', part, agent);
        EXECUTE format('GRANT SELECT ON %I TO %I', part, reader);
    END LOOP;
    EXECUTE format('ALTER DEFAULT PRIVILEGES FOR ROLE %I, %I IN SCHEMA %I GRANT SELECT ON TABLES TO %I',
        agent, owner, current_schema, reader);
END $$"""
RESULTS = """
        SELECT DISTINCT c.relname::text FROM pg_class c JOIN experiment e
            ON c.relname = e.results_table OR starts_with(c.relname::text, e.results_table || ' part ')
        WHERE pg_table_is_visible(c.oid) AND c.relkind IN ('r', 'v')"""
LOGIN = """-- Then for each person, as a member of one of the three, with a password by psql's own command:
--   CREATE ROLE "NAME" LOGIN IN ROLE lab_agent; ALTER ROLE "NAME" SET role = lab_agent;
--   \\password NAME
"""
FOREIGN_TABLES = f"""
    SELECT relname, pg_get_userbyid(relowner) FROM pg_class
    WHERE NOT pg_has_role(relowner, 'member') AND relname IN ({RESULTS})"""
MAY_SQL = """SELECT
    bool_and(has_table_privilege(oid, 'SELECT')),
    bool_and(writes) FILTER (WHERE relname = ANY(%(running)s)) AND has_schema_privilege(current_schema, 'CREATE'),
    bool_and(writes) FILTER (WHERE relname = ANY(%(describing)s)),
    bool_and(pg_has_role(relowner, 'member'))
    FROM pg_class
    CROSS JOIN LATERAL (SELECT has_table_privilege(oid, 'INSERT') AND has_table_privilege(oid, 'UPDATE')) AS w (writes)
    WHERE relname = ANY(%(tables)s) AND pg_table_is_visible(oid)"""
RUNNING = ["experiment", "run", "charge", "point", "copied", "proposed", "output"]
DESCRIBING = ["experimenter", "project", "funding", "cluster"]


def statement() -> str:
    """Makes the roles and gives them their rights, whatever was there before."""
    names = ", ".join(f"'{name}'" for name in tables.metadata.tables)
    return ROLES.format(tables=names, running=", ".join(RUNNING), results=RESULTS)


def may(connection: Connection) -> tuple[str, ...]:
    """Of MAY, what the present role may do; EMS's tables must be there. On a standby it can only read."""
    groups = {"running": RUNNING, "describing": DESCRIBING, "tables": list(tables.metadata.tables)}
    read, *change = connection.exec_driver_sql(MAY_SQL, groups).one()
    writable = _setting(connection, "pg_is_in_recovery()") == "false"
    return tuple(name for name, may in zip(MAY, (read, *(may and writable for may in change)), strict=True) if may)


def faults(connection: Connection) -> list[str]:
    """Of the database itself, tables or not."""
    found = []
    encoding = _setting(connection, "current_setting('server_encoding')")
    if encoding != "UTF8":
        found.append(f"text is kept in {encoding}: make the database anew with CREATE DATABASE … ENCODING 'UTF8'")
    if _setting(connection, "current_schema") is None:
        found.append("no schema of search_path is there for this role: an owner runs `ems database init`")
    return found


def may_read(connection: Connection, table: str) -> bool:
    """Whether this role may read that table."""
    asked = select(func.has_table_privilege(func.quote_ident(table), "SELECT"))
    return bool(connection.execute(asked).scalar_one())


def foreign_tables(connection: Connection) -> list[str]:
    """Faults of results tables, once EMS has tables."""
    return [
        f"results table {table!r} belongs to {owner}, so that this role cannot add columns to it: "
        "an owner runs `ems database init`"
        for table, owner in connection.exec_driver_sql(FOREIGN_TABLES)
    ]


def _setting(connection: Connection, expression: str) -> str | None:
    value: str | None = connection.exec_driver_sql(f"SELECT ({expression})::text").scalar_one()
    return value
