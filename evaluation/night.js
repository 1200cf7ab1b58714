// The page of a staged night: the whole night on one time axis, an epoch of its signals below, and the scorer's
// corrections. What it shows is the JSON in the element "night" (evaluation/report.py writes it); Bokeh draws. Nothing is
// fetched and nothing is sent: corrections stay in this browser until they are saved.
"use strict";

const night = JSON.parse(document.getElementById("night").textContent);
const EPOCHS = night.model.length, SECONDS = night.epoch_seconds;
const NAMES = [...night.names, "unscored"]; // Stage -1 is the last.
const TEXTS = ["W", "N1", "N2", "N3", "R", "?"].map((stage) => `Sleep stage ${stage}`);
const KEYS = {w: 0, 1: 1, 2: 2, 3: 3, r: 4, "?": -1};
const LEVELS = night.from_top.map((name) => NAMES.indexOf(name)); // Stages of a hypnogram from its top.
const nameOf = (stage) => NAMES.at(stage);
const element = (id) => document.getElementById(id);
const epochs = [...Array(EPOCHS).keys()];

// ---------------------------------------------------------------------------------------------------- corrections

// The corrections in the order in which they were made: entries of {epoch, stage, who, when}. Undoing takes the last one away.
let changes = [];
const STORE = `recsleep ${night.fingerprint}`;
const doubtful = new Set(night.doubtful);

function restore() {
  try {
    const stored = JSON.parse(localStorage.getItem(STORE) ?? "[]");
    const valid = ({epoch, stage}) => epochs.includes(epoch) && Object.values(KEYS).includes(stage);
    changes = stored.filter(valid);
    element("who").value = localStorage.getItem("recsleep who") ?? "";
  } catch {
    say("This browser cannot keep your corrections: save them before you close the page.");
  }
}

function keep() {
  try {
    localStorage.setItem(STORE, JSON.stringify(changes));
  } catch {
    say("This browser cannot keep your corrections: save them before you close the page.");
  }
}

// The stage of every epoch as it is now.
function stages() {
  const found = [...night.stages];
  for (const {epoch, stage} of changes) found[epoch] = stage;
  return found;
}

// Who corrected an epoch, and when, by epoch: only epochs whose stage is now another than the models'.
function corrections() {
  const now = stages(), found = new Map();
  for (const {epoch, who, when} of [...night.corrections, ...changes]) found.set(epoch, {who, when});
  return new Map([...found].filter(([epoch]) => now[epoch] !== night.model[epoch]));
}

function correct(epoch, stage) {
  if (stages()[epoch] === stage) return;
  changes.push({epoch, stage, who: element("who").value.trim(), when: new Date().toISOString()});
  keep();
  draw();
}

function undo() {
  const last = changes.pop();
  if (!last) return;
  keep();
  go(last.epoch);
  draw();
}

// -------------------------------------------------------------------------------------------------------- exports

