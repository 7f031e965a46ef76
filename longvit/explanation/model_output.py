"""Output of a model as a function of the tokens that enter the encoder's blocks."""

from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor

from longvit.model.predictor import SlideModel


@dataclass(frozen=True)
class ModelOutput:
    """Output that is explained: a class's logit, a log hazard or a risk, of a model in evaluation mode.

    Tokens already include their places, so that tokens can be removed from the sequence without moving other tokens.
    """

    model: SlideModel
    """Model with an encoder; its weights need no gradient, and on long sequences should have none."""
    output: int = 0
    """Index of the class; 0 for survival."""

    @property
    def target(self) -> str:
        """Name of the class, or `risk`."""
        return self.model.classes[self.output] if self.model.classes else "risk"

    @property
    def quantity(self) -> str:
        """Name of the output."""
        quantity = self.model.task.quantity
        return f"{quantity} of {self.target}" if self.model.classes else quantity

    def __call__(self, x_LD: Float[Tensor, "L D"]) -> Float[Tensor, ""]:
        """Return the output for embedded tokens of one slide."""
        return self.of_slide(self.slide(x_LD))

    def slide(self, x_LD: Float[Tensor, "L D"]) -> Float[Tensor, " D"]:
        """Return the slide's vector, the input of the head, for embedded tokens."""
        encoded = self.model.required_encoder.encode(x_LD[None])
        attention = self.model.attention
        return (encoded.slide_BD if attention is None else attention(encoded.tokens_BLD))[0]

    def of_slide(self, slide_D: Float[Tensor, " D"]) -> Float[Tensor, ""]:
        """Return the output for a slide's vector: a number that is larger if the class or the event is likelier."""
        return self.model.task.score(self.model.head(slide_D[None]), self.output)[0]

    def pooled(self, tokens_LD: Float[Tensor, "L D"]) -> Float[Tensor, " L"]:
        """Return the weights of the encoder's tokens in the slide's vector, by attention pooling or by a mean."""
        if self.model.attention is None:
            return tokens_LD.new_full((len(tokens_LD),), 1 / len(tokens_LD))
        return self.model.attention.weights(tokens_LD[None])[0]
