"""The layers and models by themselves: recurrences, masks, the state's precision, LoRA, freezing, odd sizes."""

import json

import h5py
import keras
import numpy as np
import plain_numpy
import pytest
from gradients import gradients
from keras import ops

from data.terms import InputError
from runs.networks import load_model, save_model
from runs.saved import sha256
from synth.layers.frames import BATCH_NORM, FrameBackbone, NormalisedConvolution
from synth.layers.lora import Lora, merge
from synth.layers.mamba import Mamba, Mamba2
from synth.models.classifier import FineTuning, SequenceClassifier
from synth.models.fusion import SynthSleepNet, SynthSleepNetEncoder
from synth.models.neuronet import NeuroNet, NeuroNetEncoder
from synth.pytorch.state_dict import entries_of, load_state_dict, read_state_dict
from synth.terms import TCMS

pytestmark = pytest.mark.model

RNG = np.random.default_rng(5)
SMALL = {"window": 3, "step": 5.4, "dim": 16, "heads": 2, "depth": 1}
FUSION = {"modalities": ["EEG", "EMG"], "backbone": SMALL, "dim": 64, "heads": 4, "depth": 1}


def numpy(x) -> np.ndarray:
    return ops.convert_to_numpy(x)


def normal(*shape) -> np.ndarray:
    return RNG.normal(size=shape).astype("float32")


def size(variables) -> int:
    return sum(int(np.prod(variable.shape)) for variable in variables)


def plain_state_space(layer, x: np.ndarray) -> np.ndarray:
    """Either layer as a loop over steps in float64, written from the papers' recurrences."""
    w = {variable.name: numpy(variable).astype("float64") for variable in layer.weights}
    x = x.astype("float64")
    inner, states, rows = layer.d_inner, layer.d_state, []
    first = isinstance(layer, Mamba)
    width = inner if first else inner + 2 * states
    window = np.zeros((len(x), layer.d_conv, width))
    hidden = np.zeros((len(x), inner, states))

    def silu(v):
        return v / (1 + np.exp(-v))

    for now in x.swapaxes(0, 1):
        projected = now @ w["in_kernel"]
        z = projected[:, inner:] if first else projected[:, :inner]
        entering = projected[:, :inner] if first else projected[:, inner : inner + width]
        window = np.concatenate([window[:, 1:], entering[:, None]], axis=1)
        u = silu((window * w["convolution_kernel"]).sum(axis=1) + w["convolution_bias"])
        if first:
            parts = u @ w["x_kernel"]
            step = np.log1p(np.exp(parts[:, : layer.rank] @ w["step_kernel"] + w["step_bias"]))
            b, c = parts[:, layer.rank : layer.rank + states], parts[:, layer.rank + states :]
            a, skip = -np.exp(w["a_log"]), w["skip"]
        else:
            step = np.log1p(np.exp(projected[:, inner + width :] + w["step_bias"]))
            step = np.repeat(step, layer.headdim, axis=1)
            u, b, c = u[:, :inner], u[:, inner : inner + states], u[:, inner + states :]
            a = -np.repeat(np.exp(w["a_log"]), layer.headdim)[:, None]
            skip = np.repeat(w["skip"], layer.headdim)
        hidden = np.exp(step[:, :, None] * a) * hidden + (step * u)[:, :, None] * b[:, None]
        y = ((hidden * c[:, None]).sum(axis=2) + skip * u) * silu(z)
        if not first:
            y = y / np.sqrt((y**2).mean(axis=1, keepdims=True) + 1e-5) * w["norm_scale"]
        rows.append(y @ w["out_kernel"])
    return np.stack(rows, axis=1)


def test_gradients_of_batch_normalisation_are_the_slopes_of_a_plain_one():
    """Finite differences of a float64 NumPy layer, in a random direction of the input and of each weight."""
    layer = NormalisedConvolution(3, 3, padding=1)
    layer.build((None, 1, None, 2))
    layer.gamma.assign([0.5, 1.0, 1.5])
    layer.beta.assign([-1.0, 0.0, 1.0])
    x = 2 + normal(4, 1, 9, 2)

    def loss(x, kernel, gamma, beta):
        padded = np.pad(x, ((0, 0), (0, 0), (1, 1), (0, 0)))
        y = sum(padded[:, :, k : k + 9] @ kernel[k] for k in range(3))
        y = (y - y.mean((0, 1, 2))) / np.sqrt(y.var((0, 1, 2)) + BATCH_NORM["epsilon"]) * gamma + beta
        return np.square(np.where(y > 0, y, np.expm1(np.minimum(y, 0)))).sum()

    at = [x.astype("float64"), *(numpy(variable).astype("float64") for variable in layer.trainable_variables)]
    of_input, of_weights = gradients(layer, x, training=True)
    for place, gradient in enumerate([of_input, *of_weights]):
        direction = RNG.normal(size=gradient.shape)

        def beside(step, place=place, direction=direction):
            return loss(*(v + step * direction if i == place else v for i, v in enumerate(at)))

        slope = (beside(1e-6) - beside(-1e-6)) / 2e-6
        assert (gradient * direction).sum() == pytest.approx(slope, rel=1e-3, abs=1e-3)


