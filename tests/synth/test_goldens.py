"""Our models with the published models' weights give the published models' outputs: computed in float64 by PyTorch."""

import json

import numpy as np
import pytest
from gradients import gradients
from keras import ops

from staging.engine import open_session
from staging.graph import Graph
from synth.inference import InferenceEncoder, InferenceNetwork
from synth.layers.contrastive import nt_xent
from synth.layers.frames import FrameBackbone
from synth.layers.lora import Lora
from synth.layers.mamba import Mamba, Mamba2
from synth.layers.transformer import random_masking, sine_positions
from synth.models.classifier import FineTuning, SequenceClassifier
from synth.models.fusion import SynthSleepNet
from synth.models.neuronet import NeuroNet, NeuroNetEncoder
from synth.onnx import encoder_to_onnx, to_onnx
from synth.onnx.context import logits
from synth.pytorch.state_dict import entries_of, load_state_dict

pytestmark = pytest.mark.model


class Golden:
    """One golden file: ``given``, ``expected`` and ``weights`` by name, and the tolerance of each output."""

    def __init__(self, path):
        with np.load(path) as file:
            self.arrays = {key: file[key] for key in file.files if key != "meta"}
            self.meta = json.loads(str(file["meta"]))
        self.weights = {key[2:]: array for key, array in self.arrays.items() if key.startswith("w/")}

    def given(self, name):
        return ops.convert_to_tensor(self.arrays[f"in/{name}"])

    def check(self, name, found, relative=1e-5):
        """Within ten times PyTorch's own float32 error, or ``relative`` of the largest value."""
        expected = self.arrays[f"out/{name}"]
        noise = self.meta["torch_f32_noise"].get(name, {}).get("torch_f32_err", 0)
        allowed = max(10 * noise, relative * float(np.abs(expected).max()))
        assert np.abs(ops.convert_to_numpy(found) - expected).max() <= allowed, name


@pytest.fixture
def golden(reference):
    return lambda name: Golden(reference / "goldens" / f"{name}.npz")


def test_positions(golden):
    for name, expected in golden("sincos").arrays.items():
        dim, tokens, cls_token = (int(part.strip("dncls")) for part in name.removeprefix("out/").split("_"))
        assert np.array_equal(sine_positions(tokens, dim, bool(cls_token)), expected)


def test_nt_xent(golden):
    file = golden("ntxent")
    views = file.given("z_i"), file.given("z_j"), file.meta["ctor"]["temperature"]
    loss, logits = nt_xent(*views)
    file.check("logits", logits)
    file.check("loss", loss)


def test_frame_backbone(golden):
    file = golden("framebackbone")
    layer = FrameBackbone(window=4)
    layer.build((None, 5, 400))
    load_state_dict(layer, file.weights)
    file.check("latent", layer(file.given("x")))


@pytest.fixture
def neuronet(golden):
    file = golden("neuronet")
    model = NeuroNet(3, 1.5, 64, 4, 2, 48, 4, 2, (96, 40), 0.05)
    load_state_dict(model, file.weights)
    return file, model


@pytest.mark.parametrize(("key", "ratio"), [("mr50", 0.5), pytest.param("mr80", 0.8, marks=pytest.mark.whole_model)])
def test_neuronet(neuronet, key, ratio):
    file, model = neuronet
    noise = ops.stack([file.given(f"{key}/noise1"), file.given(f"{key}/noise2")])
    losses = model({"signals": file.given("x"), "noise": noise}, mask_ratio=ratio)
    file.check(f"{key}/recon_loss", losses["reconstruction"])
    file.check(f"{key}/contrastive_loss", losses["contrastive"])
    file.check(f"{key}/logits", losses["logits"])
    features = model.encoder.describe_frames(file.given("x"))
    tokens, mask, places = model.encoder.encode(features, ratio, noise[0])
    file.check(f"{key}/latent1", tokens)
    file.check(f"{key}/pred1", model.decoder(tokens[:, 1:], places))
    assert np.array_equal(ops.convert_to_numpy(mask), file.arrays[f"out/{key}/mask1"])
    file.check("forward_latent", model.encoder(file.given("x"))[:, 0])


