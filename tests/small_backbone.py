"""The trainer, as a command, with frame backbones of one short branch; see the fixture ``small_backbone``.

What is built around a backbone does not depend on its size, and TensorFlow traces a small one ten times as fast. The
goldens of the published model and the contract of all layers test the whole one.
"""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from unittest.mock import patch

SIZES = {"WIDTHS": (32, 32), "STRIDES": (1, 2), "POOLING": {3: 30}}


@contextmanager
def small_backbones() -> Iterator[None]:
    """Frame backbones are small meanwhile."""
    from synth.layers import frames

    with patch.multiple(frames, **SIZES):
        yield


if __name__ == "__main__":
    import trainer

    with small_backbones():
        sys.exit(trainer.main(sys.argv[1:]))
