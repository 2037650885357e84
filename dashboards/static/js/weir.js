// What every page gets: live figures by one stream, chart hovers, copying, and asking before what cannot be undone.
// Text from the server is only ever put in as text.

const dot = document.querySelector("[data-live-source]");
if (dot) {
  const words = dot.querySelector("[data-words]");
  const say = (state, text) => { dot.dataset.state = state; words.textContent = text; };
  const source = new EventSource(dot.dataset.liveSource);
  source.addEventListener("open", () => say("on", "Live"));
  source.addEventListener("error", () => say("lost", "Connecting again"));
  source.addEventListener("message", (event) => {
    for (const [name, value] of Object.entries(JSON.parse(event.data))) {
      for (const place of document.querySelectorAll(`[data-live="${CSS.escape(name)}"]`)) {
        if (place.localName === "rect") place.setAttribute("width", value);
        else if (place.textContent !== value) place.textContent = value;
      }
    }
  });
  addEventListener("pagehide", () => source.close());
}

const svg = "http://www.w3.org/2000/svg";
function swatch(series) {
  const box = document.createElementNS(svg, "svg");
  box.setAttribute("viewBox", "0 0 10 10");
  const rect = document.createElementNS(svg, "rect");
  for (const [name, value] of [["width", 10], ["height", 10], ["rx", 2.5], ["class", `s${series}`]]) rect.setAttribute(name, value);
  box.append(rect);
  return box;
}
function line(kind, ...texts) {
  const made = document.createElement("div");
  made.className = kind;
  for (const text of texts) {
    if (text instanceof Node) { made.append(text); continue; }
    const part = document.createElement("span");
    part.textContent = text;
    made.append(part);
  }
  return made;
}
for (const chart of document.querySelectorAll("[data-chart]")) {
  const tip = chart.querySelector(".tip");
  const show = (hit) => {
    const rows = (hit.dataset.lines || "").split("\n").filter(Boolean).map((row) => row.split("|"));
    tip.replaceChildren(line("tip-head", hit.dataset.label, hit.dataset.total),
      ...rows.reverse().map(([series, name, words]) => line("tip-line", swatch(series), name, words)));
    tip.hidden = false;
    const frame = chart.getBoundingClientRect(), at = hit.getBoundingClientRect();
    const left = at.right - frame.left + 10;
    tip.style.left = `${left + tip.offsetWidth > frame.width ? Math.max(0, at.left - frame.left - tip.offsetWidth - 10) : left}px`;
  };
  chart.addEventListener("pointerover", (event) => {
    if (event.target.classList?.contains("hit")) show(event.target);
    else if (tip) tip.hidden = true;
  });
  chart.addEventListener("pointerleave", () => { if (tip) tip.hidden = true; });
}

document.addEventListener("click", async (event) => {
  const button = event.target.closest("[data-copy]");
  if (!button) return;
  const from = document.getElementById(button.dataset.copy);
  await navigator.clipboard.writeText(from.textContent.trim());
  const before = button.textContent;
  button.textContent = "Copied";
  setTimeout(() => { button.textContent = before; }, 1500);
});
document.addEventListener("submit", (event) => {
  const question = event.submitter?.dataset.ask;
  if (question && !confirm(question)) event.preventDefault();
});
document.addEventListener("change", (event) => {
  if (event.target.closest("form[data-auto]")) event.target.form.requestSubmit();
});
