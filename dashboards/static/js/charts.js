// Charts: exact numbers under the pointer or the arrow keys, series picked out by the legend. Numbers are read from the
// table behind the chart, so that they are there once. Text is only ever put in as text.

const NS = "http://www.w3.org/2000/svg";
function swatch(colour) {
  const box = document.createElementNS(NS, "svg"), rect = document.createElementNS(NS, "rect");
  box.setAttribute("viewBox", "0 0 10 10");
  for (const [name, value] of [["width", 10], ["height", 10], ["rx", 2.5], ["class", `s${colour}`]]) rect.setAttribute(name, value);
  box.append(rect);
  return box;
}
function line(kind, ...parts) {
  const made = document.createElement("div");
  made.className = kind;
  for (const part of parts) {
    if (part instanceof Node) { made.append(part); continue; }
    const span = document.createElement("span");
    span.textContent = part;
    made.append(span);
  }
  return made;
}

for (const chart of document.querySelectorAll("[data-ranked]")) {
  const plot = chart.querySelector(".plot");
  if (!plot) continue;
  const count = Number(chart.dataset.ranked), tip = chart.querySelector(".tip"), spot = chart.querySelector(".spot");
  const heads = [...chart.querySelectorAll(".chart-table thead th")], rows = chart.querySelectorAll(".chart-table tbody tr");
  let at = -1;
  const hide = () => { at = -1; tip.hidden = true; spot.setAttribute("width", 0); };
  const show = (point) => {
    at = Math.min(count - 1, Math.max(0, point));
    const cells = [...rows[at].children];
    const said = cells.map((cell, index) => [heads[index].dataset.colour, heads[index].textContent, cell.textContent]).slice(1);
    const series = said.filter(([colour, , value]) => colour !== undefined && value !== "0" && value !== "–" && value !== "$0.00");
    const total = said.filter(([colour]) => colour === undefined);
    tip.replaceChildren(line("tip-head", cells[0].textContent),
      ...series.map(([colour, name, value]) => line("tip-line", swatch(colour), name, value)),
      ...total.map(([, name, value]) => line("tip-line total", name, value)));
    tip.hidden = false;
    spot.setAttribute("x", at * 10);
    spot.setAttribute("width", 10);
    const frame = chart.getBoundingClientRect(), place = plot.getBoundingClientRect();
    const left = place.left - frame.left + place.width * (at + 1) / count + 12;
    const flipped = left - place.width / count - tip.offsetWidth - 24;
    tip.style.left = `${left + tip.offsetWidth > frame.width ? Math.max(0, flipped) : left}px`;
  };
  plot.addEventListener("pointermove", (event) => {
    const place = plot.getBoundingClientRect();
    const point = Math.floor((event.clientX - place.left) / place.width * count);
    if (point !== at) show(point);
  });
  plot.addEventListener("pointerleave", hide);
  plot.addEventListener("blur", hide);
  plot.addEventListener("keydown", (event) => {
    const step = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
    if (event.key === "Escape") hide();
    if (!step && event.key !== "Home" && event.key !== "End") return;
    event.preventDefault();
    show(step ? (at < 0 ? count - 1 : at + step) : event.key === "Home" ? 0 : count - 1);
  });
  const layers = [...chart.querySelectorAll(".layer, .line")];
  for (const item of chart.querySelectorAll("[data-layer]")) {
    item.addEventListener("pointerenter", () => {
      chart.classList.add("dimmed");
      layers.forEach((layer, index) => layer.classList.toggle("lit", index === Number(item.dataset.layer)));
    });
    item.addEventListener("pointerleave", () => chart.classList.remove("dimmed"));
  }
}
