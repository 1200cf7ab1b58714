"""NeuroNet, the multimodal fusion, and the classifiers on top of them, written only in keras.ops."""
