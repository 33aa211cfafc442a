// Compares runs: a table that the server filters, in what the chosen runs differ, their losses, a scatter of two numbers.
// The URL holds all that is chosen (`state`), so that a link shows the same. What records say is only ever set as text.

// As many as the server compares at once, and as many rows as a browser shows without a pause.
const MOST_CHOSEN = 20, MOST_ROWS = 2000;

// --- What is chosen, and the URL that holds it

const DEFAULTS = { filter: "", sort: "", unit: "", phase: "", x: "wall", y: "test", xlog: "", ylog: "", colour: "method" };
const DEFAULT_COLUMNS = ["experiment", "arch", "bits", "method", "seed", "status", "test", "gap", "wall"];
const readState = () => {
  const query = new URLSearchParams(location.search);
  const state = Object.fromEntries(Object.entries(DEFAULTS).map(([name, value]) => [name, query.get(name) ?? value]));
  state.columns = query.has("column") ? query.getAll("column").filter(key => key) : [...DEFAULT_COLUMNS];
  state.runs = [...new Set(query.getAll("run"))].slice(0, MOST_CHOSEN);
  return state;
};
const state = readState();
const writeState = () => {
  const query = new URLSearchParams();
  for (const [name, value] of Object.entries(DEFAULTS)) if (state[name] !== value) query.set(name, state[name]);
  if (String(state.columns) !== String(DEFAULT_COLUMNS)) {
    // An empty one tells no columns from the usual ones.
    for (const key of state.columns.length ? state.columns : [""]) query.append("column", key);
  }
  for (const name of state.runs) query.append("run", name);
  history.replaceState(null, "", `${location.pathname}${query.size ? `?${query}` : ""}${location.hash}`);
};
const choose = (name, value) => {
  state[name] = value;
  writeState();
};

// --- Elements

const byId = id => document.getElementById(id);
const build = (node, attributes, children) => {
  for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, value);
  node.append(...children);
  return node;
};
const html = (tag, attributes = {}, ...children) => build(document.createElement(tag), attributes, children);
const svg = (tag, attributes = {}, ...children) =>
  build(document.createElementNS("http://www.w3.org/2000/svg", tag), attributes, children);
const on = (node, event, action) => {
  node.addEventListener(event, action);
  return node;
};
const note = text => html("p", { class: "note" }, text);
const pageOf = name => {
  const [experiment, id] = name.split("/").map(encodeURIComponent);
  return `/experiments/${experiment}/runs/${id}`;
};
const fill = (select, options, value) => {
  select.replaceChildren(...options);
  select.value = value;
};

// --- What the server says

const ask = async (path, pairs) => {
  let answer;
  try {
    answer = await fetch(`/${path}?${new URLSearchParams(pairs)}`);
  } catch {
    throw { message: "the server does not answer: is `harness serve` still running?" };
  }
  const isJson = answer.headers.get("content-type") === "application/json";
  const said = isJson ? await answer.json() : { message: await answer.text() };
  if (!answer.ok) throw said;
  return said;
};
const namedRuns = names => names.map(name => ["run", name]);

const isNumeric = text => text.trim() !== "" && Number.isFinite(Number(text));
const DIGITS = { "%": 2, s: 1, MiB: 0 };
const factColumn = ({ key, title, unit, values }) => ({
  key, title, heading: `${key} ${unit}`, group: "Measured", isNumber: true, isVarying: true,
  value: run => values[run],
  text: run => values[run] === null ? "–" : values[run].toFixed(DIGITS[unit] ?? 3),
});
const textColumn = ({ key, is_configuration: isConfiguration, values, of }) => {
  const isNumber = values.length > 0 && values.every(isNumeric);
  const numbers = isNumber ? values.map(Number) : values;
  return {
    key, title: key, heading: key, group: isConfiguration ? "Configuration" : "Run", isNumber, isConfiguration,
    isVarying: values.length > 1 || (values.length > 0 && of.includes(null)),
    value: run => of[run] === null ? null : numbers[of[run]],
    text: run => of[run] === null ? "" : values[of[run]],
  };
};
const read = answer => {
  const { runs } = answer;
  const run = { key: "run", title: "run", heading: "run", isNumber: false, value: index => runs[index].id };
  const columns = [...answer.facts.map(factColumn), ...answer.texts.map(textColumn), run];
  return { ...answer, names: runs.map(({ experiment, id }) => `${experiment}/${id}`),
    columns: new Map(columns.map(column => [column.key, column])) };
};
const offered = () => [...shown.columns.values()].filter(column => column.group);

