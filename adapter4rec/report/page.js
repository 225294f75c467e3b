"use strict";
// A click on a column header sorts the table. Missing values come last.
const valueOf = (row, column, words) => {
  const cell = row.cells[column];
  if (words) return cell.textContent;
  return cell.dataset.value === undefined ? null : Number(cell.dataset.value);
};
const compare = (a, b, direction) => {
  if (a === null || b === null) return (a === null) - (b === null);
  return direction * (typeof a === "string" ? a.localeCompare(b, undefined, { numeric: true }) : a - b);
};
const sort = (table, head) => {
  const descending = head.ariaSort ? head.ariaSort === "ascending" : head.dataset.first === "descending";
  for (const other of head.parentElement.cells) other.removeAttribute("aria-sort");
  head.setAttribute("aria-sort", descending ? "descending" : "ascending");
  const column = head.cellIndex, body = table.tBodies[0];
  const words = [...body.rows].every((row) => row.cells[column].dataset.value === undefined);
  const rows = [...body.rows].map((row) => [valueOf(row, column, words), row]);
  rows.sort(([a], [b]) => compare(a, b, descending ? -1 : 1));
  body.append(...rows.map(([, row]) => row));
};
for (const table of document.querySelectorAll("table.sortable")) {
  for (const head of table.tHead.rows[0].cells) {
    const button = document.createElement("button");
    button.type = "button";
    button.append(...head.childNodes);
    button.addEventListener("click", () => sort(table, head));
    head.append(button);
  }
}
// Expand all collapsed sections for printing.
let folded = [];
addEventListener("beforeprint", () => {
  folded = [...document.querySelectorAll("details:not([open])")];
  for (const one of folded) one.open = true;
});
addEventListener("afterprint", () => { for (const one of folded) one.open = false; });
