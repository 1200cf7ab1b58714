"""Stage a night with only NumPy and ONNX Runtime: ``python examples/stage_with_onnx.py model.onnx night.npz``."""

import json
import os
import sys

import numpy as np

os.environ["ORT_DISABLE_TELEMETRY"] = "1"  # Otherwise ONNX Runtime would tell its makers what it runs.
import onnxruntime

session = onnxruntime.InferenceSession(sys.argv[1])
about = {name: json.loads(text) for name, text in session.get_modelmeta().custom_metadata_map.items()}
with np.load(sys.argv[2], allow_pickle=False) as night:
    signals = night["x"].reshape(-1, 3000)  # (epochs, samples): one EEG channel at 100 Hz.

# Scale the recording to the level of the training nights.
level = about["recipe"]["level"]
signals = signals - np.median(signals, axis=1, keepdims=True)
signals *= level["amplitude"] / np.median(np.median(np.abs(signals), axis=1))
limit = 16 * level["amplitude"]
signals = (np.clip(signals, -limit, limit) + level["offset"]).astype(np.float32)

before = np.zeros(session.get_inputs()[1].shape, np.float32)
(probabilities,) = session.run(["probabilities"], {"signals": signals[None], "hidden": before, "cell": before})
for epoch, each in enumerate(probabilities):
    print(epoch, about["stages"][each.argmax()], f"{each.max():.2f}")
