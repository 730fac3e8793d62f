"""Draw the transition of the stack `svd` against theory from the lab's database, also while it is being computed.

Theory, for n to infinity and c = m/n: below theta = c^(1/4) the leading singular value is that of noise, and its
vectors know nothing of the signal (Benaych-Georges and Nadakuditi, J. Multivariate Analysis 111, 2012).
"""

from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np

import ems

TITLES = {
    "sigma": "leading singular value",
    "overlap_u": "overlap of left vectors",
    "overlap_v": "overlap of right vectors",
}


def theory(c, theta):
    """Leading singular value, squared overlap of the left vectors, and of the right ones."""
    s = np.maximum(theta, c**0.25) ** 2
    sigma = np.sqrt((1 + s) * (c + s) / s)
    return sigma, 1 - c * (1 + s) / (s * (s + c)), 1 - (c + s) / (s * (s + 1))


def draw(frame):
    """The figure: lines are theory, dots are means of what is there so far, with standard deviations."""
    figure, panels = plt.subplots(1, 3, figsize=(12, 4), layout="constrained")
    for panel, (column, title) in zip(panels, TITLES.items(), strict=True):
        panel.set(xlabel="theta, the strength of the signal", ylabel=column, title=title, xlim=(-0.1, 2.6))
        panel.grid(alpha=0.3)
    figure.suptitle(f"{len(frame):,} matrices")
    if len(frame):
        strengths = np.linspace(0, 2.5, 500)
        for number, ((m, n), part) in enumerate(frame.groupby(["m", "n"])):
            measured = part.groupby("theta")[list(TITLES)].agg(["mean", "std"])
            for panel, column, curve in zip(panels, TITLES, theory(m / n, strengths), strict=True):
                mean, std = measured[column]["mean"], measured[column]["std"]
                panel.plot(strengths, curve, color=f"C{number}", linewidth=1)
                panel.errorbar(mean.index, mean, std, fmt="o", markersize=3, color=f"C{number}", label=f"{m} x {n}")
        panels[0].legend(title="m x n; lines: theory")
    return figure


if __name__ == "__main__":
    frame = ems.results("svd")
    target = Path("svd.png")
    draw(frame).savefig(target, dpi=120)
    print(f"drew {target} from {len(frame)} rows")
