// Rankings: exact numbers under the pointer or the arrow keys, series picked out by the legend, today's counter.
// Numbers are read from the table behind the chart, so that they are there once. Text is only ever put in as text.

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

const counter = document.querySelector("[data-counter]");
if (counter) {
  const places = [...counter.querySelectorAll("[data-count]")];
  const grouped = (number) => number.toString().replace(/\B(?=(\d{3})+$)/g, ",");
  const still = matchMedia("(prefers-reduced-motion: reduce)");
  const held = new Map(places.map((place) => [place, BigInt(place.textContent.replace(/\D/g, "") || 0)]));
  const move = (place, to) => {
    const from = held.get(place);
    held.set(place, to);
    if (from === to) return;
    if (still.matches || to < from) { place.textContent = grouped(to); return; }
    const began = performance.now();
    const frame = (now) => {
      const part = Math.min(1, (now - began) / 900);
      if (held.get(place) !== to) return;
      place.textContent = grouped(part === 1 ? to : from + (to - from) * BigInt(Math.round((1 - (1 - part) ** 3) * 1000)) / 1000n);
      if (part < 1) requestAnimationFrame(frame);
    };
    requestAnimationFrame(frame);
  };
  let wait = 4000;
  const look = async () => {
    if (!document.hidden) {
      try {
        const answer = await fetch(counter.dataset.counter, { headers: { accept: "application/json" } });
        if (!answer.ok) throw new Error(String(answer.status));
        const found = await answer.json();
        for (const place of places) move(place, BigInt(found[place.dataset.count]));
        counter.dataset.state = "on";
        wait = 4000;
      } catch {
        counter.dataset.state = "lost";
        wait = Math.min(60000, wait * 2);
      }
    }
    setTimeout(look, wait);
  };
  look();
}
