"use strict";
// Tables of class `sortable` sort by the column whose title is clicked; those with a filter show the rows that contain
// all of its words and have the chosen values. Where a table is `folded`, each run is a body of two rows, the second hidden.
const pieces = table => table.classList.contains("folded") ? [...table.tBodies] : [...table.tBodies[0].rows];
const firstRow = piece => piece.rows ? piece.rows[0] : piece;
const number = /^[-+]?\d+(\.\d+)?(e[-+]?\d+)?(?=$|[\s%(\[†])/i;
const sortKey = cell => {
  const text = cell.textContent.trim();
  return number.test(text) ? parseFloat(text) : text.toLowerCase();
};
const compare = (a, b) => typeof a === typeof b ? (a < b ? -1 : a > b ? 1 : 0) : typeof a === "number" ? 1 : -1;
const sortBy = (header, direction) => {
  const table = header.closest("table"), index = header.cellIndex;
  for (const other of header.parentNode.cells) other.removeAttribute("aria-sort");
  header.setAttribute("aria-sort", direction);
  const keyed = pieces(table).map(piece => [sortKey(firstRow(piece).cells[index]), piece]);
  keyed.sort((a, b) => direction === "descending" ? compare(b[0], a[0]) : compare(a[0], b[0]));
  const parent = table.classList.contains("folded") ? table : table.tBodies[0];
  parent.append(...keyed.map(pair => pair[1]));
};
const toggleSort = header => sortBy(header, header.getAttribute("aria-sort") === "ascending" ? "descending" : "ascending");

const applyFilter = controls => {
  const table = document.getElementById(controls.dataset.for);
  const words = controls.querySelector("input").value.toLowerCase().split(/\s+/).filter(word => word);
  const chosen = [...controls.querySelectorAll("select")].filter(select => select.value !== "");
  let shown = 0;
  const all = pieces(table);
  for (const piece of all) {
    const row = firstRow(piece);
    if (piece.searchText === undefined) {
      const cell = piece.querySelector("pre.cell");
      piece.searchText = `${row.textContent} ${cell ? cell.textContent : ""}`.toLowerCase();
    }
    piece.hidden = !(words.every(word => piece.searchText.includes(word))
      && chosen.every(select => row.cells[select.dataset.column].textContent.trim() === select.value.slice(1)));
    shown += !piece.hidden;
  }
  controls.querySelector("output").textContent = `${shown} of ${all.length}`;
};
// A choice for each column of few different values, kept as far as it still exists.
const offerChoices = controls => {
  const table = document.getElementById(controls.dataset.for), most = 30;
  const before = new Map([...controls.querySelectorAll("select")].map(select => [select.dataset.title, select.value]));
  controls.querySelectorAll("label.choice").forEach(label => label.remove());
  for (const header of table.tHead.rows[0].cells) {
    if (!header.classList.contains("text") || header.cellIndex === 0) continue;
    const values = [...new Set(pieces(table).map(piece => firstRow(piece).cells[header.cellIndex].textContent.trim()))];
    if (values.length < 2 || values.length > most) continue;
    const select = document.createElement("select"), label = document.createElement("label");
    select.dataset.column = header.cellIndex;
    select.dataset.title = header.textContent;
    // The first character tells a choice from none.
    select.append(new Option("all", ""), ...values.sort().map(value => new Option(value || "(none)", `=${value}`)));
    select.value = before.get(header.textContent) ?? "";
    if (select.selectedIndex < 0) select.value = "";
    select.addEventListener("input", () => applyFilter(controls));
    label.className = "choice";
    label.append(`${header.textContent} `, select);
    controls.insertBefore(label, controls.querySelector("output"));
  }
};
const unfold = (button, open) => {
  button.setAttribute("aria-expanded", open);
  button.closest("tbody").rows[1].hidden = !open;
};
const prepareTables = root => {
  const tables = root.matches?.("table.sortable") ? [root] : [...root.querySelectorAll("table.sortable")];
  for (const header of tables.flatMap(table => [...table.tHead.rows[0].cells])) {
    header.addEventListener("click", () => toggleSort(header));
    header.addEventListener("keydown", event => { if (event.key === "Enter") toggleSort(header); });
  }
  for (const button of root.querySelectorAll("button.fold")) {
    button.addEventListener("click", () => unfold(button, button.getAttribute("aria-expanded") !== "true"));
  }
};
const openTarget = () => {
  const target = document.getElementById(decodeURIComponent(location.hash.slice(1)));
  const button = target && target.querySelector("button.fold");
  if (!button) return;
  target.hidden = false;
  unfold(button, true);
  target.scrollIntoView();
};
prepareTables(document);
for (const controls of document.querySelectorAll(".controls")) {
  controls.hidden = false;
  controls.querySelector("input").addEventListener("input", () => applyFilter(controls));
  offerChoices(controls);
  applyFilter(controls);
}
addEventListener("hashchange", openTarget);
openTarget();
