"""The mailbox of a run whose database does not reach it: files in the run's folder, which the database's side fetches.

    known.json   written by the database's side: the row there, the points that it has, the newest number of these
    row.json     written by the agent: the row as it stands here, and all runs that were here
    outbox/      batches of results that the database's side has not fetched, or not confirmed: ATTEMPT-NUMBER-OF.batch
    failed/      marks of points that failed, for the errors of this place
    store/       what jobs left in EMS_OUTPUT_DIR, as in a lab's store; NAME.old: about to be removed
    files/       which of these are whose, until the database's side has them: ATTEMPT-NUMBER.json
    columns.json what the columns are that were stored here
    owner.json   which database it belongs to

Of a batch's name, ATTEMPT is the run that stored it, NUMBER counts on for ever, OF is the run that computed it. What
was fetched is removed by name and SHA-256, once the database has it. One agent at a time writes, under the folder's
lock.
"""

URL = "mailbox:"  # for an agent, in the place of its database's
