// The figures of the page that compares runs: losses of the chosen runs, and a scatter of two numbers of all that are shown.

// Okabe and Ito's palette, as in figures: readers with colour vision deficiencies tell them apart. Dashes and shapes tell
// apart what has the same colour.
const COLOURS = ["#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#5a5a5a"];
const DASHES = ["none", "9 4", "2.5 3"];
const SHAPES = ["M-5 0A5 5 0 1 0 5 0A5 5 0 1 0 -5 0Z", "M-4.5 -4.5H4.5V4.5H-4.5Z", "M0 -5.5L5.5 4.5H-5.5Z",
  "M0 -6.5L6.5 0L0 6.5L-6.5 0Z", "M0 5.5L5.5 -4.5H-5.5Z"];
const OTHERS = "#b0b0b0";
// Cividis, for numbers of many values: dark for small ones.
const RAMP = [[0, 34, 78], [60, 77, 110], [124, 123, 120], [187, 174, 105], [254, 232, 56]];
const MOST_GROUPS = 14, MANY_POINTS = 300;
const WIDTH = 680, HEIGHT = 430, LEFT = 74, RIGHT = 14, TOP = 12, BOTTOM = 48;

// --- How a run is told from others

const letter = index => String.fromCharCode(65 + index);
const lineStyle = index => ({
  stroke: COLOURS[index % COLOURS.length],
  "stroke-dasharray": DASHES[Math.floor(index / COLOURS.length) % DASHES.length],
});
const lineSample = index => svg("svg", { viewBox: "0 0 30 12", "aria-hidden": "true" },
  svg("path", { d: "M0 6H30", fill: "none", "stroke-width": 3, ...lineStyle(index) }));

// --- Axes of both figures

const plain = value => {
  const clean = Number(value.toPrecision(10)), size = Math.abs(clean);
  return clean !== 0 && (size < 1e-3 || size >= 1e6) ? clean.toExponential() : String(clean);
};
const linearTicks = (low, high) => {
  const rough = (high - low) / 8, power = 10 ** Math.floor(Math.log10(rough));
  const step = power * [1, 2, 5, 10].find(digit => digit * power >= rough), first = Math.ceil(low / step);
  // Counted: to a large enough number one can be added without end.
  return [...Array(10).keys()].map(index => (first + index) * step).filter(tick => tick <= high);
};
// 1, 2 and 5 times powers of ten, or where those are many the powers alone.
const logTicks = (low, high) => {
  const powers = [], isWithin = tick => tick >= low && tick <= high;
  for (let power = Math.floor(Math.log10(low)); power <= Math.log10(high); power++) powers.push(power);
  const fine = powers.flatMap(power => [1, 2, 5].map(digit => Number(`${digit}e${power}`))).filter(isWithin);
  if (fine.length < 3) return linearTicks(low, high);
  if (fine.length <= 9) return fine;
  const every = Math.ceil(powers.length / 8);
  return powers.filter(power => power % every === 0).map(power => Number(`1e${power}`)).filter(isWithin);
};
const axis = (values, title, isLog) => {
  let low = Infinity, high = -Infinity;
  for (const value of values) [low, high] = [Math.min(low, value), Math.max(high, value)];
  const size = isLog ? Math.log(high / low) : high - low;
  const margin = size > 0 ? 0.04 * size : isLog ? 0.3 : 0.05 * Math.abs(high) || 0.5;
  [low, high] = isLog ? [low / Math.exp(margin), high * Math.exp(margin)] : [low - margin, high + margin];
  const at = isLog ? value => Math.log(value / low) / Math.log(high / low) : value => (value - low) / (high - low);
  return { at, title, ticks: isLog ? logTicks(low, high) : linearTicks(low, high) };
};
const plot = (x, y, label) => {
  const right = WIDTH - RIGHT, bottom = HEIGHT - BOTTOM;
  const across = value => LEFT + x.at(value) * (right - LEFT), up = value => bottom - y.at(value) * (bottom - TOP);
  const picture = svg("svg", { viewBox: `0 0 ${WIDTH} ${HEIGHT}`, role: "group", "aria-label": label });
  for (const tick of x.ticks) {
    picture.append(svg("path", { class: "rule", d: `M${across(tick)} ${TOP}V${bottom}` }),
      svg("text", { x: across(tick), y: bottom + 17, "text-anchor": "middle" }, plain(tick)));
  }
  for (const tick of y.ticks) {
    picture.append(svg("path", { class: "rule", d: `M${LEFT} ${up(tick)}H${right}` }),
      svg("text", { x: LEFT - 7, y: up(tick) + 4, "text-anchor": "end" }, plain(tick)));
  }
  picture.append(svg("path", { class: "frame", d: `M${LEFT} ${TOP}V${bottom}H${right}` }),
    svg("text", { x: (LEFT + right) / 2, y: HEIGHT - 8, "text-anchor": "middle" }, x.title),
    svg("text", { transform: `translate(14 ${(TOP + bottom) / 2}) rotate(-90)`, "text-anchor": "middle" }, y.title));
  return { picture, across, up };
};

