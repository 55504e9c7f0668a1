"use strict";
// Whoever follows a link to a cell or a check finds it open.
function openTarget() {
  const target = document.getElementById(decodeURIComponent(location.hash.slice(1)));
  if (!target) return;
  for (let node = target; node; node = node.parentElement) {
    if (node instanceof HTMLDetailsElement) node.open = true;
    node.hidden = false;
  }
  target.scrollIntoView();
  const summary = target.querySelector("summary");
  if (summary) summary.focus({ preventScroll: true });
}
addEventListener("hashchange", openTarget);
// The same link once more does not change the hash.
addEventListener("click", (event) => {
  const link = event.target.closest("a[href^='#']");
  if (link && link.hash === location.hash) openTarget();
});

// Copies the command beside a button.
async function copy(button) {
  const code = button.previousElementSibling;
  try {
    await navigator.clipboard.writeText(code.textContent);
  } catch {
    getSelection().selectAllChildren(code);
    document.execCommand("copy");
  }
  button.textContent = "Copied";
  setTimeout(() => { button.textContent = "Copy"; }, 1500);
}
addEventListener("click", (event) => {
  const button = event.target.closest("button.copy");
  if (button) copy(button);
});

// Shows the examples and checks that a text, a state and an environment select.
function filter() {
  const value = (id) => document.getElementById(id)?.value ?? "";
  const words = value("filter-text").toLowerCase().split(/\s+/).filter(Boolean);
  const state = value("filter-state");
  const column = value("filter-column");
  let shown = 0;
  for (const article of document.querySelectorAll("article")) {
    const example = article.querySelector("h3").textContent;
    let any = false;
    for (const cell of article.querySelectorAll("details.cell")) {
      let here = false;
      for (const body of cell.querySelectorAll("tbody")) {
        const variant = body.querySelector("tr.variant").textContent;
        let some = false;
        for (const row of body.querySelectorAll("tr[id]")) {
          const text = `${example} ${variant} ${row.cells[0].textContent}`.toLowerCase();
          const wanted = words.every((word) => text.includes(word))
            && (!state || (state === "changed" ? "changed" in row.dataset : row.classList.contains(state)));
          row.hidden = !wanted;
          const more = row.nextElementSibling;
          if (more?.classList.contains("more")) more.hidden = !wanted;
          some ||= wanted;
          shown += wanted && (!column || cell.dataset.column === column);
        }
        body.hidden = !some;
        here ||= some;
      }
      cell.hidden = (column && cell.dataset.column !== column) || (!here && (words.length || state));
      if ((words.length || state) && !cell.hidden) cell.open = true;
      any ||= !cell.hidden;
    }
    article.hidden = !any;
  }
  document.getElementById("filter-count").textContent =
    words.length || state || column ? `${shown} check${shown === 1 ? "" : "s"}` : "";
}

addEventListener("DOMContentLoaded", () => {
  for (const own of document.querySelectorAll(".filter, button.copy")) own.hidden = false;
  for (const kind of ["input", "change"]) {
    document.querySelector(".filter")?.addEventListener(kind, filter);
  }
  openTarget();
});
