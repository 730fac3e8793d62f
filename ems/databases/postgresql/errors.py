"""PostgreSQL's errors, as those of EMS: what may pass, and what a person must fix."""

from __future__ import annotations

import psycopg

from ems.base.errors import DatabaseError, DatabaseUnavailable

READ_ONLY = "25006"
CHECK = "See what this role may do: ems database check"
MAY_PASS = {  # by the beginning of SQLSTATE
    "08": "the connection broke",
    "25P03": "the server ended a transaction that waited too long",
    "40": "others were at the same rows",
    "53": "the server is out of connections, memory or disk",
    "55P03": "others kept it locked",
    "57": "the server is stopping, starting, or gave up this query",
    "58": "the server's disk or files failed",
}
STAYS = {
    "42501": ("refuses what this role may not do", CHECK),
    READ_ONLY: (
        "takes no changes here: this server or role is read-only",
        "Name the primary server, or let libpq find it: ?target_session_attrs=read-write in ems:database.",
    ),
    "42P01": ("has lost a table of EMS", "Restore it from a backup; `ems database check` shows what is gone."),
    "3F000": ("has no schema that this role may create tables in", "An owner of it runs: ems database init"),
    "22021": ("takes only valid Unicode text, without NUL (\\0)", "Let the job leave such characters out."),
    "22P05": ("does not keep its text in UTF-8", "Make the database anew: CREATE DATABASE … ENCODING 'UTF8'"),
}
AT_BEGIN = ("0A000", "call_bool_check_hook")  # a standby's; words are in the server's language
AT_CONNECTING = {  # by the server's or libpq's words: at this time there is no SQLSTATE
    "password authentication failed": "Correct the password in ~/.pgpass, the secret of password_from, or the user.",
    "no password supplied": "Write it into ~/.pgpass (chmod 600): HOST:PORT:DATABASE:USER:PASSWORD; or name "
    "the version of a secret that has it in ems:database: ?password_from=…",
    "no pg_hba.conf entry": "The server's pg_hba.conf must let this user and machine in; maybe by TLS alone (sslmode).",
    "authentication failed": "Correct how this user proves who it is, or the user in ems:database.",
    "is not permitted to log in": "That role is for a group: name a user in ems:database.",
    "permission denied for database": "An owner of it grants: GRANT CONNECT ON DATABASE … TO …",
    "certificate": "Check sslrootcert, sslcert and sslkey in ems:database, and the host's name in the certificate.",
    "server does not support SSL": "The server must be set up for TLS, or ems:database ask for none (sslmode).",
    "definition of service": "Services are written in ~/.pg_service.conf, or the file that PGSERVICEFILE names.",
    'database "': "Make it: createdb NAME; or correct the name in ems:database.",
    'role "': "Make it: createuser NAME; or correct the user in ems:database.",
}
AGAIN = "Nothing was changed: try again."
REFUSED = "If this is not a fault of the server, report it with: ems doctor"


def explained(error: psycopg.Error, name: str) -> DatabaseError:
    """The error of EMS for one of PostgreSQL; DatabaseUnavailable if it may pass. `name`: the database's."""
    text = " ".join(str(error).split())
    if error.sqlstate:
        is_standby = (error.sqlstate, error.diag.source_function) == AT_BEGIN
        return _of_state(READ_ONLY if is_standby else error.sqlstate, text, name)
    if not isinstance(error, psycopg.OperationalError):
        return DatabaseError(f"The lab's database {name} refused a call ({text}).", REFUSED)
    hint = next((hint for words, hint in AT_CONNECTING.items() if words in text), None)
    if hint:
        return DatabaseError(f"The lab's database {name} lets nobody in so ({text}).", hint)
    return DatabaseUnavailable(f"The lab's database {name} does not answer ({text}).", AGAIN)


def _of_state(state: str, text: str, name: str) -> DatabaseError:
    passing = next((fault for beginning, fault in MAY_PASS.items() if state.startswith(beginning)), None)
    if passing:
        message = f"The lab's database {name} does not answer: {passing} ({text})."
        return DatabaseUnavailable(message, AGAIN)
    fault, hint = STAYS.get(state, ("refused a call", REFUSED))
    return DatabaseError(f"The lab's database {name} {fault} ({text}).", hint)
