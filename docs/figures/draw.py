"""The manual's diagrams, drawn as SVG beside this file: ``python docs/figures/draw.py``.

They are narrow, so that their text can be read on a phone, and have a background of their own, so that they can be read
on a dark page.
"""

from collections.abc import Iterator, Sequence
from html import escape
from pathlib import Path

WIDTH, MARGIN, GAP, ARROW, LINE = 520, 16, 12, 26, 19
COLOURS = {"signal": "#fbe6b8", "learnt": "#cfe3f5", "frozen": "#dfe3e8", "result": "#cfeadf", "loss": "#f6d2cf"}
"""Of a box: a signal, a part that learns, one that does not, what comes out, what training lowers."""

Box = tuple[str, str]
"""A kind of :data:`COLOURS`, and lines of text, of which the first is the title."""


def text(x: float, y: float, words: str, anchor: str = "middle", style: str = "") -> str:
    return f'<text x="{x:g}" y="{y:g}" text-anchor="{anchor}"{style}>{escape(words)}</text>'


def svg(title: str, height: float, parts: Sequence[str]) -> str:
    """A whole picture of ``parts``, which a screen reader calls ``title``."""
    head = (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height:g}" width="{WIDTH}" role="img" '
        f'font-family="sans-serif" font-size="14" fill="#1b2733">\n<title>{escape(title)}</title>\n'
        '<defs><marker id="tip" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="8" markerHeight="8" orient="auto">'
        '<path d="M0 0 8 4 0 8z" fill="#52606d"/></marker></defs>\n'
        f'<rect width="{WIDTH}" height="{height:g}" rx="8" fill="#ffffff" stroke="#d5dbe1"/>\n'
    )
    return head + "\n".join(parts) + "\n</svg>\n"


def flow(title: str, rows: Sequence[Sequence[Box]]) -> str:
    """Rows of boxes from top to bottom, with arrows from each row to the next.

    Rows of as many boxes are joined box by box; others, and those of results and losses, each with each. Of a loss
    nothing goes on.
    """
    parts: list[str] = []
    above: list[float] = []
    y = float(MARGIN)
    for row in rows:
        width = (WIDTH - 2 * MARGIN - GAP * (len(row) - 1)) / len(row)
        height = LINE * max(words.count("\n") + 1 for _, words in row) + 14
        centres = [MARGIN + width / 2 + number * (width + GAP) for number in range(len(row))]
        alike = len(above) == len(centres) and not {kind for kind, _ in row} & {"loss", "result"}
        pairs = zip(above, centres, strict=True) if alike else _each(above, centres)
        for start, end in pairs:
            parts.append(
                f'<line x1="{start:g}" y1="{y - ARROW + 2:g}" x2="{end:g}" y2="{y - 2:g}" stroke="#52606d" '
                'stroke-width="1.5" marker-end="url(#tip)"/>'
            )
        for (kind, words), centre in zip(row, centres, strict=True):
            parts.append(
                f'<rect x="{centre - width / 2:g}" y="{y:g}" width="{width:g}" height="{height:g}" rx="6" '
                f'fill="{COLOURS[kind]}" stroke="#52606d"/>'
            )
            for number, line in enumerate(words.split("\n")):
                style = "" if number else ' font-weight="bold"'
                parts.append(text(centre, y + 7 + LINE * (number + 0.75), line, style=style))
        y, above = y + height + ARROW, [c for (kind, _), c in zip(row, centres, strict=True) if kind != "loss"]
    return svg(title, y - ARROW + MARGIN, parts)


def _each(above: Sequence[float], below: Sequence[float]) -> Iterator[tuple[float, float]]:
    return ((start, end) for start in above for end in below)