@pytest.mark.whole_model
def test_a_modality_alone_in_onnx_runtime(neuronet):
    file, model = neuronet
    network = InferenceEncoder(encoder_to_onnx(model.encoder, ["eeg"]))
    file.check("forward_latent", network.embed({"eeg": file.arrays["in/x"]}))


def test_an_encoder_takes_its_part_of_a_pretrained_network(neuronet):
    """The cls token of the encoder alone, once it has the encoder's weights of a pretrained NeuroNet."""
    file, _ = neuronet
    encoder = NeuroNetEncoder(3, 1.5, 64, 4, 2, lora={"proj": Lora()}, frozen=True)
    names = {
        name.replace("autoencoder.", ""): array
        for name, array in file.weights.items()
        if "decoder" not in name and "projector" not in name and "mask_token" not in name
    }
    load_state_dict(encoder, names)
    file.check("forward_latent", encoder(file.given("x"))[:, 0])


MODALITIES = ("EEG_C4", "EOG_Left", "ECG")
UNIMODAL = {"window": 3, "step": 3, "dim": 64, "heads": 4, "depth": 2}


@pytest.fixture
def fusion(golden):
    file = golden("synthsleepnet")
    backbone = {**UNIMODAL, "lora": {"proj": Lora(rank=4, alpha=16)}}
    model = SynthSleepNet(MODALITIES, backbone, 48, 4, 2, 32, 4, 2, (56, 24), 0.1)
    load_state_dict(model, file.weights)
    return file, model, {name: file.given(f"x/{name}") for name in MODALITIES}


@pytest.mark.parametrize(("key", "ratio"), [("mr40", 0.4), pytest.param("mr80", 0.8, marks=pytest.mark.whole_model)])
def test_fusion(fusion, key, ratio):
    file, model, signals = fusion
    noise = {name: file.given(f"{key}/noise/{name}") for name in MODALITIES}
    losses = model({"signals": signals, "noise": noise}, mask_ratio=ratio)
    # Each modality is rebuilt from its own tokens, which the published code does not do.
    file.check(f"{key}/fixed_decoder/recon_loss", losses["reconstruction"])
    file.check(f"{key}/contrastive_loss", losses["contrastive"])
    tokens = model.encoder.describe(signals)
    fused, masks, _ = model.encoder.fuse(tokens, ratio, noise)
    file.check(f"{key}/fusion_tokens", fused)
    for name in MODALITIES:
        file.check(f"unimodal_tokens/{name}", tokens[name])
        assert np.array_equal(ops.convert_to_numpy(masks[name]), file.arrays[f"out/{key}/mask/{name}"])
    file.check("multimodal_embed", model.encoder(signals))


@pytest.mark.whole_model
def test_fusion_in_onnx_runtime(fusion):
    file, model, _ = fusion
    network = InferenceEncoder(encoder_to_onnx(model.encoder, MODALITIES))
    file.check("multimodal_embed", network.embed({name: file.arrays[f"in/x/{name}"] for name in MODALITIES}))


@pytest.fixture
def head(golden):
    file = golden("ft_head")
    layer = SequenceClassifier(64, 5)
    layer.build((None, None, 64))
    load_state_dict(layer, file.weights)
    return file, layer


def test_sequence_classifier(head):
    file, layer = head
    file.check("mamba", layer.context(file.given("latents")))
    file.check("logits", layer(file.given("latents")))


def test_sequence_classifier_in_onnx_runtime(head):
    file, layer = head
    graph = Graph("head")
    found = logits(graph, layer, "latents")
    session = open_session(graph.file({"latents": ("epochs", 64)}, {found: ("epochs", 5)}, {}))
    stretches = [session.run([found], {"latents": stretch})[0] for stretch in file.arrays["in/latents"]]
    file.check("logits", np.stack(stretches))


