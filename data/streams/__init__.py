"""The tf.data streams that feed training: RecSleepNet's windows and SynthSleepNet's epochs."""
