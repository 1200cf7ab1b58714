"""RecSleepNet: sleep stages from one EEG channel.

A network of a convolution, a Convolutional Reconstruction Block (CRB), a Global Max and Average Pooling Block (GMAPB)
and an LSTM, for five AASM stages. Its published TensorFlow-1 checkpoints are read as well.
"""
