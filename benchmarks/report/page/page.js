
// The page reads without what follows: it makes tables sortable, gives long ones a filter, and opens the record
// that a figure is linked to.
const $ = jQuery;

function filterBox(table, api) {
  const name = table.dataset.filter;
  const bar = document.createElement("div");
  bar.className = "filter";
  const label = document.createElement("label");
  const box = document.createElement("input");
  box.type = "search";
  box.placeholder = "Filter rows";
  box.setAttribute("aria-label", `Filter rows: ${name}`);
  label.append(box);
  const count = document.createElement("span");
  count.setAttribute("role", "status");
  box.addEventListener("input", () => {
    api.search(box.value).draw();
    const { recordsDisplay, recordsTotal } = api.page.info();
    count.textContent = box.value ? `${recordsDisplay} of ${recordsTotal} rows` : "";
  });
  bar.append(label, count);
  table.closest(".table").prepend(bar);
}

for (const table of document.querySelectorAll(".table table")) {
  if (table.tBodies[0].rows.length < 2) continue;
  const api = $(table).DataTable({
    autoWidth: false,
    info: false,
    layout: { topStart: null, topEnd: null, bottomStart: null, bottomEnd: null },
    order: [],
    paging: false,
    language: { zeroRecords: "No row has that." },
  });
  if (table.dataset.filter) filterBox(table, api);
}

// A stop of the keyboard only where there is something to scroll.
const watcher = new ResizeObserver((entries) => {
  for (const { target } of entries) target.tabIndex = target.scrollWidth > target.clientWidth ? 0 : -1;
});
for (const region of document.querySelectorAll(".scroll, .plot.wide")) watcher.observe(region);

function openTarget() {
  const target = location.hash && document.getElementById(decodeURIComponent(location.hash.slice(1)));
  if (target instanceof HTMLDetailsElement) {
    target.open = true;
    target.scrollIntoView({ block: "start" });
    target.querySelector("summary").focus({ preventScroll: true });
  }
}

addEventListener("hashchange", openTarget);
addEventListener("beforeprint", () => {
  for (const entry of document.querySelectorAll("details.above")) entry.open = false;
});
openTarget();
document.documentElement.dataset.ready = "";
