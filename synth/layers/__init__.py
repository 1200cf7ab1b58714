"""The layers that SynthSleepNet consists of, written only in keras.ops."""
