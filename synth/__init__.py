"""SynthSleepNet: a multimodal foundation model of polysomnography, and the layers it is made of."""
