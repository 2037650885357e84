// The playground: one stream for each lane, read as it comes. What models write is only ever put in as text.

const form = document.getElementById("play");
const lanes = document.getElementById("lanes");
const [send, stop, add] = ["[data-send]", "[data-stop]", "[data-add]"].map((which) => form.querySelector(which));
let key = null, keyTeam = null, running = null;

async function freshKey(team) {
  const sent = await fetch(form.dataset.key, {
    method: "POST",
    headers: { "content-type": "application/x-www-form-urlencoded" },
    body: new URLSearchParams({ csrf: form.elements.csrf.value, team }),
  });
  const found = await sent.json();
  if (!sent.ok) throw new Error(found.error);
  [key, keyTeam] = [found.key, team];
}

function facts(lane, pairs) {
  lane.querySelector("[data-facts]").replaceChildren(...pairs.map(([name, value]) => {
    const box = document.createElement("div"), term = document.createElement("dt"), what = document.createElement("dd");
    term.textContent = name;
    what.textContent = value;
    box.append(term, what);
    return box;
  }));
}

function body(lane) {
  const fields = form.elements, messages = [];
  if (fields.system.value.trim()) messages.push({ role: "system", content: fields.system.value });
  messages.push({ role: "user", content: fields.prompt.value || "What is a weir?" });
  const made = { model: lane.querySelector("select").value, messages, stream: true, usage: { include: true } };
  if (fields.longest.value) made.max_tokens = Number(fields.longest.value);
  if (fields.temperature.value) made.temperature = Number(fields.temperature.value);
  return made;
}

async function* events(response) {
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  for (;;) {
    const { value, done } = await reader.read();
    if (done) return;
    const parts = (rest + value).split("\n\n");
    rest = parts.pop();
    for (const part of parts) {
      const data = part.split("\n").filter((line) => line.startsWith("data: ")).map((line) => line.slice(6)).join("\n");
      if (data && data !== "[DONE]") yield JSON.parse(data);
    }
  }
}

async function run(lane, signal) {
  const answer = lane.querySelector("[data-answer]");
  answer.textContent = "";
  answer.classList.remove("failed");
  facts(lane, []);
  const began = performance.now();
  let first = null, usage = null, served = "", pieces = 0;
  try {
    const response = await fetch("/api/v1/chat/completions", {
      method: "POST", signal,
      headers: { "content-type": "application/json", authorization: `Bearer ${key}` },
      body: JSON.stringify(body(lane)),
    });
    if (!response.ok) throw new Error((await response.json()).error?.message ?? `status ${response.status}`);
    const route = response.headers.get("x-weir-route") ?? "";
    for await (const chunk of events(response)) {
      if (chunk.error) throw new Error(chunk.error.message);
      served = chunk.provider ?? served;
      const delta = chunk.choices?.[0]?.delta ?? {};
      const text = (delta.reasoning ?? "") + (delta.content ?? "");
      if (text) {
        first ??= performance.now();
        pieces += 1;
        answer.append(document.createTextNode(text));
      }
      usage = chunk.usage ?? usage;
    }
    const whole = performance.now() - began;
    const rate = usage && first ? usage.completion_tokens / Math.max((performance.now() - first) / 1000, 0.001) : null;
    facts(lane, [
      ["First token", first ? `${Math.round(first - began)} ms` : "none"],
      ["Whole", `${(whole / 1000).toFixed(2)} s`],
      ["Speed", rate ? `${rate.toFixed(0)} tokens/s` : `${pieces} pieces`],
      ["Tokens", usage ? `${usage.prompt_tokens} in, ${usage.completion_tokens} out` : "unknown"],
      ["Cost", usage?.cost !== undefined ? `$${usage.cost}` : "unknown"],
      ["Served by", served || "unknown"],
      ["Route", route || "not told"],
    ]);
  } catch (error) {
    if (error.name === "AbortError") facts(lane, [["Stopped", "by you; what was made is charged"]]);
    else {
      answer.classList.add("failed");
      answer.append(document.createTextNode(error.message));
    }
  }
}

form.addEventListener("submit", async (event) => {
  event.preventDefault();
  running = new AbortController();
  [send.disabled, stop.disabled] = [true, false];
  const all = [...lanes.querySelectorAll("[data-lane]")];
  try {
    const team = form.elements.team.value;
    if (!key || keyTeam !== team) await freshKey(team);
    await Promise.all(all.map((lane) => run(lane, running.signal)));
  } catch (error) {
    for (const lane of all) lane.querySelector("[data-answer]").textContent = error.message;
  }
  [send.disabled, stop.disabled] = [false, true];
});
stop.addEventListener("click", () => running?.abort());
add.addEventListener("click", () => {
  const all = lanes.querySelectorAll("[data-lane]");
  const lane = all[all.length - 1].cloneNode(true);
  lane.querySelector("[data-answer]").textContent = "";
  facts(lane, []);
  const choice = lane.querySelector("select");
  choice.selectedIndex = (all[all.length - 1].querySelector("select").selectedIndex + 1) % choice.options.length;
  lanes.append(lane);
  if (all.length >= 2) add.disabled = true;
});
