"""What every layer and model of both packages must do, on every Keras backend.

Each is built, called, also as in training, described in JSON, saved, loaded again and run in mixed precision.
"""

import inspect
import json
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from importlib import import_module
from typing import Any

import keras
import numpy as np
import pytest
from keras import ops, tree

import recsleep
import synth
from data.terms import InputError
from recsleep.layers import (
    ConvolutionalReconstructionBlock,
    GlobalMaxAveragePooling,
    PeepholeLSTM,
    PeepholeLSTMCell,
)
from recsleep.model import EpochEncoder, RecSleepNet
from runs.networks import load_model, save_model
from synth.layers.frames import FrameBackbone, NormalisedConvolution, ResidualBlock
from synth.layers.lora import LoraDense
from synth.layers.mamba import ChunkCell, Mamba, Mamba2
from synth.layers.transformer import EncoderLayer, TransformerBlock
from synth.models.classifier import FineTuning, Head, NeuroNetFineTuning, SelfAttention, SequenceClassifier
from synth.models.fusion import FusionDecoder, SynthSleepNet, SynthSleepNetEncoder, TokenEmbedding
from synth.models.neuronet import MaskedDecoder, NeuroNet, NeuroNetDescription, NeuroNetEncoder, Projector
from synth.terms import TCMS

pytestmark = [pytest.mark.model, pytest.mark.usefixtures("small_backbone")]

RNG = np.random.default_rng(0)


def normal(*shape: int) -> np.ndarray:
    return RNG.normal(size=shape).astype("float32")


def uniform(*shape: int) -> np.ndarray:
    return RNG.random(size=shape).astype("float32")


@dataclass(frozen=True)
class Case:
    """A layer or model, small, and what it is called with.

    Attributes:
        kind: its class.
        arguments: of the class.
        inputs: makes the positional arguments of a call.
        shapes: of all outputs.
        options: keyword arguments of a call.
        build: the shape to build it for, where that is not the first input's.
        float32: whether its outputs stay float32 under mixed precision.
        tolerance: the largest error under mixed precision, as a share of the largest output. bfloat16 has 8 bits, so
            that one rounding makes an error of up to 0.4 %.
    """

    kind: type[keras.layers.Layer]
    arguments: dict[str, Any]
    inputs: Callable[[], tuple[Any, ...]]
    shapes: list[tuple[int, ...]]
    options: dict[str, Any] = field(default_factory=dict)
    build: tuple[int | None, ...] | None = None
    float32: bool = False
    tolerance: float = 0.03

    def made(self, dtype: str = "float32") -> keras.layers.Layer:
        layer = self.kind(**self.arguments, dtype=dtype)
        if not layer.built:
            layer.build(self.build or self.inputs()[0].shape)
        return layer

    def __str__(self) -> str:
        varied = (v for k, v in self.arguments.items() if k in ("tcm", "global_pooling"))
        return "-".join([self.kind.__name__, *varied])


ENCODER = {"filters": 4, "first_kernel": 20, "first_stride": 3, "block_kernel": 4, "first_pool": 4, "second_pool": 3}
# 6 frames of an epoch, and 12 of a batch in every case: JAX compiles each shape anew.
BACKBONE = {"window": 3, "step": 5.4, "dim": 16, "heads": 2, "depth": 1}
FUSION = {"modalities": ["EEG", "EMG"], "backbone": BACKBONE, "dim": 16, "heads": 2, "depth": 1}
DECODER = {"decoder_dim": 16, "decoder_heads": 2, "decoder_depth": 1, "projection": (16, 8), "temperature": 0.2}
LORA = {"proj": {"rank": 2, "alpha": 4.0, "dropout": 0.1}}


def places() -> np.ndarray:
    return np.argsort(uniform(2, 6), axis=1).astype("int32")


def both(make: Callable[[], np.ndarray]) -> dict[str, np.ndarray]:
    return {name: make() for name in FUSION["modalities"]}


ALONE = {"modalities": ["EEG"], "backbone": FUSION["backbone"], "dim": 16}

