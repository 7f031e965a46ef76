"""Model + store -> which parts of a slide spoke for its prediction."""

from longvit.explanation.attribution import token_contributions as token_contributions
from longvit.explanation.heatmap import heatmap as heatmap