@pytest.fixture
def fine_tuned(golden):
    file = golden("ft_full")
    modalities = ["EEG_C4", "EOG_Left"]
    encoder = {
        "modalities": modalities,
        "backbone": {**UNIMODAL, "lora": {"proj": Lora(rank=4, alpha=16)}},
        "dim": 64,
        "heads": 4,
        "depth": 4,
    }
    model = FineTuning(encoder)
    load_state_dict(model, file.weights)
    return file, model, modalities


@pytest.mark.whole_model
def test_fine_tuned_model(fine_tuned):
    file, model, modalities = fine_tuned
    file.check("logits", model({"signals": {name: file.given(f"x/{name}") for name in modalities}}))
    learning = {id(variable) for variable in model.trainable_variables}
    ours = {entry.name for entry in entries_of(model) if id(entry.variable) in learning}
    assert ours == set(file.meta["trainable_parameters"])


@pytest.mark.whole_model
def test_fine_tuned_model_in_onnx_runtime(fine_tuned):
    file, model, modalities = fine_tuned
    network, x = InferenceNetwork(to_onnx(model)), {name: file.arrays[f"in/x/{name}"] for name in modalities}
    night = {name: stretches.reshape(-1, 3000) for name, stretches in x.items()}
    expected = ops.convert_to_numpy(ops.softmax(file.arrays["out/logits"]))
    found = network.probabilities(night, x[modalities[0]].shape[1])
    np.testing.assert_allclose(found, expected.reshape(-1, 5), atol=1e-5)


STATE_SPACES = {"mamba1": Mamba, "mamba2": Mamba2}


@pytest.mark.parametrize("length", [20, 100, 1200])
@pytest.mark.parametrize("name", STATE_SPACES)
def test_state_spaces(golden, name, length):
    file = golden(name)
    layer = STATE_SPACES[name](64)
    layer.build((None, None, 64))
    load_state_dict(layer, file.weights)
    file.check(f"L{length}/y", layer(file.given(f"L{length}/x")))


@pytest.mark.parametrize("length", [20, 100])
@pytest.mark.parametrize("name", STATE_SPACES)
def test_state_spaces_gradients(golden, name, length):
    """Of sum(y²), for the input and every weight, within 1e-4 of the largest."""
    file = golden(name)
    layer = STATE_SPACES[name](64)
    layer.build((None, None, 64))
    load_state_dict(layer, file.weights)
    of_input, of_weights = gradients(layer, file.arrays[f"in/L{length}/x"])
    compare(of_input, file.arrays[f"out/L{length}/grad_in"], "input")
    for entry in entries_of(layer):
        place = next(i for i, variable in enumerate(layer.trainable_variables) if variable is entry.variable)
        compare(of_weights[place], entry.convert(file.arrays[f"out/L{length}/grad/{entry.name}"]), entry.name)


def compare(found, expected, name):
    assert np.abs(found - expected).max() <= 1e-4 * np.abs(expected).max(), name


def test_masking_puts_tokens_back():
    noise = np.random.default_rng(0).random((3, 7)).astype("float32")
    x = np.arange(3 * 7 * 2, dtype="float32").reshape(3, 7, 2)
    visible, mask, places = random_masking(ops.convert_to_tensor(x), 0.5, ops.convert_to_tensor(noise))
    from synth.layers.transformer import restore

    back = ops.convert_to_numpy(restore(visible, ops.full((1, 1, 2), -1.0), places))
    hidden = ops.convert_to_numpy(mask).astype(bool)
    assert hidden.sum(axis=1).tolist() == [4, 4, 4]
    assert np.array_equal(back[~hidden], x[~hidden]) and (back[hidden] == -1).all()