CASES = [
    Case(ConvolutionalReconstructionBlock, {"filters": 4, "kernel_size": 3}, lambda: (normal(2, 9, 4),), [(2, 9, 4)]),
    Case(GlobalMaxAveragePooling, {}, lambda: (normal(2, 9, 4),), [(2, 8)]),
    Case(
        PeepholeLSTMCell,
        {"units": 3, "forget_bias": 0.5},
        lambda: (normal(2, 12), [normal(2, 3), normal(2, 3)]),
        [(2, 3)] * 3,
        build=(None, 12),
    ),
    Case(
        PeepholeLSTM,
        {"units": 3, "forget_bias": 0.5},
        lambda: (normal(2, 5, 4), (normal(2, 3), normal(2, 3))),
        [(2, 5, 3), (2, 3), (2, 3)],
        build=(None, None, 4),
    ),
    Case(EpochEncoder, {**ENCODER, "dropout": 0.2}, lambda: (normal(6, 300),), [(6, 8)]),
    *(
        Case(EpochEncoder, {**ENCODER, "dropout": 0.2, "global_pooling": one}, lambda: (normal(6, 300),), [(6, 4)])
        for one in ("average", "maximum")
    ),
    Case(
        RecSleepNet,
        {"samples": 300, **ENCODER, "lstm_units": 3, "dropout": 0.2},
        lambda: ({"signals": normal(2, 3, 300), "state": (normal(2, 3), normal(2, 3))},),
        [(2, 3, 5), (2, 3), (2, 3)],
        float32=True,
    ),
    Case(ChunkCell, {"heads": 2, "size": 4}, lambda: (normal(2, 10), [normal(2, 8)]), [(2, 8), (2, 8)]),
    Case(
        Mamba,
        {"d_model": 8, "d_state": 4, "d_conv": 3, "expand": 1, "chunk_size": 2},
        lambda: (normal(2, 6, 8),),
        [(2, 6, 8)],
    ),
    Case(Mamba2, {"d_model": 8, "d_state": 4, "headdim": 8, "chunk_size": 4}, lambda: (normal(2, 6, 8),), [(2, 6, 8)]),
    Case(
        NormalisedConvolution,
        {"filters": 4, "kernel_size": 3, "stride": 2, "padding": 1, "elu": False},
        lambda: (normal(2, 1, 9, 3),),
        [(2, 1, 5, 4)],
    ),
    Case(
        ResidualBlock,
        {"filters": 16, "kernel_size": 5, "stride": 2},
        lambda: (normal(2, 1, 20, 8),),
        [(2, 1, 7, 16)],
        float32=True,
    ),
    Case(FrameBackbone, {"window": 3, "lora": {"linear1": {"rank": 2}}}, lambda: (normal(2, 6, 300),), [(2, 6, 144)]),
    Case(LoraDense, {"units": 6, "lora": LORA["proj"]}, lambda: (normal(2, 7, 8),), [(2, 7, 6)]),
    Case(TransformerBlock, {"dim": 16, "heads": 2, "lora": LORA}, lambda: (normal(2, 7, 16),), [(2, 7, 16)]),
    Case(
        EncoderLayer,
        {"dim": 16, "heads": 2, "hidden": 24, "dropout": 0.2},
        lambda: (normal(2, 7, 16), np.arange(7)[None] < np.array([[7], [4]])),
        [(2, 7, 16)],
    ),
    Case(NeuroNetEncoder, {**BACKBONE, "lora": LORA, "frozen": True}, lambda: (normal(2, 3000),), [(2, 7, 16)]),
    Case(
        MaskedDecoder,
        {"dim": 16, "heads": 2, "depth": 1, "outputs": 8},
        lambda: (normal(2, 2, 16), places()),
        [(2, 6, 8)],
        build=(None, 6, 16),
    ),
    Case(Projector, {"features": (16, 8)}, lambda: (normal(2, 16),), [(2, 8)]),
    Case(
        NeuroNet,
        {**BACKBONE, **DECODER},
        lambda: ({"signals": normal(2, 3000), "noise": uniform(2, 2, 6)},),
        [(), (4, 3), ()],
        float32=True,
    ),
    Case(TokenEmbedding, {"dim": 16}, lambda: (normal(2, 6, 16),), [(2, 6, 16)]),
    Case(
        FusionDecoder,
        {"modalities": ["EEG", "EMG"], "dim": 16, "heads": 2, "depth": 1, "outputs": 8},
        lambda: (normal(2, 2, 16), places()),
        [(2, 6, 8)],
        options={"modality": "EMG"},
        build=(None, 6, 16),
    ),
    Case(SynthSleepNetEncoder, {**FUSION, "lora": LORA}, lambda: (both(lambda: normal(2, 3000)),), [(2, 16)]),
    Case(
        SynthSleepNet,
        {**FUSION, **DECODER},
        lambda: ({"signals": both(lambda: normal(2, 3000)), "noise": both(lambda: uniform(2, 6))},),
        [(), ()],
        float32=True,
    ),
    Case(Head, {"features": 16, "classes": 2, "dropout": 0.2}, lambda: (normal(2, 6, 16),), [(2, 6, 2)]),
    Case(SelfAttention, {"features": 16, "heads": 2}, lambda: (normal(2, 6, 16),), [(2, 6, 16)]),
    *(
        Case(SequenceClassifier, {"features": 64, "classes": 5, "tcm": tcm}, lambda: (normal(2, 6, 64),), [(2, 6, 5)])
        for tcm in TCMS
    ),
    Case(
        FineTuning,
        {"encoder": FUSION | {"modalities": ["EEG"], "dim": 64}, "classes": 2, "rank": 2},
        lambda: ({"signals": {"EEG": normal(1, 2, 3000)}, "mask": np.array([[True, True]])},),
        [(1, 2, 2)],
        # An encoder and a classifier in a row, of random weights: over 16 draws of them the error was 0.5 to 20 %.
        tolerance=0.25,
    ),
    Case(NeuroNetDescription, ALONE, lambda: ({"EEG": normal(2, 3000)},), [(2, 16)]),
    Case(
        NeuroNetFineTuning,
        {"encoder": ALONE, "classes": 2},
        lambda: ({"signals": {"EEG": normal(1, 2, 3000)}, "mask": np.array([[True, True]])},),
        [(1, 2, 2)],
        # An encoder and a classifier in a row, of random weights: over 16 draws of them the error was 0.5 to 20 %.
        tolerance=0.25,
    ),
]


