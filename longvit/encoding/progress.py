"""Progress bar of a slide that takes up to half an hour: it moves twice in every block, by the work that is done."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from torch import Tensor, nn

from longvit.model import LongViT
from longvit.model.cost import TokenCost

_DAY_S = 86_400.0


def progress_bar() -> Progress:
    """Return a bar that estimates over the whole run, because two steps of a large slide may be minutes apart."""
    columns = (BarColumn(), TaskProgressColumn(), TimeElapsedColumn(), TimeRemainingColumn())
    return Progress(TextColumn("{task.description}"), *columns, speed_estimate_period=_DAY_S)


@contextmanager
def watched(encoder: LongViT, work: TokenCost, done: Callable[[int, float], None]) -> Iterator[None]:
    """Report progress from within the blocks while slides are encoded in this context.

    Args:
        encoder: The encoder.
        work: Cost of a token of the slide.
        done: Function called after each attention and each feed-forward layer, with the block's number (from 1) and the
            work.
    """

    def report(block: int, per_token: float) -> Callable[[nn.Module, tuple, Tensor], None]:
        return lambda module, inputs, out: done(block, per_token * out.shape[-2])

    hooks = []
    for block, layer in enumerate(encoder.encoder.blocks, start=1):
        hooks.append(layer.self_attn.register_forward_hook(report(block, work.attention)))
        hooks.append(layer.ffn.register_forward_hook(report(block, work.feed_forward)))
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()
