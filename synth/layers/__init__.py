"""The layers that SynthSleepNet is made of, in keras.ops alone."""