def numpy(x: Any) -> np.ndarray:
    return ops.convert_to_numpy(ops.cast(x, "float32"))


def dtypes(tensors: Iterable[Any]) -> set[str]:
    return {keras.backend.standardize_dtype(tensor.dtype) for tensor in tensors}


def shapes(tensors: Iterable[Any]) -> list[tuple[int, ...]]:
    return [tuple(tensor.shape) for tensor in tensors]


WHOLE = [pytest.mark.whole_model]
"""Of the largest models: JAX, which leaves them out, tests their parts."""


@pytest.mark.parametrize(
    "case",
    [pytest.param(case, marks=WHOLE if case.kind in (SynthSleepNet, FineTuning) else []) for case in CASES],
    ids=str,
)
def test_contract(case, tmp_path):
    """One test for all promises, since building the larger models is most of the work."""
    inputs = case.inputs()

    def outputs(layer: keras.layers.Layer, **options: Any) -> list[Any]:
        return tree.flatten(layer(*inputs, **case.options, **options))

    layer = case.made()
    for variable in layer.weights:
        # Zeros, as in the second matrix of LoRA, would hide what they are multiplied with.
        if not numpy(variable).any():
            variable.assign(0.1 * normal(*variable.shape))
    expected = outputs(layer)
    assert shapes(expected) == case.shapes
    assert dtypes(expected) == {"float32"}
    if case.kind.compute_output_shape is not keras.layers.Layer.compute_output_shape:
        assert tuple(layer.compute_output_shape(inputs[0].shape)) == case.shapes[0]

    arguments = set(inspect.signature(case.kind.__init__).parameters) - {"self", "kwargs"}
    assert arguments <= set(layer.get_config())
    described = json.loads(json.dumps(keras.saving.serialize_keras_object(layer)))
    copy = keras.saving.deserialize_keras_object(described)
    assert type(copy) is case.kind
    assert copy.get_config() == layer.get_config()
    assert shapes(copy.weights) == shapes(layer.weights)

    save_model(tmp_path, layer, {})
    with pytest.raises(InputError, match=r"does not describe a Dense: name another folder\."):
        load_model(tmp_path, [keras.layers.Dense])
    loaded = load_model(tmp_path, [case.kind])
    assert [v.trainable for v in loaded.weights] == [v.trainable for v in layer.weights]
    for found, value in zip(outputs(loaded), expected, strict=True):
        np.testing.assert_array_equal(numpy(found), numpy(value))

    mixed = case.made("mixed_bfloat16")
    mixed.set_weights(layer.get_weights())
    rounded = outputs(mixed)
    assert dtypes(mixed.weights) <= {"float32"}
    assert dtypes(rounded) == {"float32" if case.float32 else "bfloat16"}
    pairs = [(numpy(found), numpy(value)) for found, value in zip(rounded, expected, strict=True)]
    assert 0 < max(np.abs(found - value).max() / np.abs(value).max() for found, value in pairs) < case.tolerance

    if "training" in inspect.signature(case.kind.call).parameters:
        before = [numpy(variable).copy() for variable in layer.trainable_weights]
        trained = outputs(layer, training=True)
        assert shapes(trained) == case.shapes
        assert all(np.isfinite(numpy(value)).all() for value in trained)
        # A call learns statistics of the batch, but it trains no weight.
        for variable, value in zip(layer.trainable_weights, before, strict=True):
            np.testing.assert_array_equal(numpy(variable), value)


