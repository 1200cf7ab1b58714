import dataclasses
from pathlib import Path

import pytest
from pydantic import ValidationError

import command_line
import config as values
from config import NEURONET_PRESETS, PRESETS, TrainingConfig
from data.databases import DATABASES, database
from data.terms import InputError
from runs.settings import ABLATIONS, configure, without


def test_published_sizes():
    assert [len(DATABASES[db].subjects) for db in ("sleepedf", "sleepedfx", "isruc", "ucddb")] == [20, 78, 99, 25]
    assert [DATABASES[db].folds for db in ("sleepedf", "sleepedfx", "isruc", "ucddb")] == [20, 10, 10, 25]


def test_misspelling_in_circulation_is_isruc():
    assert database("isurc") is DATABASES["isruc"]


def test_assignments_take_the_type_of_what_they_replace():
    config = configure(
        "ucddb", ["passes=3", "learning_rate=1", "transductive=true", "class_weights=[1,2,1,1,1]", "precision=float32"]
    )
    assert config.training.passes == 3
    assert type(config.training.learning_rate) is float
    assert config.training.transductive is True
    assert config.training.class_weights == (1.0, 2.0, 1.0, 1.0, 1.0)


def test_every_section_can_be_set():
    config = configure("synthetic", ["subjects=(0,1,2,3)", "folds=2", "hours=1", "filters=8"])
    assert (config.database.subjects, config.database.folds) == ((0, 1, 2, 3), 2)
    assert (config.synthetic.hours, config.model.filters) == (1.0, 8)


@pytest.mark.parametrize(
    ("assignment", "told"),
    [
        ("passes", "NAME=VALUE"),
        ("pases=3", "did you mean passes"),
        ("zzz=3", "choose one of"),
        ("passes=many", "such as 100"),
        ("passes=2.5", "such as 100"),
        ("passes=True", "such as 100"),
        ("passes=0", "between 1 and"),
        ("passes=99999999999", "between 1 and"),
        ("reconstruction_passes=-1", "between 0 and"),
        ("learning_rate=-1", "between"),
        ("learning_rate=nan", "such as"),
        ("learning_rate=1e999", "between"),
        ("learning_rate=" + 60 * "9", "such as"),
        ("dropout=1.5", "between 0 and"),
        ("validation_fraction=1", "between"),
        ("lstm_units=99999999999999999999999", "between"),
        ("adam_beta_1=1.5", "between"),
        ("l2=-1", "between"),
        ("class_weights=(0,0,0,0,0)", "above 0"),
        ("subjects=(0,-1,2)", "0 or above"),
        ("subjects=(0,True,2)", "0 or above"),
        ("night_patterns=()", "at least one"),
        ("night_patterns=('{foo}.npz',)", "file name with {subject}"),
        ("night_patterns=('../{subject}.npz',)", "file name with {subject}"),
        ("night_patterns=('{subject:zz}.npz',)", "file name with {subject}"),
        ("class_weights=(1,1)", "5 numbers"),
        ("class_weights=('a',)", "such as"),
        ("precision=float8", "mixed_bfloat16"),
        ("global_pooling=max", "both or average or maximum"),
        ("folds=1000", "from 2 to 25"),
        ("subjects=(1,1,2)", "different numbers"),
        ("transductive=3", "such as False"),
        ("db=isruc", "no such value"),
        ("seed=-1", "between"),
        ("seed=99999999999", "between"),
        ("published=5", "no such value"),
    ],
)
def test_wrong_assignments_are_told(assignment, told):
    with pytest.raises(InputError) as error:
        configure("ucddb", [assignment])
    assert told in str(error.value)
    assert "\n" not in str(error.value)


def test_unknown_database_suggests_the_nearest():
    with pytest.raises(InputError, match="did you mean isruc"):
        database("isruk")
    with pytest.raises(InputError, match="choose one of sleepedf"):
        database("mass")


SECTIONS = [kind for name, kind in vars(values).items() if dataclasses.is_dataclass(kind)]


@pytest.mark.parametrize("section", SECTIONS)
def test_every_number_has_a_range(section):
    """So that a new value is not left unchecked: neither infinity nor a number below all others is taken."""
    assert len(SECTIONS) == 7
    for field in dataclasses.fields(section):
        if type(field.default) in (int, float, tuple) and field.default != ():
            for wrong in (10**30, -(10**30)):
                value = (wrong,) * len(field.default) if isinstance(field.default, tuple) else wrong
                with pytest.raises(ValidationError):
                    section(**{field.name: value})


OF_EACH = {"synthsleepnet": PRESETS, "neuronet": NEURONET_PRESETS}


@pytest.mark.parametrize(("model", "preset"), [(model, preset) for model in OF_EACH for preset in OF_EACH[model]])
def test_presets_suit(model, preset):
    config = configure("shhs", preset=preset, model=model)
    assert (config.model, config.training) == OF_EACH[model][preset]