@pytest.fixture(params=[Mamba, Mamba2])
def state_space(request):
    layer = request.param(32, d_state=8, chunk_size=16, **({"headdim": 16} if request.param is Mamba2 else {}))
    layer.build((None, None, 32))
    return layer


@pytest.mark.parametrize("length", [1, 3, 16, 17, 50])
def test_as_a_plain_loop(state_space, length):
    x = normal(2, length, 32)
    expected = plain_state_space(state_space, x)
    assert np.abs(numpy(state_space(x)) - expected).max() < 1e-5 * max(1, np.abs(expected).max())


def test_step_by_step_as_the_whole(state_space):
    x = normal(2, 36, 32)  # More than are written out as one chunk.
    state, steps = state_space.initial_state(2), []
    for k in range(36):
        y, state = state_space.step(ops.convert_to_tensor(x[:, k]), state)
        steps.append(numpy(y))
    whole, last = state_space.run(ops.convert_to_tensor(x))
    assert np.abs(np.stack(steps, 1) - numpy(whole)).max() < 1e-5
    assert all(np.abs(numpy(a) - numpy(b)).max() < 1e-5 for a, b in zip(state, last, strict=True))


def test_in_two_parts_as_the_whole(state_space):
    x = normal(2, 70, 32)  # The second part is cut into chunks, and begins with the state of the first.
    first, state = state_space.run(ops.convert_to_tensor(x[:, :13]))
    second, _ = state_space.run(ops.convert_to_tensor(x[:, 13:]), state)
    both = np.concatenate([numpy(first), numpy(second)], axis=1)
    assert np.abs(both - numpy(state_space(x))).max() < 1e-5


def test_padding_changes_nothing(state_space):
    """Before, after: the epochs that count come out as if they were alone, and the padding gives zeros."""
    x, padding = normal(1, 10, 32), 5 * normal(1, 4, 32)
    alone = numpy(state_space(x))
    for parts in ((x, padding), (padding, x)):
        mask = np.concatenate([np.full(part.shape[:2], part is x) for part in parts], axis=1)
        y = numpy(state_space(np.concatenate(parts, axis=1), mask=ops.convert_to_tensor(mask)))
        assert np.abs(y[mask] - alone[0]).max() < 1e-5
        assert (y[~mask] == 0).all()


def test_state_stays_float32_in_mixed_precision(state_space):
    config = state_space.get_config() | {"dtype": "mixed_bfloat16"}
    mixed = type(state_space).from_config(config)
    mixed.build((None, None, 32))
    mixed.set_weights(state_space.get_weights())
    x = normal(2, 100, 32)
    y, (_, hidden) = mixed.run(ops.convert_to_tensor(x))
    assert keras.backend.standardize_dtype(hidden.dtype) == "float32"
    # Over many steps, in which errors would add up.
    exact = numpy(state_space(x))
    assert np.abs(numpy(ops.cast(y, "float32")) - exact).max() < 0.05 * np.abs(exact).max()


@pytest.mark.skipif(keras.backend.backend() == "torch", reason="XLA is TensorFlow's and JAX's")
def test_compiles_under_xla(state_space):
    x = normal(2, 40, 32)
    expected = numpy(state_space(x))
    if keras.backend.backend() == "jax":
        import jax

        found = jax.jit(lambda x: state_space(x))(x)
        jax.jit(jax.grad(lambda x: (state_space(x) ** 2).sum()))(x)
    else:
        import tensorflow as tf

        @tf.function(jit_compile=True)
        def compiled(x):
            with tf.GradientTape() as tape:
                tape.watch(x)
                y = state_space(x)
                loss = tf.reduce_sum(y**2)
            return y, tape.gradient(loss, x)

        found = compiled(tf.constant(x))[0]
    assert np.abs(numpy(found) - expected).max() < 1e-5