LAYERS = {case.kind: case for case in CASES if case.kind.__name__ in {*recsleep.__all__, *synth.__all__}}
LAYERS = {kind: case for kind, case in LAYERS.items() if not issubclass(kind, keras.Model)}
OF_ANY_WIDTH = (EpochEncoder, GlobalMaxAveragePooling, LoraDense, PeepholeLSTM)


@pytest.mark.parametrize("case", LAYERS.values(), ids=str)
def test_a_model_is_told_true_shapes_and_a_wrong_width_is_refused(case):
    """Where a layer is put into a model, where it is built by itself, and where it is called once more."""
    inputs = case.inputs()

    def symbols(width: int) -> Any:
        first, *others = tree.map_structure(lambda x: keras.KerasTensor((None, *x.shape[1:]), str(x.dtype)), inputs)
        return keras.KerasTensor((*first.shape[:-1], width)), *others

    width = inputs[0].shape[-1]
    layer = case.kind(**case.arguments)
    assert [x.shape[1:] for x in tree.flatten(layer(*symbols(width)))] == [shape[1:] for shape in case.shapes]
    if case.kind in OF_ANY_WIDTH:
        return
    with pytest.raises(ValueError, match=f"expected axis -1 of input shape to have value {width}"):
        layer(*symbols(width + 1))
    sentence = rf"^{case.kind.__name__}: .+ is {width}, but the input has {width + 1} .+: make them equal\.$"
    for use in (lambda layer: layer(*symbols(width + 1)), lambda layer: layer.build((None, None, width + 1))):
        with pytest.raises(ValueError, match=sentence):
            use(case.kind(**case.arguments))


def test_every_registered_class_is_in_the_table(project):
    for package in ("recsleep", "synth"):
        for path in (project / package).rglob("*.py"):
            if "register_keras_serializable" in path.read_text(encoding="utf-8"):
                import_module(".".join(path.relative_to(project).with_suffix("").parts))
    registered = keras.saving.get_custom_objects()
    ours = {kind for name, kind in registered.items() if name.startswith(("recsleep>", "synth>"))}
    assert ours == {case.kind for case in CASES}
