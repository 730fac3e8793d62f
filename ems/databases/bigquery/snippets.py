"""Code that reads rows from BigQuery without EMS, as somebody whom Google knows."""

from __future__ import annotations

from pathlib import Path
from string import Template

from ems.databases import snippets
from ems.databases.snippets import Language, text

NEWEST = Template("""\
WITH newest AS (
  SELECT id FROM `$dataset.experiment` WHERE stack = '$stack'
  ORDER BY destroyed_at IS NOT NULL, registered_at DESC LIMIT 1)
SELECT * EXCEPT (batch) FROM `$dataset.$table`
WHERE experiment_id = (SELECT id FROM newest)
  AND batch IN (SELECT number FROM `$dataset.loaded_batch` WHERE experiment_id = (SELECT id FROM newest))
ORDER BY point, `row`""")
PYTHON = Template('''\
import pandas
import pyarrow
from google.cloud import bigquery

query = """
$query
"""
table = bigquery.Client(project=$project).query(query).result().to_arrow()
frame = table.to_pandas(types_mapper={pyarrow.int64(): pandas.Int64Dtype()}.get)
print(frame)
''')
SQL = Template("""\
-- bq query --project_id=$project --use_legacy_sql=false
$query;
""")


def snippet(language: Language, stack: str, table: str, project: str, dataset: str, root: Path) -> str:
    """Code for the rows of the experiment that `stack` holds; R and MATLAB read them through `ems results`."""
    if language in {"r", "matlab"}:
        return snippets.through_csv(language, stack, root)
    query = NEWEST.substitute(dataset=f"{project}.{dataset}", table=table, stack=stack)
    if language == "python":
        return PYTHON.substitute(query=query, project=text(project))
    return SQL.substitute(query=query, project=project)
