"""A learning curve: test accuracy of two classifiers over the number of training images, fold by fold."""

import csv
import json
import os
from pathlib import Path

from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedShuffleSplit
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVC

CLASSIFIERS = {
    "logistic": lambda: make_pipeline(StandardScaler(), LogisticRegression(max_iter=2000)),
    "svm": lambda: make_pipeline(StandardScaler(), SVC(gamma="scale")),
}


def main() -> None:
    parameters = json.loads(Path(os.environ["EMS_PARAMETERS"]).read_text())
    images, digits = load_digits(return_X_y=True)
    results = Path(os.environ["EMS_RESULTS_DIR"]) / "learning_curve.csv"
    with results.open("w", newline="", buffering=1) as file:
        rows = csv.writer(file)
        rows.writerow(["classifier", "train_size", "fold", "accuracy", "test_size"])
        for size in parameters["sizes"]:
            splits = StratifiedShuffleSplit(parameters["folds"], train_size=size, random_state=parameters["seed"])
            for fold, (train, test) in enumerate(splits.split(images, digits)):
                for name, make in CLASSIFIERS.items():
                    accuracy = make().fit(images[train], digits[train]).score(images[test], digits[test])
                    rows.writerow([name, size, fold, accuracy, len(test)])
            print(f"{size} training images: done", flush=True)


main()
