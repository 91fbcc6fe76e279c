"use strict";
const one = (selector, within = document) => within.querySelector(selector);
const all = (selector, within = document) => [...within.querySelectorAll(selector)];
const make = (tag, properties = {}) => Object.assign(document.createElement(tag), properties);

// Tables whose headings sort: numbers by number, names by name, what is empty last.
const order = (a, b) => a === "" || b === "" ? (a === "") - (b === "") : isNaN(a) || isNaN(b) ? a.localeCompare(b) : a - b;
for (const table of all("table.sortable")) {
  const body = table.tBodies[0];
  all("thead tr:last-child th", table).forEach((head, column) => {
    const button = make("button", { type: "button", textContent: head.textContent });
    head.replaceChildren(button);
    button.addEventListener("click", () => {
      const down = head.getAttribute("aria-sort") === "ascending";
      for (const other of all("th[aria-sort]", table)) other.removeAttribute("aria-sort");
      head.setAttribute("aria-sort", down ? "descending" : "ascending");
      const key = (row) => row.cells[column].dataset.v;
      const sorted = [...body.rows].sort((a, b) => {
        const [x, y] = [key(a), key(b)];
        return order(x, y) * (down && x !== "" && y !== "" ? -1 : 1);
      });
      body.append(...sorted);
    });
  });
}

// Filter the classes.
const filter = one("#filter");
filter.closest(".controls").hidden = false;
filter.addEventListener("input", () => {
  const rows = all("#classtable tbody tr"), wanted = filter.value.trim().toLowerCase();
  for (const row of rows) row.hidden = !row.cells[0].textContent.toLowerCase().includes(wanted);
  one("#shown").textContent = wanted ? `${rows.filter((row) => !row.hidden).length} of ${rows.length} classes` : "";
});

// One confusion matrix at a time; a cell tells its clips.
const matrices = all(".matrix"), which = one("#which"), data = JSON.parse(one("#data").textContent);
const classes = all(".matrix:first-child tbody th").map((head) => head.textContent);
const place = JSON.parse(one(".matrices").dataset.order);
if (matrices.length > 1) {
  which.hidden = false;
  one(".matrices").classList.add("switched");
  const show = (chosen) => matrices.forEach((matrix, i) => {
    matrix.hidden = i !== chosen;
    which.children[i].setAttribute("aria-pressed", i === chosen);
  });
  which.append(...matrices.map((matrix, i) => {
    const button = make("button", { type: "button", textContent: one("h3", matrix).textContent });
    button.addEventListener("click", () => show(i));
    return button;
  }));
  show(0);
}
const MOST = 12;
const tell = (cell, run) => {
  const row = cell.parentNode.sectionRowIndex, column = cell.cellIndex - 1;
  const [truth, taken] = [place[row], place[column]];
  one("#said").textContent = cell.dataset.t ?? `${classes[row]} was never taken for ${classes[column]}.`;
  const names = new Map();
  data.true.forEach((value, i) => {
    if (value !== truth || data.predicted[run][i] !== taken) return;
    const name = data.ids[data.id[i]];
    names.set(name, [...(names.get(name) ?? []), data.splits[data.split[i]]]);
  });
  const items = [...names].slice(0, MOST).map(([name, splits]) => make("li", {
    textContent: `${name} (${splits.length > 3 ? `${splits.length} splits` : splits.join(", ")})`,
  }));
  if (names.size > MOST) items.push(make("li", { textContent: `and ${names.size - MOST} more clips` }));
  one("#clips").replaceChildren(...items);
};
one("#detail").hidden = false;
for (const matrix of matrices) {
  const run = Number(matrix.dataset.run), table = one("table", matrix), rows = table.tBodies[0].rows;
  const enter = (cell) => {
    for (const other of all("td[tabindex]", table)) other.tabIndex = -1;
    cell.tabIndex = 0;
    cell.focus();
  };
  table.setAttribute("role", "grid");
  rows[0].cells[1].tabIndex = 0;
  table.addEventListener("pointerover", (event) => event.target.matches("tbody td") && tell(event.target, run));
  table.addEventListener("click", (event) => event.target.matches("tbody td") && enter(event.target));
  table.addEventListener("focusin", (event) => event.target.matches("tbody td") && tell(event.target, run));
  table.addEventListener("keydown", (event) => {
    const step = { ArrowUp: [-1, 0], ArrowDown: [1, 0], ArrowLeft: [0, -1], ArrowRight: [0, 1] }[event.key];
    if (!step || !event.target.matches("tbody td")) return;
    event.preventDefault();
    const next = rows[event.target.parentNode.sectionRowIndex + step[0]]?.cells[event.target.cellIndex + step[1]];
    if (next?.matches("td")) enter(next);
  });
}
