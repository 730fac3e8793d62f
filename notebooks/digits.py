"""Draw the learning curve of the stack `digits` from the lab's database, also while it is being computed."""

from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt

import ems

frame = ems.results("digits")
curve = frame.groupby(["classifier", "train_size"])["accuracy"].agg(["mean", "std"]).reset_index()
figure, axes = plt.subplots(figsize=(6.4, 4.2), layout="constrained")
for name, part in curve.groupby("classifier"):
    axes.errorbar(part["train_size"], part["mean"], yerr=part["std"], label=name, marker="o", capsize=3)
axes.set_xscale("log", base=2)
axes.xaxis.set_major_formatter("{x:.0f}")
axes.set_xticks(sorted(curve["train_size"].unique()))
axes.set(xlabel="training images", ylabel="test accuracy", title="Handwritten digits")
axes.grid(alpha=0.3)
axes.legend()
target = Path("digits.png")
figure.savefig(target, dpi=120)
print(f"drew {target} from {len(frame)} rows")
