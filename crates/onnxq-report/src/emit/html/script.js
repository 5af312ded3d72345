"use strict";
// Tables sort by a click on a head, or by a link that ends in #sort=table,column or
// #sort=table,column,descending. Names only ever become text.

const NONE = "–";

function key(row, column) {
  const cell = row.cells[column];
  return "sort" in cell.dataset ? Number(cell.dataset.sort) : cell.textContent;
}

function isNone(row, column) {
  return row.cells[column].textContent === NONE;
}

function compare(a, b) {
  if (typeof a === "number" && typeof b === "number") return a - b;
  return String(a).localeCompare(String(b), "en", { numeric: true });
}

// What was not measured stays at the end, whatever the direction.
function sort(table, column, descending) {
  const body = table.tBodies[0];
  const sign = descending ? -1 : 1;
  const rows = Array.from(body.rows);
  rows.sort((a, b) =>
    isNone(a, column) - isNone(b, column) || sign * compare(key(a, column), key(b, column)));
  body.append(...rows);
  Array.from(table.tHead.rows[0].cells).forEach((head, at) => {
    const order = descending ? "descending" : "ascending";
    head.setAttribute("aria-sort", at === column ? order : "none");
  });
}

function remember(table, column, descending) {
  const order = descending ? ",descending" : "";
  try {
    history.replaceState(null, "", `#sort=${table.id},${column}${order}`);
  } catch {
    // A page in a sandbox has no history; sorting works all the same.
  }
}

function prepare(table) {
  Array.from(table.tHead.rows[0].cells).forEach((head, column) => {
    const button = document.createElement("button");
    button.type = "button";
    button.textContent = head.textContent;
    button.addEventListener("click", () => {
      const was = head.getAttribute("aria-sort");
      const isNumber = head.classList.contains("number");
      const descending = was === "ascending" || (was !== "descending" && isNumber);
      sort(table, column, descending);
      remember(table, column, descending);
    });
    head.replaceChildren(button);
    head.setAttribute("aria-sort", "none");
  });
}

function follow() {
  const found = /^#sort=([\w-]+),(\d+)(,descending)?$/.exec(location.hash);
  const table = found && document.getElementById(found[1]);
  const column = found && Number(found[2]);
  if (!table || !table.tHead || column >= table.tHead.rows[0].cells.length) return;
  sort(table, column, Boolean(found[3]));
  table.scrollIntoView();
}

function select(element) {
  const range = document.createRange();
  range.selectNodeContents(element);
  getSelection().removeAllRanges();
  getSelection().addRange(range);
}

async function copy(button) {
  const source = document.getElementById(button.dataset.copy);
  try {
    await navigator.clipboard.writeText(source.textContent);
    button.textContent = "Copied";
  } catch {
    select(source);
    button.textContent = "Selected";
  }
  setTimeout(() => { button.textContent = "Copy"; }, 2000);
}

document.querySelectorAll("table").forEach(prepare);
document.querySelectorAll("button.copy").forEach((button) => {
  button.hidden = false;
  button.addEventListener("click", () => copy(button));
});
addEventListener("hashchange", follow);
follow();