def levels() -> str:
    """Accuracy on ``ucddb018`` at the levels to which a night may be brought, from ``data/recordings/quality.py``."""
    measured = {6.0: 0.73, 10.0: 0.88, 12.5: 0.90, 14.0: 0.91, 22.0: 0.91}
    left, right, top, bottom = 60, WIDTH - 30, 50, 230

    def place(level: float, accuracy: float) -> tuple[float, float]:
        return left + (right - left) * level / 24, bottom - (bottom - top) * (accuracy - 0.6) / 0.4

    parts = [text(MARGIN, 28, "Accuracy, by the level that the night is brought to", "start", ' font-weight="bold"')]
    for accuracy in (0.6, 0.7, 0.8, 0.9, 1.0):
        _, y = place(0, accuracy)
        parts += [
            f'<path d="M{left} {y:g}H{right}" stroke="#d5dbe1"/>',
            text(left - 8, y + 5, f"{accuracy:.1f}", "end"),
        ]
    points = [place(*point) for point in measured.items()]
    line = " ".join(f"{x:g},{y:g}" for x, y in points)
    parts.append(f'<polyline points="{line}" fill="none" stroke="#2f6fab" stroke-width="2"/>')
    for (level, accuracy), (x, y) in zip(measured.items(), points, strict=True):
        parts += [
            f'<circle cx="{x:g}" cy="{y:g}" r="4" fill="#2f6fab"/>',
            text(x, y + (-12 if level != 12.5 else 22), f"{accuracy:.2f}"),
            text(x, bottom + (20 if level != 14 else 36), f"{level:g}"),
        ]
    parts.append(text((left + right) / 2, bottom + 56, "level in µV (training: 12.5)"))
    return svg("Accuracy on ucddb018 by the level that it is calibrated to", bottom + 72, parts)


def breathing() -> str:
    """Epochs with events, the runs that they make, and the index."""
    asleep = "WSSSSSSSSSSSSSSSSSSW"
    events = "..##..#....####..#.#"
    parts = [text(MARGIN, 28, "Epochs of 30 s, and the runs that count as events", "start", ' font-weight="bold"')]
    side, y, start = (WIDTH - 2 * MARGIN) / len(asleep), 44, None
    for number, (sleep, event) in enumerate(zip(asleep, events, strict=True)):
        x = MARGIN + number * side
        counts = event == "#" and sleep == "S"
        fill = COLOURS["loss"] if counts else COLOURS["frozen"] if sleep == "W" else "#ffffff"
        parts.append(f'<rect x="{x:g}" y="{y}" width="{side:g}" height="34" fill="{fill}" stroke="#52606d"/>')
        parts.append(text(x + side / 2, y + 15, "W" if sleep == "W" else ""))
        parts.append(text(x + side / 2, y + 29, "●" if event == "#" else ""))
        if counts and start is None:
            start = x
        if start is not None and (number + 1 == len(asleep) or events[number + 1] != "#" or asleep[number + 1] == "W"):
            parts.append(
                f'<path d="M{start + 3:g} 84v6H{x + side - 3:g}v-6" fill="none" stroke="#a33" stroke-width="2"/>'
            )
            start = None
    parts += [
        text(WIDTH / 2, 112, "4 runs in 18 epochs of sleep = 9 minutes"),
        text(WIDTH / 2, 134, "estimated index: 4 / 0.15 h = 26.7 events per hour of sleep"),
        text(
            WIDTH / 2, 156, "the event in the last epoch does not count: the sleeper is awake", style=' fill="#52606d"'
        ),
    ]
    return svg("How the apnea-hypopnea index is estimated from epochs", 172, parts)


