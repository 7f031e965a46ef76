"""Model + store -> which parts of a slide its prediction draws on."""

from longvit.explanation.attention import attention_rollout as attention_rollout
from longvit.explanation.attention import received_attention as received_attention
from longvit.explanation.attribution import token_contributions as token_contributions
from longvit.explanation.heatmap import heatmap as heatmap
from longvit.explanation.viewer.notebook import show as show