@pytest.mark.whole_model
def test_published_sizes(monkeypatch):
    # Two hundred million random numbers would be most of this test's time.
    zeros = keras.initializers.Zeros().__call__
    monkeypatch.setattr(keras.initializers.VarianceScaling, "__call__", lambda _, *shape, **of: zeros(*shape, **of))
    counted = {}
    for window in (3, 4, 5):
        layer = FrameBackbone(window)
        layer.build((None, None, 100 * window))
        counted[window] = size(layer.trainable_weights)
    assert counted == {3: 5_826_368, 4: 35_912_000, 5: 106_696_000}
    for layer, features, expected in ((Mamba2(512), 512, 1_603_792), (Mamba(256), 256, 437_760)):
        layer.build((None, None, features))
        assert size(layer.weights) == expected
    assert size(NeuroNet().trainable_weights) == 71_587_392
    assert size(NeuroNetEncoder(lora={"proj": Lora()}, frozen=True).trainable_weights) == 24_576


def signals(*shape) -> dict[str, np.ndarray]:
    return {name: normal(*shape, 3000) for name in FUSION["modalities"]}


def build(name):
    """A small model, and inputs for it."""
    if name == "neuronet":
        model = NeuroNet(**SMALL, decoder_dim=16, decoder_heads=2, decoder_depth=1, projection=(16, 8))
        return model, {"signals": normal(3, 3000), "noise": RNG.random((2, 3, 6)).astype("float32")}
    if name == "encoder":
        return NeuroNetEncoder(**SMALL, lora={"proj": Lora(2)}), normal(3, 3000)
    if name == "synthsleepnet":
        model = SynthSleepNet(**FUSION, decoder_dim=16, decoder_heads=2, decoder_depth=1, projection=(16, 8))
        return model, {
            "signals": signals(3),
            "noise": {n: RNG.random((3, 6)).astype("float32") for n in ("EEG", "EMG")},
        }
    if name == "fusion encoder":
        return SynthSleepNetEncoder(**FUSION), signals(3)
    if name == "fine tuning":
        return FineTuning(FUSION), {"signals": signals(2, 2)}
    classifier = SequenceClassifier(64, 5, name)
    classifier.build((None, None, 64))
    return classifier, normal(2, 5, 64)


def outputs(model, inputs) -> list[np.ndarray]:
    found = model(inputs)
    return [numpy(value) for value in (found.values() if isinstance(found, dict) else [found])]


@pytest.mark.whole_model
@pytest.mark.usefixtures("narrow")
@pytest.mark.parametrize("name", ["encoder", "fine tuning"])
def test_merged_computes_the_same(name):
    model, inputs = build(name)
    model.set_weights([weight + 0.01 * normal(*weight.shape) for weight in model.get_weights()])
    plain = merge(model)
    assert not any(variable.name.startswith("lora") for variable in plain.weights)
    for before, after in zip(outputs(model, inputs), outputs(plain, inputs), strict=True):
        assert np.abs(before - after).max() < 1e-4 * np.abs(before).max()


@pytest.mark.whole_model
@pytest.mark.usefixtures("narrow")
def test_frozen_means_frozen():
    """A call in training changes the batch statistics of what learns alone."""
    model, inputs = build("synthsleepnet")
    before = {variable.path: numpy(variable).copy() for variable in model.weights}
    model(inputs, training=True)
    moved = {path for path, old in before.items() for v in model.weights if v.path == path and (numpy(v) != old).any()}
    assert moved and all("moving" in path for path in moved)
    assert not any("backbone_" in path for path in moved)
    backbone = [v for v in model.encoder.backbones["EEG"].weights if v.trainable]
    assert {v.name for v in backbone} == {"lora_a", "lora_b"}


@pytest.mark.whole_model
@pytest.mark.usefixtures("narrow")
def test_a_pretrained_backbone_keeps_its_weights():
    model, _ = build("synthsleepnet")
    pretrained = NeuroNetEncoder(**SMALL)
    state = {
        entry.name: numpy(entry.variable).T if entry.convert.__name__ == "_transposed" else numpy(entry.variable)
        for entry in entries_of(pretrained)
    }
    load_state_dict(model.encoder.backbones["EEG"], state)
    x = normal(2, 3000)
    assert np.abs(numpy(model.encoder.backbones["EEG"](x)) - numpy(pretrained(x))).max() < 1e-6