FIGURES = {
    "recsleepnet": flow(
        "RecSleepNet, from an epoch's signal to its stage",
        [
            [("signal", "One epoch of one EEG channel\n3000 samples: 30 s at 100 Hz")],
            [("learnt", "Convolution, ReLU\n128 filters of 50 samples, every 6th sample")],
            [("frozen", "Maximum of every 8 steps, dropout\n63 steps x 128")],
            [
                ("learnt", "Block (CRB)\n3 convolutions\n63 x 128"),
                ("loss", "only in training\n2 more convolutions must\nrebuild the block's first"),
            ],
            [("frozen", "Maximum of every 4 steps\n16 steps x 128")],
            [("frozen", "Average over steps\n128"), ("frozen", "Maximum over steps\n128")],
            [("learnt", "LSTM with peepholes, 128 units\nruns along the night, epoch after epoch")],
            [("learnt", "Dense layer")],
            [("result", "Probabilities of W, N1, N2, N3, REM")],
        ],
    ),
    "neuronet": flow(
        "NeuroNet: how the encoder of one modality is pretrained",
        [
            [("signal", "One epoch of one modality\n3000 samples")],
            [("signal", "27 frames of 4 s, one every second")],
            [("learnt", "Frame backbone\nthree branches of convolutions")],
            [("frozen", "Random mask\n80 % hidden"), ("frozen", "Another random mask\n80 % hidden")],
            [("learnt", "Transformer encoder\n768 features, 4 blocks"), ("learnt", "the same encoder")],
            [
                ("loss", "Masked prediction\nthe decoder rebuilds\nthe hidden frames"),
                ("loss", "Contrast\nboth views of an epoch\nmust be alike"),
            ],
        ],
    ),
    "synthsleepnet": flow(
        "SynthSleepNet: fusion of the modalities, and what is learnt from labels",
        [
            [("signal", "EEG"), ("signal", "EOG"), ("signal", "EMG")],
            [("frozen", "NeuroNet\n+ LoRA"), ("frozen", "NeuroNet\n+ LoRA"), ("frozen", "NeuroNet\n+ LoRA")],
            [
                ("learnt", "Tokens\n512 features"),
                ("learnt", "Tokens\n512 features"),
                ("learnt", "Tokens\n512 features"),
            ],
            [("learnt", "Fusion: a transformer over all tokens\n512 features, 4 blocks")],
            [("result", "Embedding of the epoch: the mean token")],
            [
                ("learnt", "Linear probing\na head, alone"),
                ("learnt", "Fine-tuning\nLoRA, Mamba-2 over\n20 epochs, a head"),
            ],
            [("result", "Sleep stage"), ("result", "Apnea"), ("result", "Hypopnea")],
        ],
    ),
    "night": flow(
        "A night's way through the code",
        [
            [("signal", "Recording, scoring\ndata/recordings, data/scorings")],
            [("frozen", "Recipe: channels, unit, band, rate, scaling\ndata/recipe.py")],
            [
                ("frozen", "to train: night file, stream\ndata/nights, data/streams"),
                ("frozen", "to stage: channels, quality\nstaging/stager.py"),
            ],
            [
                ("learnt", "Network, by Keras\nrecsleep/, synth/"),
                ("learnt", "Network, by ONNX Runtime\nstaging/engine.py"),
            ],
            [("frozen", "Probabilities, smoothed\nstaging/smoothing.py")],
            [("result", "Hypnogram: statistics, doubts\nevaluation/hypnogram.py")],
            [("result", "Files: CSV, EDF+, JSON, picture, page\nstaging/results.py, evaluation/report.py")],
        ],
    ),
    "packages": flow(
        "Each package may import those above it",
        [
            [("frozen", "data\nrecordings, scorings, nights, streams; knows no other package")],
            [("frozen", "evaluation\nscores, hypnogram, page"), ("frozen", "runs\nsaved models, workers")],
            [("frozen", "staging\nany recording, by any network")],
            [("learnt", "recsleep\nRecSleepNet"), ("learnt", "synth\nSynthSleepNet")],
            [("result", "trainer.py\nwith config.py"), ("result", "predict.py")],
        ],
    ),
    "levels": levels(),
    "breathing": breathing(),
}
"""The pictures by their names."""

if __name__ == "__main__":
    for name, picture in FIGURES.items():
        Path(__file__).with_name(f"{name}.svg").write_text(picture, encoding="utf-8")
