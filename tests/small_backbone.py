"""The trainer, as a command, with frame backbones of one short branch; see the fixture ``small_backbone``.

What is built around a backbone does not depend on its size, and TensorFlow traces a small one ten times as fast. The
goldens of the published model and the contract of all layers test the whole one.
"""

import sys

SIZES = {"WIDTHS": (32, 32), "STRIDES": (1, 2), "POOLING": {3: 30}}

if __name__ == "__main__":
    import trainer
    from synth.layers import frames

    for name, value in SIZES.items():
        setattr(frames, name, value)
    sys.exit(trainer.main(sys.argv[1:]))
