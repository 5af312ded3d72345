"use strict";
// Tables sort by a click on a head, or by a link that ends in #sort=table,column or
// #sort=table,column,descending. Long ones have a box that leaves the rows with a text, or a link
// that ends in #filter=table,text; all can be saved as CSV. Names only ever become text.

const NONE = "–";

// More rows than this are searched, not read.
const MANY = 12;

// A name that was shortened is whole in the title.
function full(cell) {
  return cell.title || cell.textContent;
}

function key(row, column) {
  const cell = row.cells[column];
  return "sort" in cell.dataset ? Number(cell.dataset.sort) : full(cell);
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

// A row stays if each word occurs in it, in any case and order.
function filter(table, text) {
  const words = text.toLowerCase().split(/\s+/).filter(Boolean);
  let left = 0;
  for (const row of table.tBodies[0].rows) {
    const line = Array.from(row.cells, full).join(" ").toLowerCase();
    row.hidden = !words.every((word) => line.includes(word));
    left += row.hidden ? 0 : 1;
  }
  const count = table.tBodies[0].rows.length;
  return words.length ? `${left} of ${count} rows` : `${count} rows`;
}

// Numbers in full, names as text: a spreadsheet must not take a name for a formula.
function field(cell) {
  const text = full(cell);
  const isOneNumber = "sort" in cell.dataset && text !== "exact" && !text.includes("…");
  if (isOneNumber) return String(Number(cell.dataset.sort));
  const safe = /^[=+\-@\t]/.test(text) && text !== NONE ? `'${text}` : text;
  return /[",\n]/.test(safe) ? `"${safe.replaceAll('"', '""')}"` : safe;
}

function csv(table) {
  const rows = [table.tHead.rows[0], ...table.tBodies[0].rows].filter((row) => !row.hidden);
  return rows.map((row) => Array.from(row.cells, field).join(",") + "\r\n").join("");
}

function save(table) {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(new Blob([csv(table)], { type: "text/csv" }));
  link.download = `${table.id}.csv`;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 10000);
}

// What stands above a table: a box to filter by, and a button to save.
function tools(table) {
  const bar = document.createElement("div");
  bar.className = "tools";
  if (table.tBodies[0].rows.length > MANY) {
    const box = document.createElement("input");
    const count = document.createElement("span");
    box.type = "search";
    box.placeholder = "Filter rows";
    box.setAttribute("aria-label", `Filter: ${table.caption.textContent}`);
    count.setAttribute("role", "status");
    count.textContent = filter(table, "");
    box.addEventListener("input", () => { count.textContent = filter(table, box.value); });
    bar.append(box, count);
  }
  const button = document.createElement("button");
  button.type = "button";
  button.textContent = "CSV";
  button.setAttribute("aria-label", `Save as CSV: ${table.caption.textContent}`);
  button.addEventListener("click", () => save(table));
  bar.append(button);
  table.parentElement.before(bar);
}

function followFilter() {
  const found = /^#filter=([\w-]+),(.*)$/.exec(location.hash);
  const table = found && document.getElementById(found[1]);
  if (!table || !table.tHead) return;
  const box = table.parentElement.previousElementSibling.querySelector("input");
  let text = found[2];
  try {
    text = decodeURIComponent(text);
  } catch {
    // As it stands, then.
  }
  if (box) {
    box.value = text;
    box.dispatchEvent(new Event("input"));
  }
  table.scrollIntoView();
}

// What a link points at may be folded away.
function unfold() {
  const found = /^#([\w-]+)$/.exec(location.hash);
  const element = found && document.getElementById(found[1]);
  const details = element && element.closest("details");
  if (details) details.open = true;
}

function follow() {
  followFilter();
  unfold();
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

document.querySelectorAll("table").forEach((table) => {
  tools(table);
  prepare(table);
});
document.querySelectorAll("button.copy").forEach((button) => {
  button.hidden = false;
  button.addEventListener("click", () => copy(button));
});
addEventListener("hashchange", follow);
follow();