// --- Losses

const isDrawn = loss => loss !== null && loss > 0;
// What is no positive number leaves a gap.
const curve = ({ iterations, loss, index, name }, { across, up }) => {
  const place = at => `${across(iterations[at]).toFixed(1)} ${up(loss[at]).toFixed(1)}`;
  let d = "", isUp = true;
  for (let at = 0; at < Math.min(iterations.length, loss.length); at++) {
    if (isDrawn(loss[at])) d += (isUp ? "M" : "L") + place(at);
    isUp = !isDrawn(loss[at]);
  }
  const title = svg("title", {}, `${letter(index)} ${name}`);
  return svg("path", { class: "curve", d, "data-index": index, ...lineStyle(index) }, title);
};
const tracesOf = names => names.flatMap((name, index) =>
  (losses.get(name)?.traces ?? []).map(trace => ({ ...trace, name, index })));
// The traces of the chosen unit and phase, or of the first ones there are; what else there is, is offered.
const chosenTraces = traces => {
  const units = [...new Set(traces.map(trace => trace.unit))], unit = units.includes(state.unit) ? state.unit : units[0];
  const ofUnit = traces.filter(trace => trace.unit === unit), phases = [...new Set(ofUnit.map(trace => trace.phase))];
  const phase = [state.phase, "weights", phases[0]].find(phase => phases.includes(phase));
  fill(byId("unit"), units.map(unit => new Option(unit)), unit);
  fill(byId("phase"), phases.map(phase => new Option(phase)), phase);
  const drawn = ofUnit.filter(trace => trace.phase === phase && trace.iterations.length && trace.loss.some(isDrawn));
  return { unit, phase, drawn };
};
const noLosses = names => note(names.length
  ? "None of the chosen runs has losses: nothing was trained, or they failed before."
  : "Choose runs in the table: here are their losses.");
const showLosses = () => {
  const figure = byId("curves"), names = chosen?.names ?? [], { unit, phase, drawn } = chosenTraces(tracesOf(names));
  const problems = names.map(name => losses.get(name)?.problem).filter(problem => problem);
  const said = problems.map(problem => html("p", { class: "failed" }, problem));
  if (!drawn.length) return figure.replaceChildren(noLosses(names), ...said);
  const x = axis(drawn.flatMap(trace => [trace.iterations[0], trace.iterations.at(-1)]), "iteration", false);
  const y = axis(drawn.flatMap(trace => trace.loss.filter(isDrawn)), phase === "meta" ? "meta-loss" : "loss", true);
  const frame = plot(x, y, `losses of ${unit}, ${phase}`);
  frame.picture.append(...drawn.map(trace => curve(trace, frame)));
  const key = drawn.map(({ name, index }) => runKey(name, index));
  figure.replaceChildren(frame.picture, html("ul", { class: "key" }, ...key), ...said);
};

// --- Scatter

const rampColour = part => {
  const place = part * (RAMP.length - 1), index = Math.min(Math.floor(place), RAMP.length - 2);
  const mix = (from, channel) => Math.round(from + (place - index) * (RAMP[index + 1][channel] - from));
  return `rgb(${RAMP[index].map(mix)})`;
};
const keyItem = ({ fill, shape }, text) => html("li", {},
  svg("svg", { viewBox: "-15 -6 30 12", "aria-hidden": "true" }, svg("path", { d: shape, fill })), text);