// The runs that the filter selects; those that are chosen, which it may not select any more; losses by the run's name.
let shown = null, chosen = null;
const losses = new Map();

const showProblem = problem => {
  const box = byId("problem"), place = problem?.place;
  box.hidden = !problem;
  if (!problem) return;
  const where = place ? ` (character ${place.at})` : "";
  const parts = [html("p", { class: "failed" }, `${problem.message}${where}`)];
  if (place) {
    parts.unshift(html("p", {}, html("code", {}, place.before, html("mark", {}, place.wrong || "\u00a0"), place.after)));
  }
  if (problem.help) parts.push(note(problem.help));
  box.replaceChildren(...parts);
};
// An answer that another question has overtaken is dropped.
const latest = asking => {
  let turn = 0;
  return async (...given) => {
    const own = ++turn;
    const finish = await asking(...given).catch(problem => () => showProblem(problem));
    if (own === turn) finish();
  };
};
const loadRuns = latest(async () => {
  const answer = read(await ask("runs.json", [["filter", state.filter]]));
  return () => {
    shown = answer;
    showProblem(null);
    showCount();
    showTable();
    showChooser();
    showScatter();
  };
});
const loadChosen = latest(async () => {
  const names = [...state.runs];
  if (!names.length) return () => showChosen(null);
  const unread = names.filter(name => !losses.has(name));
  const [answer, traces] = await Promise.all([
    ask("runs.json", namedRuns(names)), unread.length ? ask("losses.json", namedRuns(unread)) : { runs: [] }]);
  return () => {
    for (const run of traces.runs) losses.set(run.name, run);
    showChosen(read(answer));
  };
});
const setChosen = (name, wanted) => {
  const isOneTooMany = wanted && state.runs.length >= MOST_CHOSEN;
  byId("limit").hidden = !isOneTooMany;
  if (!isOneTooMany) {
    choose("runs", wanted ? [...state.runs, name] : state.runs.filter(other => other !== name));
    loadChosen();
  }
  showChecks();
};

// --- The table

