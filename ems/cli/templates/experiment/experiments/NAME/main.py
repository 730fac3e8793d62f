"""Estimate pi by throwing darts: reads its parameters, writes a row now and then. Replace it by your own."""

import csv
import json
import os
import random
from pathlib import Path

parameters = json.loads(Path(os.environ["EMS_PARAMETERS"]).read_text())
random.seed(parameters["seed"])
hits = 0
with (Path(os.environ["EMS_RESULTS_DIR"]) / "pi.csv").open("w", newline="", buffering=1) as file:
    rows = csv.writer(file)
    rows.writerow(["darts", "estimate"])
    for dart in range(1, parameters["points"] + 1):
        hits += random.random() ** 2 + random.random() ** 2 <= 1
        if dart % 10_000 == 0:
            rows.writerow([dart, 4 * hits / dart])
print(f"pi is about {4 * hits / parameters['points']}")