@pytest.mark.whole_model
@pytest.mark.usefixtures("narrow")
@pytest.mark.parametrize("name", ["synthsleepnet", "neuronet", "fine tuning", *TCMS])
def test_a_batch_of_one(name):
    model, inputs = build(name)
    one = ops.convert_to_tensor

    def first(value, axis=0):
        return (
            {k: first(v, 1 if k == "noise" and name == "neuronet" else 0) for k, v in value.items()}
            if isinstance(value, dict)
            else one(value[:1] if axis == 0 else value[:, :1])
        )

    assert all(np.isfinite(value).all() for value in outputs(model, first(inputs)))


COMPUTED = {
    "lstm": plain_numpy.lstm,
    "encoder": plain_numpy.encoder_layer,
    "mha": lambda layer, x: plain_numpy.self_attention(layer.attention, x),
}
MODULES = [*(tcm for tcm in TCMS if "mamba" not in tcm), ("lstm",), ("mha",)]


def random_classifier(tcm, **kwargs) -> SequenceClassifier:
    """A classifier none of whose weights is as it begins."""
    classifier = SequenceClassifier(64, 5, tcm, **kwargs)
    classifier.build((None, None, 64))
    for variable in classifier.weights:
        lowest = 0.5 if variable.name in ("gamma", "moving_variance") else -0.5
        scale = 1 if variable.ndim == 1 else 4 / np.sqrt(np.prod(variable.shape[:-1]))
        variable.assign(scale * RNG.uniform(lowest, 1.5 if lowest > 0 else 0.5, variable.shape))
    return classifier


@pytest.mark.parametrize("tcm", MODULES, ids=str)
def test_modules_are_those_of_plain_float64(rounding, tcm):
    """Along time, stretch by stretch, whatever stands in the padding of the shorter ones."""
    classifier = random_classifier(tcm, dtype="float64")
    x, mask = RNG.normal(size=(3, 9, 64)), np.arange(9) < np.array([9, 5, 1])[:, None]
    named = zip(classifier.context_layers, classifier.tcm, strict=True)
    modules = [(layer, COMPUTED[name]) for layer, name in named]
    found = numpy(classifier(np.where(mask[..., None], x, 1e3), mask=ops.convert_to_tensor(mask)))
    for stretch, own, there in zip(found, x, mask, strict=True):
        expected = plain_numpy.classifier(classifier, modules, own[there])
        # On TensorFlow, too, Keras rounds one number to float32: the scale of attention.
        np.testing.assert_allclose(stretch[there], expected, rtol=0, atol=max(10 * rounding, 1e-7))


@pytest.mark.parametrize("tcm", TCMS)
def test_padded_epochs_do_not_reach_the_others(tcm):
    """Behind or in front of those that count."""
    classifier = random_classifier(tcm)
    x, padding = normal(1, 8, 64), 9 * normal(1, 4, 64)
    expected = numpy(classifier(x))[0]
    for parts in ((x, padding), (padding, x)):
        mask = np.concatenate([np.full(part.shape[:2], part is x) for part in parts], axis=1)
        found = numpy(classifier(np.concatenate(parts, axis=1), mask=ops.convert_to_tensor(mask)))
        assert np.abs(found[mask] - expected).max() < 1e-5 * np.abs(expected).max()


def test_modules_of_pytorch():
    """With PyTorch's own values: two layers of its LSTM, and of its TransformerEncoderLayer."""
    torch = pytest.importorskip("torch", reason="PyTorch computes what is compared")
    classifier = random_classifier("lstm_mha")
    lstm, first, second = classifier.context_layers
    theirs = torch.nn.LSTM(64, 64, batch_first=True)
    one = torch.nn.TransformerEncoderLayer(64, 8, batch_first=True)
    encoder = torch.nn.TransformerEncoder(one, 2, enable_nested_tensor=False).eval()

    def tensor(*variables):
        return torch.tensor(np.concatenate([numpy(variable).T for variable in variables]))

    # PyTorch has a second bias, of the recurrent product.
    cell = (*(tensor(v) for v in (lstm.cell.kernel, lstm.cell.recurrent_kernel, lstm.cell.bias)), torch.zeros(256))
    theirs.load_state_dict(dict(zip(theirs.state_dict(), cell, strict=True)))
    state = {}
    for number, layer in enumerate((first, second)):
        own = layer.attention
        inputs = (own.query_dense, own.key_dense, own.value_dense)
        parts = {
            "self_attn.in_proj_weight": tensor(*(ops.reshape(part.kernel, (64, 64)) for part in inputs)),
            "self_attn.in_proj_bias": tensor(*(ops.reshape(part.bias, (64,)) for part in inputs)),
            "self_attn.out_proj.weight": tensor(ops.reshape(own.output_dense.kernel, (64, 64))),
            "self_attn.out_proj.bias": tensor(own.output_dense.bias),
        }
        for name, own in (("linear1", layer.fc1), ("linear2", layer.fc2)):
            parts |= {f"{name}.weight": tensor(own.kernel), f"{name}.bias": tensor(own.bias)}
        for name, own in (("norm1", layer.norm1), ("norm2", layer.norm2)):
            parts |= {f"{name}.weight": tensor(own.gamma), f"{name}.bias": tensor(own.beta)}
        state |= {f"layers.{number}.{name}": value for name, value in parts.items()}
    encoder.load_state_dict(state)
    x, mask = normal(2, 7, 64), np.arange(7) < np.array([7, 4])[:, None]
    with torch.no_grad():
        expected = encoder(theirs(torch.tensor(x))[0], src_key_padding_mask=torch.tensor(~mask)).numpy()
    found = numpy(classifier.context(x, mask=ops.convert_to_tensor(mask)))
    np.testing.assert_allclose(found[mask], expected[mask], atol=1e-5)