const showCount = () => {
  const { runs, stored } = shown, cut = runs.length > MOST_ROWS ? `; the table has the first ${MOST_ROWS}` : "";
  byId("count").textContent = `${runs.length} of ${stored} runs${cut}`;
};
const collator = new Intl.Collator("en", { numeric: true });
const compareValues = (a, b) => typeof a === "number" && typeof b === "number" ? a - b : collator.compare(a, b);
// Runs without a value come last in both directions.
const sorted = () => {
  const indices = [...shown.runs.keys()], column = shown.columns.get(state.sort.replace(/^-/, ""));
  if (!column) return indices;
  const sign = state.sort.startsWith("-") ? -1 : 1, values = indices.map(column.value);
  return indices.sort((a, b) => values[a] === null || values[b] === null
    ? (values[a] === null) - (values[b] === null) : sign * compareValues(values[a], values[b]));
};
const sortBy = key => {
  choose("sort", state.sort === key ? `-${key}` : key);
  showTable();
};
const header = column => {
  const direction = { [column.key]: "ascending", [`-${column.key}`]: "descending" }[state.sort];
  const th = html("th", { scope: "col", tabindex: 0, title: column.title, "data-key": column.key,
    ...direction && { "aria-sort": direction }, ...column.isNumber || { class: "text" } }, column.heading);
  on(th, "click", () => sortBy(column.key));
  return on(th, "keydown", event => {
    if (event.key !== "Enter" && event.key !== " ") return;
    event.preventDefault();
    sortBy(column.key);
  });
};
const row = (index, columns) => {
  const { error } = shown.runs[index], name = shown.names[index];
  const check = html("input", { type: "checkbox", tabindex: -1, "aria-label": `compare ${name}` });
  const link = html("a", { href: pageOf(name), tabindex: -1 }, shown.runs[index].id);
  const cells = columns.map(column =>
    html("td", column.isNumber ? {} : { class: "text" }, column.text(index)));
  const tr = html("tr", error ? { title: error } : {}, html("td", {}, check), html("td", {}, link), ...cells);
  if (error) tr.classList.add("failed");
  tr.dataset.run = name;
  return tr;
};
const showTable = () => {
  const table = byId("runs"), focused = document.activeElement?.dataset?.key;
  const columns = state.columns.map(key => shown.columns.get(key)).filter(column => column?.group);
  const headers = [shown.columns.get("run"), ...columns].map(header);
  table.tHead.replaceChildren(html("tr", {}, html("th", { "aria-label": "chosen" }), ...headers));
  const rows = sorted().slice(0, MOST_ROWS).map(index => row(index, columns));
  const nothing = () => html("tr", {}, html("td", { colspan: columns.length + 2 }, shown.why_none ?? "no runs"));
  table.tBodies[0].replaceChildren(...rows.length ? rows : [nothing()]);
  showChecks();
  if (rows.length) makeCurrent(rows[0]);
  if (focused) table.tHead.querySelector(`[data-key="${CSS.escape(focused)}"]`)?.focus();
};
const showChecks = () => {
  const names = new Set(state.runs);
  for (const tr of byId("runs").tBodies[0].rows) {
    const isChosen = names.has(tr.dataset.run), check = tr.querySelector("input");
    tr.classList.toggle("chosen", isChosen);
    if (check) check.checked = isChosen;
  }
};
// The tabulator stops at one row, not at a thousand: arrow keys go to the others.
const makeCurrent = tr => {
  for (const old of byId("runs").tBodies[0].querySelectorAll("[tabindex='0']")) old.tabIndex = -1;
  for (const part of tr.querySelectorAll("input, a")) part.tabIndex = 0;
};
const prepareTable = () => {
  const body = byId("runs").tBodies[0];
  on(body, "change", event => setChosen(event.target.closest("tr").dataset.run, event.target.checked));
  on(body, "focusin", event => makeCurrent(event.target.closest("tr")));
  on(body, "keydown", event => {
    const tr = event.target.closest("tr");
    const next = { ArrowDown: tr.nextElementSibling, ArrowUp: tr.previousElementSibling }[event.key];
    if (!next) return;
    event.preventDefault();
    next.querySelector(event.target.tagName).focus();
  });
};

// --- Which columns

const toggleColumn = (key, wanted) => {
  choose("columns", wanted ? [...state.columns, key] : state.columns.filter(other => other !== key));
  showTable();
};
const columnChoice = column => {
  const check = html("input", { type: "checkbox" });
  check.checked = state.columns.includes(column.key);
  on(check, "change", () => toggleColumn(column.key, check.checked));
  const label = html("label", column.isVarying ? {} : { class: "same", title: "the same in all runs shown" });
  label.append(check, ` ${column.key}`);
  return label;
};
const showChooser = () => {
  const groups = ["Run", "Measured", "Configuration"].map(group => {
    const columns = offered().filter(column => column.group === group);
    return html("fieldset", {}, html("legend", {}, group), ...columns.map(columnChoice));
  });
  byId("chooser").querySelector("div").replaceChildren(...groups);
};

// --- The chosen runs and in what they differ

