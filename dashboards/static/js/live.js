// What the fleet does now, as it goes: a chart that grows with the page's stream of events. A drag looks closer, a double
// click at everything again. The tiles beside it say the same in words.

const box = document.querySelector("[data-live-chart]");
const probe = document.createElement("span");
function colour(name) {
  probe.style.color = `var(${name})`;
  return getComputedStyle(probe).color;
}

if (box && window.uPlot) {
  box.append(probe);
  const kept = 600, columns = [[], [], [], []];
  const add = (sample) => {
    const numbers = sample.split(",").map(Number);
    if (columns[0].length && numbers[0] <= columns[0][columns[0].length - 1]) return;
    columns.forEach((column, index) => {
      column.push(numbers[index]);
      if (column.length > kept) column.shift();
    });
  };
  box.dataset.history.split(" ").filter(Boolean).forEach(add);
  const axis = { stroke: colour("--muted"), grid: { stroke: colour("--line"), width: 1 }, ticks: { show: false }, font: "12px Inter" };
  const whole = (chart, value) => (value == null ? "–" : String(value));
  const clock = (seconds) => new Date(seconds * 1000).toISOString().slice(11, 19);
  const share = (chart, value) => (value == null ? "–" : `${Math.round(value * 100)} %`);
  let closer = false;
  const options = {
    width: box.clientWidth, height: 190, padding: [8, 4, 0, 0],
    cursor: { drag: { x: true, y: false }, points: { size: 6 } },
    scales: { n: { range: (chart, low, high) => [0, Math.max(4, high * 1.15)] }, share: { range: (chart, low, high) => [0, Math.max(1, high)] } },
    axes: [{ ...axis, space: 76, incrs: [1, 2, 5, 10, 15, 30, 60, 120, 300], values: (chart, ticks) => ticks.map(clock) }, { ...axis, scale: "n", size: 44, incrs: [1, 2, 5, 10, 20, 50, 100, 200, 500, 1000] },
      { ...axis, scale: "share", side: 1, size: 52, grid: { show: false }, values: (chart, ticks) => ticks.map((tick) => share(chart, tick)) }],
    series: [
      { label: "UTC", value: (chart, at) => (at == null ? "–" : clock(at)) },
      { label: "In flight", scale: "n", stroke: colour("--s0"), fill: colour("--wash"), width: 2, points: { show: false }, value: whole },
      { label: "Waiting", scale: "n", stroke: colour("--s1"), width: 2, points: { show: false }, value: whole },
      { label: "Saturation", scale: "share", stroke: colour("--s2"), width: 2, dash: [5, 4], points: { show: false }, value: share },
    ],
    hooks: { setSelect: [(chart) => { closer = chart.select.width > 0; }] },
  };
  const chart = new window.uPlot(options, columns, box);
  chart.over.addEventListener("dblclick", () => { closer = false; });
  document.addEventListener("weir:live", (event) => {
    const sample = event.detail["now.sample"];
    if (!sample) return;
    add(sample);
    chart.setData(columns, !closer);
    if (closer) chart.redraw();
  });
  new ResizeObserver(() => chart.setSize({ width: box.clientWidth, height: 190 })).observe(box);
}
