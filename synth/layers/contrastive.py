"""NT-Xent, the normalised temperature-scaled cross entropy between two views of the same epochs.

Chen et al., "A Simple Framework for Contrastive Learning of Visual Representations", ICML 2020, equation 1.
"""

from typing import Any

from keras import ops


def nt_xent(first: Any, second: Any, temperature: float) -> tuple[Any, Any]:
    """The loss that is small if each of the 2 B views is more like its partner than like all other views.

    Args:
        first: (B, D), one view of each epoch.
        second: (B, D), the other view.
        temperature: the temperature of the softmax.

    Returns:
        The loss, a scalar, and its logits (2 B, 2 B - 1): the similarities of each view to its partner, in column 0,
        and to all other views, divided by ``temperature``.
    """
    batch = first.shape[0]
    views = ops.concatenate([first, second], axis=0)
    views = views / ops.maximum(ops.sqrt(ops.sum(ops.square(views), axis=1, keepdims=True)), 1e-8)
    similarity = ops.matmul(views, ops.transpose(views)) / temperature
    partner = ops.concatenate([ops.arange(batch, 2 * batch), ops.arange(batch)])
    # In row i, the partner of view i comes first, then all views except these two, in order.
    rows = ops.arange(2 * batch)[:, None]
    others = ops.arange(2 * batch - 2)[None, :]
    low, high = ops.minimum(rows[:, 0], partner)[:, None], ops.maximum(rows[:, 0], partner)[:, None]
    others = others + ops.cast(others >= low, others.dtype)
    others = others + ops.cast(others >= high, others.dtype)
    logits = ops.take_along_axis(similarity, ops.concatenate([partner[:, None], others], axis=1), axis=1)
    return ops.mean(ops.logsumexp(logits, axis=1) - logits[:, 0]), logits