const emphasise = index => {
  const figure = byId("curves");
  figure.classList.toggle("faded", index !== null);
  for (const curve of figure.querySelectorAll(".curve")) {
    curve.classList.toggle("strong", index !== null && Number(curve.dataset.index) === index);
  }
};
const runKey = (name, index, ...more) => {
  const link = html("a", { href: pageOf(name) }, name);
  const item = html("li", {}, lineSample(index), html("b", {}, letter(index)), " ", link, ...more);
  for (const event of ["pointerenter", "focusin"]) on(item, event, () => emphasise(index));
  for (const event of ["pointerleave", "focusout"]) on(item, event, () => emphasise(null));
  return item;
};
const leaveOut = name =>
  on(html("button", { "aria-label": `leave out ${name}` }, "leave out"), "click", () => setChosen(name, false));
const differenceRow = (column, count) => {
  const texts = [...Array(count).keys()].map(column.text), isOther = text => column.isConfiguration && text !== texts[0];
  const cells = texts.map(text => html("td", isOther(text) ? { class: "other" } : {}, text || "–"));
  return html("tr", {}, html("th", { scope: "row", title: column.title }, column.heading), ...cells);
};
const howMany = (differing, configuration, count) => {
  if (count < 2) return "Choose a second run to see in what they differ.";
  const coloured = differing.length ? "; coloured is what differs from the first run" : "";
  return `${differing.length || "None"} of ${configuration.length} keys of the configuration differ${coloured}.`;
};
const differences = ({ columns, names }) => {
  const all = [...columns.values()], configuration = all.filter(column => column.isConfiguration);
  const differing = configuration.filter(column => column.isVarying);
  const head = (name, index) => html("th", { scope: "col", title: name }, lineSample(index), letter(index));
  const body = columns => html("tbody", {}, ...columns.map(column => differenceRow(column, names.length)));
  const heads = html("tr", {}, html("th", { "aria-label": "key" }), ...names.map(head));
  const measured = all.filter(column => column.group === "Measured");
  const table = html("table", {}, html("thead", {}, heads), body(differing), body(measured));
  return [note(howMany(differing, configuration, names.length)), html("div", { class: "scroll" }, table)];
};
const chosenKey = names => {
  const clear = on(html("button", {}, "leave out all"), "click", () => {
    choose("runs", []);
    byId("limit").hidden = true;
    loadChosen();
    showChecks();
  });
  const items = names.map((name, index) => runKey(name, index, leaveOut(name)));
  return html("ol", { class: "key long" }, ...items, html("li", {}, clear));
};
const showChosen = table => {
  chosen = table;
  const parts = table ? [] : [note("Choose runs in the table: here stands in what they differ.")];
  if (table?.names.length) parts.push(chosenKey(table.names), ...differences(table));
  const gone = name => html("p", { class: "failed" }, `${name} is not stored any more `, leaveOut(name));
  const box = byId("chosen"), hadFocus = box.contains(document.activeElement);
  box.replaceChildren(...parts, ...(table?.missing ?? []).map(gone));
  // Who leaves out one by one with the keyboard goes on where that was.
  if (hadFocus) box.querySelector("button")?.focus();
  showLosses();
  if (shown) showScatter();
};

// --- Beginning

const PAUSE_MS = 300;
const prepareChoices = () => {
  const filter = byId("filter");
  let waiting;
  const apply = () => {
    clearTimeout(waiting);
    if (filter.value === state.filter) return;
    choose("filter", filter.value);
    loadRuns();
  };
  filter.value = state.filter;
  on(filter, "input", () => {
    clearTimeout(waiting);
    waiting = setTimeout(apply, PAUSE_MS);
  });
  on(filter, "change", apply);
  const prepare = (ids, show) => ids.forEach(id => on(byId(id), "change", ({ target }) => {
    choose(id, target.type !== "checkbox" ? target.value : target.checked ? "1" : "");
    show();
  }));
  prepare(["unit", "phase"], showLosses);
  prepare(["x", "y", "xlog", "ylog", "colour"], () => shown && showScatter());
};
byId("limit").textContent = `${MOST_CHOSEN} runs are compared at most: leave one out before you choose another.`;
prepareChoices();
prepareTable();
loadRuns();
loadChosen();