def test_unknown_modules_are_told():
    with pytest.raises(ValueError, match="no temporal context module 'gru': choose one of mamba2, mamba, lstm"):
        SequenceClassifier(64, 5, "gru")
    with pytest.raises(ValueError, match=r"there are no layers \['gru'\]"):
        SequenceClassifier(64, 5, ["lstm", "gru"])


@pytest.mark.whole_model
@pytest.mark.usefixtures("narrow")
@pytest.mark.parametrize("tcm", ["mamba2", "mamba", "lstm", "mha"])
def test_models_of_version_1_are_read_as_they_were(tmp_path, tcm):
    """Their configuration names one layer, which has its own weights in the file."""
    network = FineTuning(FUSION | {"modalities": ["EEG"]}, tcm=[tcm])
    save_model(tmp_path, network, {})
    config, metadata = (json.loads((tmp_path / name).read_text()) for name in ("config.json", "metadata.json"))
    config["arguments"]["tcm"] = tcm
    (tmp_path / "config.json").write_text(json.dumps(config))
    metadata["sha256"]["config.json"] = sha256(tmp_path / "config.json")
    (tmp_path / "metadata.json").write_text(json.dumps(metadata))
    loaded = load_model(tmp_path, [FineTuning])
    assert loaded.get_config()["tcm"] == (tcm,)
    with h5py.File(tmp_path / "model.weights.h5") as file:
        assert "layers" not in file["classifier/context"]
    x = normal(2, 5, 64)
    np.testing.assert_array_equal(numpy(loaded.classifier(x)), numpy(network.classifier(x)))


def test_every_tensor_that_does_not_fit_is_listed():
    layer = Mamba2(64)
    layer.build((None, None, 64))
    state = {"A_log": np.zeros(2), "D": np.zeros(3), "surplus": np.zeros(1), "in_proj.weight": np.zeros((290, 64))}
    before = numpy(layer.a_log).copy()
    with pytest.raises(InputError) as error:
        load_state_dict(layer, state, "best_model.pth")
    told = str(error.value)
    assert told.startswith("best_model.pth does not fit Mamba2: ")
    assert "conv1d.weight is missing" in told and "norm.weight is missing" in told
    assert "D has the wrong shape (3,)" in told and "surplus is unexpected" in told
    assert np.array_equal(numpy(layer.a_log), before)


def test_pth_files(tmp_path):
    torch = pytest.importorskip("torch", reason="PyTorch reads .pth files")
    layer = Mamba(32)
    layer.build((None, None, 32))
    state = {
        entry.name: torch.tensor(numpy(entry.variable).T.copy() if entry.variable.ndim == 2 else numpy(entry.variable))
        for entry in entries_of(layer)
    }
    state["conv1d.weight"] = state["conv1d.weight"][:, None]
    state["A_log"] = state["A_log"].T
    path = tmp_path / "best_model.pth"
    torch.save({"model_state": state, "epoch": 3, "name": "x"}, path)
    other = Mamba(32)
    other.build((None, None, 32))
    load_state_dict(other, read_state_dict(path), str(path))
    assert all(np.array_equal(a, b) for a, b in zip(layer.get_weights(), other.get_weights(), strict=True))
    for content in (b"", path.read_bytes()[:-300]):
        path.write_bytes(content)
        with pytest.raises(InputError, match="is damaged, or holds more than tensors"):
            read_state_dict(path)
    with pytest.raises(InputError, match="does not exist"):
        read_state_dict(tmp_path / "none.pth")