def test_neuronet_takes_one_channel_and_five_folds():
    """Those of the database, or as set; what a fusion alone has cannot be set."""
    config = configure("sleepedfx", preset="mini", model="neuronet")
    assert config.database.modalities == (("eeg", "EEG Fpz-Cz"),) and config.database.folds == 5 and not config.fused
    other = configure("shhs", ["channel=EEG_C3", "folds=10"], "mini", model="neuronet").database
    assert other.modalities == (("eeg", "EEG_C3"),) and other.folds == 10
    with pytest.raises(InputError, match="--set fusion_blocks: config"):
        configure("shhs", ["fusion_blocks=2"], "mini", model="neuronet")


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("frame_step_seconds=2.0,", "frame_step_second=2.0,"),
        ("unimodal_batch=64,", "unimodal_batch=-64,"),
        ("unimodal_blocks: Blocks = 4", "unimodal_blocks: Blocks = 0"),
        ("unimodal_batch: Batch = 256", 'unimodal_batch: Batch = "256"'),
    ],
)
def test_a_mistake_in_the_file_is_refused_when_it_is_loaded(old, new):
    text = Path(values.__file__).read_text()
    assert old in text
    with pytest.raises(ValidationError):
        exec(compile(text.replace(old, new), "config.py", "exec"), {"__name__": "edited"})


def test_a_section_made_by_hand_is_checked_as_well():
    with pytest.raises(ValidationError):
        TrainingConfig(passes=0)
    with pytest.raises(ValidationError):
        dataclasses.replace(TrainingConfig(), l2="much")


@pytest.mark.parametrize(
    ("assignment", "told"),
    [
        ("unimodal_features=30", "multiple of 4"),
        ("fusion_heads=7", "multiple of 4 and of fusion_heads"),
        ("fusion_projection=(3,)", "2 numbers"),
        ("passes=3", "no such value"),
        ("unimodal_mask_ratio=1", "between"),
        ("fusion_adaptation_rank=-1", "between 0 and"),
    ],
)
def test_bad_values_of_synthsleepnet_are_told(assignment, told):
    with pytest.raises(InputError, match=told):
        configure("shhs", [assignment], preset="paper")


def test_a_loss_of_nothing_is_told():
    with pytest.raises(InputError, match="reconstruction_weight and contrastive_weight are both 0"):
        configure("shhs", ["reconstruction_weight=0", "contrastive_weight=0"], preset="paper")


# Each ablation of either model: the one value of the section that it changes, or the several.
CHANGED = {
    "crb": {"reconstruction_passes": 0, "reconstruction_weight": 0.0},
    "average": {"global_pooling": "maximum"},
    "maximum": {"global_pooling": "average"},
    "masked_prediction": {"reconstruction_weight": 0.0},
    "contrast": {"contrastive_weight": 0.0},
    "fusion_lora": {"fusion_adaptation_rank": 0},
}


@pytest.mark.parametrize("part", CHANGED)
@pytest.mark.parametrize("model", ABLATIONS)
def test_an_ablation_changes_its_values_alone(model, part):
    preset = None if model == "recsleepnet" else "tiny"
    if part not in ABLATIONS[model]:
        with pytest.raises(
            InputError,
            match=f"--without {part}: {model} has no such part to leave out: choose {next(iter(ABLATIONS[model]))}, ",
        ):
            without(model, [part])
        return
    before, after = (configure("synthetic", given, preset, model=model) for given in ([], without(model, [part])))
    found = {}
    for section in ("model", "training"):
        values = dataclasses.asdict(getattr(before, section))
        found |= {n: v for n, v in dataclasses.asdict(getattr(after, section)).items() if v != values[n]}
    assert found == CHANGED[part]


def test_an_ablation_is_named_once_or_twice_but_contradicted_never():
    assert without("synthsleepnet", ["contrast", "fusion_lora", "contrast"]) == [
        "contrastive_weight=0",
        "fusion_adaptation_rank=0",
    ]
    with pytest.raises(
        InputError,
        match="--without maximum means global_pooling=average, but another --without means global_pooling=maximum",
    ):
        without("recsleepnet", ["average", "maximum"])


def test_an_unknown_preset_is_told():
    with pytest.raises(InputError, match="choose one of paper, small, tiny"):
        configure("shhs", preset="big")


@pytest.mark.parametrize(
    ("line", "wrong", "reason"),
    [
        ("\n    passes: Passes = 100", "\n    passes: Passes = 0", "TrainingConfig: passes = 0: Input should be"),
        (
            "fusion_features=128,",
            "fusion_feature=128,",
            "SynthSleepNetConfig: fusion_feature = 128: Unexpected",
        ),
    ],
)
def test_a_mistake_in_the_file_is_one_sentence(project, line, wrong, reason, capsys):
    text = (project / "config.py").read_text()
    assert line in text

    def load() -> None:
        names = {"__name__": "edited"}
        exec(text.replace(line, wrong), names)
        names["TrainingConfig"]()

    assert command_line.run(load, "trainer.py") == 2
    printed = capsys.readouterr().err
    assert reason in printed and printed.count("\n") == 1


def test_published_results_say_what_they_are_of(capsys):
    command_line.print_published(DATABASES["sleepedf"], {"sleep_stage"})
    told = capsys.readouterr().out.splitlines()
    assert told[2] == "published on Sleep-EDF-20, XSleepNet2 (of EEG and EOG): " + (
        "accuracy 0.864   macro-F1 0.809   kappa 0.81"
    )
    assert told[0].startswith("published on Sleep-EDF-20, TinySleepNet: accuracy 0.854")
    command_line.print_published(DATABASES["shhs"], {"hypopnea"})
    fine_tuned, few_labels = capsys.readouterr().out.splitlines()
    assert "Study, hypopnea, SynthSleepNet (fine-tuned; chosen by its test subjects): accuracy 0.896" in fine_tuned
    assert "(with few labels; chosen by its test subjects): accuracy 0.775" in few_labels