function csv() {
  const now = stages(), by = corrections();
  const quoted = (text) => (/[",\r\n]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text);
  const rows = epochs.map((epoch) => [
    epoch,
    nameOf(now[epoch]),
    nameOf(night.model[epoch]),
    night.confidence[epoch].toFixed(4),
    now[epoch] !== night.model[epoch],
    quoted(by.get(epoch)?.who ?? ""),
    by.get(epoch)?.when ?? "",
  ]);
  return ["epoch,stage,model_stage,probability,corrected,who,when", ...rows, ""].join("\n");
}

// Stretches of epochs of the same stage: {first, end, stage}.
function stretches(of) {
  const found = [];
  of.forEach((stage, epoch) => {
    if (epoch && of[epoch - 1] === stage) found.at(-1).end = epoch + 1;
    else found.push({first: epoch, end: epoch + 1, stage});
  });
  return found;
}

// EDF+ of annotations alone: a header, and a data record of no duration for each stretch of a stage.
function edf() {
  const lists = stretches(stages()).map(
    ({first, end, stage}) => `+${first * SECONDS}\x15${(end - first) * SECONDS}\x14${TEXTS.at(stage)}\x14\0`,
  );
  const longest = Math.max(...lists.map((list) => list.length)) + 6; // "+0", two marks and the two zeros.
  const size = longest + (longest % 2);
  const field = (text, width) => String(text).replace(/[^\x20-\x7e]/g, "_").slice(0, width).padEnd(width);
  // EDF has no years before 1985 or after 2084. A night whose start is not known begins in 1985.
  let begin = new Date(night.start ?? Date.UTC(1985, 0));
  if (begin.getUTCFullYear() < 1985 || begin.getUTCFullYear() > 2084) begin = new Date(Date.UTC(1985, 0));
  const two = (number) => String(number).padStart(2, "0");
  const day = two(begin.getUTCDate()), month = begin.getUTCMonth(), year = begin.getUTCFullYear();
  const named = `${day}-${"JAN FEB MAR APR MAY JUN JUL AUG SEP OCT NOV DEC".split(" ")[month]}-${year}`;
  const who = element("who").value.trim().replace(/\s+/g, "_") || "X";
  const clock = [begin.getUTCHours(), begin.getUTCMinutes(), begin.getUTCSeconds()].map(two).join(".");
  const header = [
    field("0", 8),
    field("X X X X", 80),
    field(`Startdate ${named} X ${who} recsleep`, 80),
    field(`${day}.${two(month + 1)}.${two(year % 100)}`, 8),
    field(clock, 8),
    field(512, 8),
    field("EDF+C", 44),
    field(lists.length, 8),
    field(0, 8),
    field(1, 4),
    // The header of the only signal: label, transducer, unit, ranges, filters, samples per record, reserved.
    field("EDF Annotations", 16),
    field("", 80),
    field("", 8),
    field(-1, 8),
    field(1, 8),
    field(-32768, 8),
    field(32767, 8),
    field("", 80),
    field(size / 2, 8),
    field("", 32),
  ];
  const records = lists.map((list) => `+0\x14\x14\0${list}`.padEnd(size, "\0"));
  return Uint8Array.from(header.join("") + records.join(""), (letter) => letter.charCodeAt(0));
}

function download(content, ending) {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(new Blob([content]));
  link.download = `${night.name}.corrections.${ending}`;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 60_000);
}

// -------------------------------------------------------------------------------------------------------- signals

const bytes = (base64) => Uint8Array.from(atob(base64), (letter) => letter.charCodeAt(0));

async function inflated(base64) {
  const stream = new Blob([bytes(base64)]).stream().pipeThrough(new DecompressionStream("deflate"));
  return new Uint8Array(await new Response(stream).arrayBuffer());
}

// See evaluation/signals.py: folded differences of samples in steps, low and high bytes each by themselves.
async function unpacked(trace) {
  const [low, high] = await Promise.all([inflated(trace.low), inflated(trace.high)]);
  delete trace.low;
  delete trace.high;
  const samples = new Int16Array(low.length);
  let value = 0;
  for (let i = 0; i < samples.length; i++) {
    const folded = low[i] | (high[i] << 8);
    value += (folded >> 1) ^ -(folded & 1);
    samples[i] = value;
  }
  trace.samples = samples;
}

// -------------------------------------------------------------------------------------------------------- pictures

Bokeh.logger.set_level("warn");
const {figure, show} = Bokeh.Plotting;
const origin = night.start ?? 0, end = origin + EPOCHS * SECONDS * 1000;
const at = (epoch) => origin + epoch * SECONDS * 1000; // In ms, as Bokeh's axes of time have it.
const range = new Bokeh.Range1d({start: origin, end, bounds: [origin, end], min_interval: 10 * SECONDS * 1000});
const pictures = [], cursors = [];
let current = 0, gain = 1, signals = null;

function styled(picture) {
  Object.assign(picture, {sizing_mode: "stretch_width", min_border_left: 66, min_border_right: 14, toolbar_location: null});
  picture.toolbar.autohide = true;
  for (const axis of [...picture.xaxes, ...picture.yaxes]) {
    Object.assign(axis, {major_label_text_font_size: "12px", axis_label_text_font_size: "12px", axis_label_text_font_style: "normal"});
    axis.minor_tick_line_color = null;
  }
  pictures.push(picture);
  return picture;
}

// One of the pictures on the axis of the night; the last of them shows the time.
function panel(height, y_range, last = false) {
  const picture = figure({height: height + (last ? 30 : 0), x_range: range, y_range, x_axis_type: "datetime", tools: []});
  const wheel = new Bokeh.WheelZoomTool({dimensions: "width", modifiers: {ctrl: true}});
  const pan = new Bokeh.PanTool({dimensions: "width"});
  picture.add_tools(pan, wheel);
  picture.toolbar.active_scroll = wheel;
  picture.xaxes[0].formatter = new Bokeh.DatetimeTickFormatter(
    Object.fromEntries(["seconds", "minsec", "minutes", "hourmin", "hours", "days"].map((unit) => [unit, "%H:%M"])),
  );
  picture.xaxes[0].visible = last;
  picture.on_event("tap", ({x}) => go(Math.floor((x - origin) / SECONDS / 1000)));
  const cursor = new Bokeh.BoxAnnotation({fill_alpha: 0.25, line_alpha: 0.9, level: "overlay"});
  picture.add_layout(cursor);
  cursors.push(cursor);
  return styled(picture);
}

const source = (data) => new Bokeh.ColumnDataSource({data});
const runs = source({left: [], right: [], bottom: [], top: [], colour: []}), path = source({x: [], y: []}), marks = source({x: [], y: []});

// Doubled points of a line that steps from stage to stage, broken where an epoch has none.
function steps(of) {
  const x = [], y = [];
  of.forEach((stage, epoch) => {
    x.push(at(epoch), at(epoch + 1));
    const level = stage < 0 ? NaN : LEVELS.indexOf(stage);
    y.push(level, level);
  });
  return {x, y};
}

function hypnogram(last) {
  const picture = panel(190, new Bokeh.Range1d({start: 6.3, end: -0.6}), last);
  if (night.scored) picture.line({x: {field: "x"}, y: {field: "y"}, source: source(steps(night.scored)), line_width: 6, line_alpha: 0.3, line_color: "#888888"});
  picture.line({x: {field: "x"}, y: {field: "y"}, source: path, line_width: 1, line_color: "#888888"});
  const sides = Object.fromEntries(["left", "right", "bottom", "top"].map((side) => [side, {field: side}]));
  picture.quad({...sides, source: runs, fill_color: {field: "colour"}, line_color: "#888888", line_width: 0.5});
  const unsure = source({left: night.doubtful.map(at), right: night.doubtful.map((epoch) => at(epoch + 1))});
  picture.quad({left: {field: "left"}, right: {field: "right"}, bottom: 5.2, top: 4.8, source: unsure, fill_color: "#b07d1e", line_color: null});
  picture.scatter({x: {field: "x"}, y: {field: "y"}, source: marks, marker: "triangle", size: 9, fill_color: "#c2504d", line_color: null});
  for (const epoch of night.lights ?? []) picture.add_layout(new Bokeh.Span({dimension: "height", location: at(epoch), line_color: "#b07d1e", line_width: 2}));
  labelled(picture, [...night.from_top, "check", "changed"]);
  return picture;
}

function labelled(picture, labels) {
  picture.yaxes[0].ticker = new Bokeh.FixedTicker({ticks: labels.map((_, level) => level)});
  picture.yaxes[0].major_label_overrides = new Map(labels.map((label, level) => [level, label]));
}

function hypnodensity(last) {
  const picture = panel(120, new Bokeh.Range1d({start: 0, end: 1}), last);
  const x = [...epochs, EPOCHS].map(at);
  let below = new Float64Array(EPOCHS + 1);
  for (const stage of LEVELS.toReversed()) {
    const above = below.map((height, epoch) => height + night.probabilities[stage][Math.min(epoch, EPOCHS - 1)]);
    picture.varea_step({x: {field: "x"}, y1: {field: "low"}, y2: {field: "high"}, source: source({x, low: below, high: above}), step_mode: "after", fill_color: night.colours[nameOf(stage)], fill_alpha: 1});
    below = above;
  }
  picture.yaxes[0].ticker = new Bokeh.FixedTicker({ticks: [0, 0.5, 1]});
  return picture;
}

function spectrogram(last) {
  const {bins, highest, palette} = night.spectra;
  const picture = panel(120, new Bokeh.Range1d({start: 0, end: highest}), last);
  const image = Bokeh.require("core/util/ndarray").ndarray(bytes(night.spectra.levels), {dtype: "uint8", shape: [bins, EPOCHS]});
  const half = highest / (bins - 1) / 2;
  picture.image({image: [image], x: origin, y: -half, dw: end - origin, dh: highest + 2 * half, color_mapper: new Bokeh.LinearColorMapper({palette, low: 0, high: 255})});
  picture.yaxes[0].ticker = new Bokeh.FixedTicker({ticks: [0, 10, 20, 30]});
  picture.yaxes[0].axis_label = "Hz";
  return picture;
}

function events(last) {
  const names = Object.keys(night.events);
  const picture = panel(30 + 40 * names.length, new Bokeh.Range1d({start: names.length - 0.4, end: -0.6}), last);
  names.forEach((name, row) => {
    const x = [...epochs, EPOCHS].map(at);
    const high = x.map((_, epoch) => row + 0.4 - 0.8 * night.events[name][Math.min(epoch, EPOCHS - 1)]);
    picture.varea_step({x: {field: "x"}, y1: {field: "low"}, y2: {field: "high"}, source: source({x, low: x.map(() => row + 0.4), high}), step_mode: "after", fill_color: "#5b8fc0", fill_alpha: 1});
  });
  labelled(picture, names);
  return picture;
}

// The signals of an epoch, one below another. Those in µV have lines 75 µV apart around them.
const SPACING = 150;
function epochPicture() {
  const count = night.signals.length;
  const picture = figure({height: 60 + 110 * count, x_range: new Bokeh.Range1d({start: 0, end: SECONDS}), y_range: new Bokeh.Range1d({start: -SPACING * (count - 0.5), end: SPACING / 2}), tools: []});
  picture.xaxes[0].ticker = new Bokeh.FixedTicker({ticks: Array.from({length: SECONDS / 5 + 1}, (_, i) => 5 * i)});
  picture.xaxes[0].axis_label = "seconds of the epoch, a line each second";
  const seconds = new Bokeh.FixedTicker({ticks: Array.from({length: SECONDS + 1}, (_, second) => second)});
  picture.xgrids[0].ticker = seconds;
  picture.ygrids[0].visible = false;
  const x = Float64Array.from({length: SECONDS * night.signals[0].rate}, (_, i) => i / night.signals[0].rate);
  const lines = night.signals.map((trace, row) => {
    const rails = [-37.5, 37.5].map((offset) => new Bokeh.Span({dimension: "width", line_dash: [4, 4], line_color: "#b07d1e", line_alpha: 0.8, visible: trace.unit === "µV", tags: [offset - SPACING * row]}));
    rails.forEach((rail) => picture.add_layout(rail));
    const data = source({x: [], y: []});
    picture.line({x: {field: "x"}, y: {field: "y"}, source: data, line_width: 1, line_color: "#4079b4", name: "signal"});
    return {trace, row, data, rails};
  });
  picture.yaxes[0].ticker = new Bokeh.FixedTicker({ticks: night.signals.map((_, row) => -SPACING * row)});
  picture.yaxes[0].major_label_overrides = new Map(night.signals.map((_, row) => [-SPACING * row, `${row + 1}`]));
  const refresh = () => {
    for (const {trace, row, data, rails} of lines) {
      if (!trace.samples) continue;
      // Where the unit is not known, the range of most of the signal is drawn as high as 100 µV.
      const scale = gain * trace.step * (trace.unit === "µV" ? 1 : 100 / (trace.span || 1));
      const part = trace.samples.subarray(current * x.length, (current + 1) * x.length);
      const middle = Float64Array.from(part).sort()[x.length >> 1];
      data.data = {x, y: Float64Array.from(part, (sample) => -SPACING * row + scale * (sample - middle))};
      rails.forEach((rail, side) => (rail.location = -SPACING * row + gain * 37.5 * (side ? 1 : -1)));
    }
  };
  return {picture: styled(picture), refresh};
}

// -------------------------------------------------------------------------------------------------------- the page

const clock = (epoch) => new Date(at(epoch)).toISOString().slice(11, 19);
const say = (text) => (element("said").textContent = text);

// Show the current state: the hypnogram with its corrections, and the epoch.
function draw() {
  const now = stages(), by = corrections(), found = stretches(now).filter(({stage}) => stage >= 0);
  const level = ({stage}) => LEVELS.indexOf(stage);
  runs.data = {
    left: found.map(({first}) => at(first)),
    right: found.map(({end}) => at(end)),
    bottom: found.map((run) => level(run) + 0.22),
    top: found.map((run) => level(run) - 0.22),
    colour: found.map(({stage}) => night.colours[nameOf(stage)]),
  };
  path.data = steps(now);
  marks.data = {x: [...by.keys()].map((epoch) => at(epoch + 0.5)), y: [...by.keys()].map(() => 6)};
  element("changes").textContent = `${by.size} ${by.size === 1 ? "epoch differs" : "epochs differ"} from the models`;
  element("undo").disabled = !changes.length;
  turn(now);
}

// Show the epoch that is now the current one.
function turn(now = stages()) {
  for (const cursor of cursors) cursor.setv({left: at(current), right: at(current + 1)});
  signals?.refresh();
  const stage = now[current], model = night.model[current];
  const told = [
    `Epoch ${current + 1} of ${EPOCHS}`,
    `${clock(current)}${night.start === null ? " from the start" : ""}`,
    `${nameOf(stage)}${stage === model ? "" : `, models ${nameOf(model)}`} (${night.confidence[current].toFixed(2)})`,
  ];
  if (night.scored) told.push(`scorer ${nameOf(night.scored[current])}`);
  if (doubtful.has(current) && stage === model) told.push("check");
  say(told.join(" · "));
  element("epoch").value = current + 1;
  for (const button of document.querySelectorAll("[data-stage]")) button.setAttribute("aria-pressed", Number(button.dataset.stage) === stage);
}

function go(epoch) {
  current = Math.min(Math.max(epoch, 0), EPOCHS - 1);
  // The current epoch stays in sight where the axis is zoomed.
  const width = range.end - range.start;
  if (at(current) < range.start || at(current + 1) > range.end) {
    const start = Math.min(Math.max(at(current) - width / 2, origin), end - width);
    range.setv({start, end: start + width});
  }
  turn();
}

function next() {
  const now = stages(), open = night.doubtful.filter((epoch) => now[epoch] === night.model[epoch]);
  const found = open.find((epoch) => epoch > current) ?? open[0];
  if (found === undefined) say("No doubtful epoch is left to correct.");
  else go(found);
}

// Zoom the axis of the night by a factor, around the current epoch.
function zoom(factor) {
  const width = Math.min(Math.max((range.end - range.start) * factor, range.min_interval), end - origin);
  const start = Math.min(Math.max(at(current + 0.5) - width / 2, origin), end - width);
  range.setv({start, end: start + width});
}

function louder(factor) {
  gain *= factor;
  turn();
}

const actions = {
  before: () => go(current - 1),
  after: () => go(current + 1),
  next,
  undo,
  in: () => zoom(0.5),
  out: () => zoom(2),
  whole: () => zoom(Infinity),
  larger: () => louder(1.25),
  smaller: () => louder(0.8),
  csv: () => download(csv(), "csv"),
  edf: () => download(edf(), "edf"),
};
const SHORT = {ArrowLeft: "before", ArrowRight: "after", n: "next", u: "undo", "+": "larger", "-": "smaller"};

document.addEventListener("keydown", (event) => {
  if (event.target.closest?.("input") || event.altKey || event.metaKey) return;
  const undoing = event.ctrlKey && event.key === "z";
  if (event.ctrlKey && !undoing) return;
  const key = event.key.length === 1 ? event.key.toLowerCase() : event.key;
  if (undoing) undo();
  else if (key in KEYS) correct(current, KEYS[key]);
  else if (key in SHORT) actions[SHORT[key]]();
  else return;
  event.preventDefault();
});
document.addEventListener("click", ({target}) => {
  const {act, stage, go: epoch} = target.closest?.("[data-act], [data-stage], [data-go]")?.dataset ?? {};
  if (act) actions[act]();
  else if (stage) correct(current, Number(stage));
  else if (epoch) go(Number(epoch));
});
element("epoch").addEventListener("change", ({target}) => go(Math.trunc(Number(target.value)) - 1 || 0));
element("who").addEventListener("change", ({target}) => {
  try {
    localStorage.setItem("recsleep who", target.value);
  } catch {
    // The message that nothing can be kept has been shown already.
  }
});

// Colours of the page's style, which a dark screen and paper change.
function paint() {
  const style = getComputedStyle(document.documentElement), colour = (name) => style.getPropertyValue(`--${name}`).trim();
  const [ground, ink, pale, line, accent] = ["ground", "ink", "pale", "line", "accent"].map(colour);
  for (const picture of pictures) {
    Object.assign(picture, {background_fill_color: ground, border_fill_color: ground, outline_line_color: line});
    for (const axis of [...picture.xaxes, ...picture.yaxes]) Object.assign(axis, {major_label_text_color: ink, axis_label_text_color: pale, axis_line_color: line, major_tick_line_color: pale});
    for (const grid of [...picture.xgrids, ...picture.ygrids]) grid.grid_line_color = line;
  }
  for (const cursor of cursors) Object.assign(cursor, {fill_color: accent, line_color: accent});
}

async function start() {
  const drawn = [hypnogram, hypnodensity];
  if (night.spectra) drawn.push(spectrogram);
  if (Object.keys(night.events).length) drawn.push(events);
  const column = new Bokeh.Column({children: drawn.map((make, i) => make(i === drawn.length - 1)), sizing_mode: "stretch_width", spacing: 4});
  if (night.signals.length) signals = epochPicture();
  paint();
  restore();
  draw();
  const views = [...(await show(column, "#overview")).child_views];
  // Bokeh takes every touch; up and down must go on scrolling the page.
  for (const view of views) view.canvas_view.events_el.style.touchAction = "pan-y";
  if (signals) {
    views.push(await show(signals.picture, "#signals"));
    await Promise.all(night.signals.map(unpacked));
    turn();
  }
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", paint);
  // Before it prints, a browser still has the screen's style, and it does not wait for the next frame.
  for (const when of ["before", "after"]) window.addEventListener(`${when}print`, () => {
    document.documentElement.classList.toggle("paper", when === "before");
    paint();
    views.forEach((view) => view.repaint());
  });
  document.documentElement.dataset.ready = Math.round(performance.now()); // In ms; tests wait for it.
}

start();
