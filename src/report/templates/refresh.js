"use strict";
// Fetches the page again and puts what changed of the elements marked `data-live` in place of the old.
const FAST_MS = 2000, SLOW_MS = 10000;
const shown = new Map([...document.querySelectorAll("[data-live]")].map(part => [part.id, undefined]));
const sorting = part => [...part.querySelectorAll("th[aria-sort]")].map(header =>
  [header.cellIndex, header.textContent, header.getAttribute("aria-sort")]);
const replace = (old, part) => {
  const before = sorting(old);
  old.replaceWith(part);
  prepareTables(part);
  for (const [index, title, direction] of before) {
    const header = [...part.querySelectorAll("thead th")].find(th => th.cellIndex === index && th.textContent === title);
    if (header) sortBy(header, direction);
  }
  for (const controls of document.querySelectorAll(".controls")) {
    offerChoices(controls);
    applyFilter(controls);
  }
};
const refresh = async () => {
  let running = false;
  try {
    const answer = await fetch(location.pathname, { cache: "no-store" });
    if (!answer.ok) throw new Error(answer.status);
    const page = new DOMParser().parseFromString(await answer.text(), "text/html");
    for (const [id, before] of shown) {
      const part = page.getElementById(id);
      if (!part) continue;
      running ||= Number(part.dataset.running) > 0;
      const text = part.outerHTML;
      if (text !== before) {
        replace(document.getElementById(id), document.adoptNode(part));
        shown.set(id, text);
      }
    }
    document.getElementById("offline").hidden = true;
  } catch {
    document.getElementById("offline").hidden = false;
  }
  setTimeout(refresh, running || !document.getElementById("offline").hidden ? FAST_MS : SLOW_MS);
};
setTimeout(refresh, FAST_MS);
