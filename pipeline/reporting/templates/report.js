"use strict";
const one = (selector, within = document) => within.querySelector(selector);
const all = (selector, within = document) => [...within.querySelectorAll(selector)];
const make = (tag, properties = {}) => Object.assign(document.createElement(tag), properties);

// Tables whose headings sort: numbers by value, names alphabetically, empty cells last.
const order = (a, b) => (isNaN(a) || isNaN(b) ? a.localeCompare(b) : a - b);
for (const table of all("table.sortable")) {
  const body = table.tBodies[0];
  all("thead tr:last-child th", table).forEach((head, column) => {
    if (head.classList.contains("plot")) return;
    const button = make("button", { type: "button" });
    button.append(...head.childNodes);
    head.replaceChildren(button);
    button.addEventListener("click", () => {
      const down = head.getAttribute("aria-sort") === "ascending";
      for (const other of all("th[aria-sort]", table)) other.removeAttribute("aria-sort");
      head.setAttribute("aria-sort", down ? "descending" : "ascending");
      const key = (row) => row.cells[column].dataset.v ?? "";
      const sorted = [...body.rows].sort((a, b) => {
        const [x, y] = [key(a), key(b)];
        return x === "" || y === "" ? (x === "") - (y === "") : order(x, y) * (down ? -1 : 1);
      });
      body.append(...sorted);
    });
  });
}

// Filter the classes.
const filter = one("#filter");
filter.closest(".controls").hidden = false;
filter.addEventListener("input", () => {
  const wanted = filter.value.trim().toLowerCase(), rows = all("#classtable tbody tr");
  for (const row of all("#classes tbody tr")) row.hidden = !row.cells[0].textContent.toLowerCase().includes(wanted);
  one("#shown").textContent = wanted ? `${rows.filter((row) => !row.hidden).length} of ${rows.length} classes` : "";
});

// Buttons that show one of several elements; without scripts, and on paper, all are shown.
const choose = (buttons, options, shown = () => {}) => {
  const show = (chosen) => {
    options.forEach((option, i) => {
      option.hidden = option !== chosen;
      buttons.children[i]?.setAttribute("aria-pressed", option === chosen);
    });
    shown(chosen);
  };
  if (options.length > 1) {
    buttons.hidden = false;
    options[0].parentNode.classList.add("switched");
    buttons.append(...options.map((option) => {
      const button = make("button", { type: "button", textContent: option.dataset.name });
      button.addEventListener("click", () => show(option));
      return button;
    }));
  }
  if (options.length) show(options[0]);
};
for (const buttons of all(".choices:not(#which)")) choose(buttons, all(":scope > .choice", buttons.parentNode));

// One confusion matrix at a time; a cell lists its clips.
const matrices = all(".matrix"), data = JSON.parse(one("#data").textContent);
const classes = all(".matrix:first-child tbody th").map((head) => head.textContent);
const MOST = 12;
const describe = (cell, matrix) => {
  const row = cell.parentNode.sectionRowIndex, column = cell.cellIndex - 1;
  const predicted = data.predicted[matrix.dataset.run], names = new Map();
  for (const marked of all(".shown", one(".matrices"))) marked.classList.remove("shown");
  cell.classList.add("shown");
  one("#cell").textContent = cell.dataset.t ?? `${classes[row]} was never predicted as ${classes[column]}.`;
  data.true.forEach((value, i) => {
    if (value !== data.order[row] || predicted[i] !== data.order[column]) return;
    const name = data.ids[data.id[i]];
    names.set(name, [...(names.get(name) ?? []), data.splits[data.split[i]]]);
  });
  const items = [...names].slice(0, MOST).map(([name, splits]) => make("li", {
    textContent: `${name} (${splits.length > 3 ? `${splits.length} splits` : splits.join(", ")})`,
  }));
  if (names.size > MOST) items.push(make("li", { className: "more", textContent: `and ${names.size - MOST} more clips` }));
  one("#clips").replaceChildren(...items);
};
one("#detail").hidden = false;
choose(one("#which"), matrices, (matrix) => {
  const [row, column] = (matrix.dataset.first ?? "0,0").split(",").map(Number);
  describe(one("table", matrix).tBodies[0].rows[row].cells[column + 1], matrix);
});
for (const matrix of matrices) {
  const table = one("table", matrix), rows = table.tBodies[0].rows;
  const enter = (cell) => {
    for (const other of all("td[tabindex]", table)) other.tabIndex = -1;
    cell.tabIndex = 0;
    cell.focus();
  };
  table.setAttribute("role", "grid");
  rows[0].cells[1].tabIndex = 0;
  const square = (event) => event.target.matches("tbody td");
  table.addEventListener("pointerover", (event) => square(event) && describe(event.target, matrix));
  table.addEventListener("click", (event) => square(event) && enter(event.target));
  table.addEventListener("focusin", (event) => square(event) && describe(event.target, matrix));
  table.addEventListener("keydown", (event) => {
    const step = { ArrowUp: [-1, 0], ArrowDown: [1, 0], ArrowLeft: [0, -1], ArrowRight: [0, 1] }[event.key];
    if (!step || !square(event)) return;
    event.preventDefault();
    const next = rows[event.target.parentNode.sectionRowIndex + step[0]]?.cells[event.target.cellIndex + step[1]];
    if (next?.matches("td")) enter(next);
  });
}

// Open what a reader of the paper could not unfold.
addEventListener("beforeprint", () => all("details:has(figure)").forEach((details) => (details.open = true)));

// Mark the section in view in the contents.
const links = new Map(all("nav a").map((link) => [link.hash.slice(1), link]));
const seen = new Set();
const watch = new IntersectionObserver((entries) => {
  for (const { target, isIntersecting } of entries) seen[isIntersecting ? "add" : "delete"](target.id);
  const here = [...links.keys()].find((id) => seen.has(id));
  for (const [id, link] of links) id === here ? link.setAttribute("aria-current", "true") : link.removeAttribute("aria-current");
}, { rootMargin: "-10% 0px -60% 0px" });
for (const section of all("section")) watch.observe(section);
