"""NeuroNet, the multimodal fusion, and the classifiers on top, in keras.ops alone."""
