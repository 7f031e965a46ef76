"""Whether a map tells the truth: what the output does when the highest scores go first, and whether they lie on it."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float, Int, Int64
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from sklearn.metrics import roc_auc_score
from torch import Tensor

from longvit.explanation.model_output import ModelOutput


@dataclass(frozen=True)
class Curves:
    """The output while squares of tokens leave the sequence, or come into an empty one, in one order."""

    share: Float[np.ndarray, " S"]
    """Share of the squares that has left, or come, at each step; the first and the last step are 0 and 1."""
    deletion: Float[np.ndarray, " S"]
    """Output without that share; without any tokens it is that for the mean slide of the training."""
    insertion: Float[np.ndarray, " S"]
    """Output with that share alone."""

    @property
    def areas(self) -> tuple[float, float]:
        """Areas under deletion, where a faithful order is low, and under insertion, where it is high."""
        return float(np.trapezoid(self.deletion, self.share)), float(np.trapezoid(self.insertion, self.share))


@torch.no_grad()
def curves(
    explained: ModelOutput, x_LD: Float[Tensor, "L D"], square_L: Int64[Tensor, " L"], scores_L: Tensor, steps: int = 10
) -> Curves:
    """Deletion and insertion curves (RISE, arXiv:1806.07421), with tokens taken out of the sequence, not painted over.

    Args:
        explained: The output.
        x_LD: One slide as `encoder.embed` gives it, without padding.
        square_L: The square of each token, from `squares`; those of the highest mean score go first.
        scores_L: Scores of the tokens.
        steps: Steps of equal shares.
    """
    count = int(square_L.max()) + 1
    total = torch.zeros(count, dtype=torch.float64).index_add_(0, square_L.cpu(), scores_L.double().cpu())
    rank_of_square = (-total / square_L.cpu().bincount()).argsort(stable=True).argsort()
    rank_L = rank_of_square.to(square_L.device)[square_L]
    moved = [round(count * step / steps) for step in range(steps + 1)]

    def output(kept_L: Tensor) -> float:
        empty = not bool(kept_L.any())
        return float(explained.of_slide(explained.model.head.mean) if empty else explained(x_LD[kept_L]))

    return Curves(
        share=np.array(moved) / count,
        deletion=np.array([output(rank_L >= k) for k in moved]),
        insertion=np.array([output(rank_L < k) for k in moved]),
    )


def blind_orders(
    rc: Int[np.ndarray, "L 2"], square: Int[np.ndarray, " L"], grid_rc: tuple[float, float]
) -> dict[str, Float[np.ndarray, " L"]]:
    """Two maps that know nothing of the model, which a faithful map must beat: `random` squares, and `centre`.

    Args:
        rc: Row and column of each token.
        square: The square of each token.
        grid_rc: Rows and columns of tokens that the slide has; what is nearest to the middle comes first in `centre`.
    """
    return {
        "random": np.random.default_rng(0).random(int(square.max()) + 1)[square],
        "centre": -np.linalg.norm(rc + 0.5 - np.array(grid_rc) / 2, axis=1),
    }


def save_curves(found: Mapping[str, Curves], blind: Mapping[str, Curves], quantity: str, folder: Path) -> None:
    """Write `faithfulness.csv`, a row per map and step, and `faithfulness.png`, the curves with their areas.

    Args:
        found: Curves of each map, by what it is called.
        blind: Those of orders that know nothing of the model, dashed.
        quantity: What the output is called.
        folder: Folder to write to.
    """
    every = {**found, **blind}
    columns = ("share", "deletion", "insertion")
    tables = [
        pd.DataFrame({name: getattr(one, name) for name in columns}).assign(map=key) for key, one in every.items()
    ]
    pd.concat(tables)[["map", *columns]].to_csv(folder / "faithfulness.csv", index=False, float_format="%.7g")
    figure = Figure(figsize=(10, 4.2), dpi=150, layout="constrained")
    FigureCanvasAgg(figure)
    halves = (
        ("deletion", "highest scores leave; low is faithful"),
        ("insertion", "highest scores come; high is faithful"),
    )
    for i, (axes, (kind, how)) in enumerate(zip(figure.subplots(1, 2, sharey=True), halves, strict=True)):
        for key, one in every.items():
            style = {"ls": "--", "c": "0.3" if key == "random" else "0.6"} if key in blind else {}
            axes.plot(one.share, getattr(one, kind), label=f"{key} ({one.areas[i]:.2f})", **style)
        axes.set(title=f"{kind}: {how}", xlabel="share of the squares of tokens")
        axes.spines[["top", "right"]].set_visible(False)
        axes.legend(title="area under the curve", fontsize=8, title_fontsize=8, frameon=False)
    figure.axes[0].set_ylabel(quantity)
    figure.savefig(folder / "faithfulness.png", format="png")


def auroc(scores: Float[np.ndarray, " L"], truth: Float[np.ndarray, " L"]) -> float:
    """Probability that a token of the truth scores higher than another; NaN where all or none are of it.

    Args:
        scores: Scores of the tokens.
        truth: Share of each token that is of the truth; more than half counts as being of it.
    """
    inside = truth > 0.5
    return float(roc_auc_score(inside, scores)) if 0 < inside.sum() < len(inside) else float("nan")