// Numbers of more values than colours go along a ramp.
const byRamp = (column, runs) => {
  const values = runs.map(column.value).filter(value => value !== null);
  const low = values.reduce((a, b) => Math.min(a, b)), high = values.reduce((a, b) => Math.max(a, b));
  const part = value => high > low ? (value - low) / (high - low) : 0;
  const style = value => ({ shape: SHAPES[0], fill: value === null ? OTHERS : rampColour(part(value)) });
  const item = value => keyItem(style(value), plain(Number(value.toPrecision(4))));
  return { style: run => style(column.value(run)), key: [0, 0.25, 0.5, 0.75, 1].map(part => item(low + part * (high - low))) };
};
const byGroup = (column, runs) => {
  const counts = new Map();
  for (const run of runs) counts.set(column.text(run), (counts.get(column.text(run)) ?? 0) + 1);
  const byCount = [...counts.keys()].sort((a, b) => counts.get(b) - counts.get(a));
  const common = byCount.slice(0, MOST_GROUPS).sort(collator.compare);
  const styles = new Map(common.map((text, index) =>
    [text, { fill: COLOURS[index % COLOURS.length], shape: SHAPES[index % SHAPES.length] }]));
  const others = { fill: OTHERS, shape: SHAPES[0] };
  const key = common.map(text => keyItem(styles.get(text), `${text || "(none)"} (${counts.get(text)})`));
  if (counts.size > common.length) key.push(keyItem(others, `${counts.size - common.length} other values`));
  return { style: run => styles.get(column.text(run)) ?? others, key };
};
const colouring = (column, runs) => {
  if (!column) return byGroup({ text: () => "all" }, runs);
  const many = new Set(runs.map(column.value)).size > COLOURS.length;
  return column.isNumber && many ? byRamp(column, runs) : byGroup(column, runs);
};
const numberOptions = () => ["Measured", "Configuration"].map(group => {
  const columns = offered().filter(column => column.group === group && column.isNumber && column.isVarying);
  return html("optgroup", { label: group }, ...columns.map(column => new Option(column.title, column.key)));
});
const showScatterChoices = () => {
  for (const id of ["x", "y"]) fill(byId(id), numberOptions(), state[id]);
  const colours = offered().filter(column => column.isVarying || column.key === state.colour);
  fill(byId("colour"), [new Option("(all the same)", ""), ...colours.map(column => new Option(column.key))], state.colour);
  for (const id of ["xlog", "ylog"]) byId(id).checked = state[id] === "1";
};
const point = (run, { x, y, colour, style, frame, size }) => {
  const name = shown.names[run], index = chosen ? chosen.names.indexOf(name) : -1;
  const told = [x, y, colour].filter(column => column).map(column => `${column.heading}: ${column.text(run)}`);
  const [across, up] = [frame.across(x.value(run)), frame.up(y.value(run))], { fill, shape } = style(run);
  const transform = `translate(${across.toFixed(1)} ${up.toFixed(1)}) scale(${index < 0 ? size : 1.2})`;
  const mark = svg("path", { class: index < 0 ? "point" : "point chosen", d: shape, fill, transform });
  const link = svg("a", { href: pageOf(name), tabindex: -1 }, svg("title", {}, [name, ...told].join("\n")), mark);
  if (index >= 0) link.append(svg("text", { class: "letter", x: across + 8, y: up - 6 }, letter(index)));
  return [index, link];
};
const showScatter = () => {
  showScatterChoices();
  const figure = byId("points"), [x, y, colour] = [state.x, state.y, state.colour].map(key => shown.columns.get(key));
  if (!x?.isNumber || !y?.isNumber) return figure.replaceChildren(note("Choose two numbers that the runs shown have."));
  const [xLog, yLog] = [state.xlog === "1", state.ylog === "1"];
  const has = (column, run, isLog) => column.value(run) !== null && (!isLog || column.value(run) > 0);
  const runs = [...shown.runs.keys()].filter(run => has(x, run, xLog) && has(y, run, yLog));
  const lacking = shown.runs.length - runs.length, orNot = xLog || yLog ? ", or it is not positive" : "";
  const said = lacking ? [note(`${lacking} of ${shown.runs.length} runs lack one of the two${orNot}.`)] : [];
  if (!runs.length) return figure.replaceChildren(...said);
  const [xAxis, yAxis] = [axis(runs.map(x.value), x.title, xLog), axis(runs.map(y.value), y.title, yLog)];
  const frame = plot(xAxis, yAxis, `${y.title} over ${x.title}`);
  const { style, key } = colouring(colour, runs);
  const size = runs.length > MANY_POINTS ? 0.7 : 1;
  // Chosen runs lie above the others.
  const points = runs.map(run => point(run, { x, y, colour, style, frame, size })).sort((a, b) => a[0] - b[0]);
  frame.picture.append(...points.map(([, link]) => link));
  figure.replaceChildren(frame.picture, html("ul", { class: "key" }, ...key), ...said);
};
