"use strict";
// Tables: a head's button sorts by its column, again the other way. What has no key is last either way.
for (const head of document.querySelectorAll("th[aria-sort]")) {
  head.querySelector("button").addEventListener("click", () => {
    const up = head.getAttribute("aria-sort") !== "ascending";
    for (const other of head.parentNode.children) other.setAttribute("aria-sort", "none");
    head.setAttribute("aria-sort", up ? "ascending" : "descending");
    const body = head.closest("table").tBodies[0];
    const isNumber = head.classList.contains("number");
    const key = (row) => {
      const cell = row.cells[head.cellIndex];
      return isNumber ? cell.dataset.key : cell.textContent;
    };
    const compare = (a, b) => {
      if ((key(a) === "") !== (key(b) === "")) return key(a) === "" ? 1 : -1;
      const order = isNumber ? key(a) - key(b) : key(a).localeCompare(key(b), undefined, { numeric: true });
      return up ? order : -order;
    };
    body.append(...[...body.rows].sort(compare));
  });
}

// Charts: drawn when they come near the window, so that a long page opens at once.
function draw(holder) {
  const spec = JSON.parse(holder.nextElementSibling.textContent);
  spec.config.legend.columns = Math.max(2, Math.floor(holder.clientWidth / 140));
  spec.config.axis.labelLimit = Math.max(150, holder.clientWidth * 0.35);
  spec.config.axis.titleLimit = holder.clientWidth - 70;
  const expressionFunctions = { asText: (value) => value };
  window
    .vegaEmbed(holder, spec, { renderer: "svg", actions: false, tooltip: { theme: "custom" }, expressionFunctions })
    .then(() => holder.setAttribute("data-drawn", ""))
    .catch((error) => {
      holder.textContent = `This chart could not be drawn: ${error.message}`;
      console.error(error);
    });
}
const watcher = new IntersectionObserver(
  (entries) => {
    for (const entry of entries.filter((entry) => entry.isIntersecting)) {
      watcher.unobserve(entry.target);
      draw(entry.target);
    }
  },
  { rootMargin: "800px" },
);
for (const holder of document.querySelectorAll(".chart")) watcher.observe(holder);
window.addEventListener("beforeprint", () => {
  for (const holder of document.querySelectorAll(".chart:not([data-drawn])")) draw(holder);
});
