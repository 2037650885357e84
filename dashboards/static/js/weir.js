// What every page gets: live figures by one stream, copying, and asking before what cannot be undone.
// Text from the server is only ever put in as text.

const dot = document.querySelector("[data-live-source]");
if (dot) {
  const words = dot.querySelector("[data-words]");
  const say = (state, text) => { dot.dataset.state = state; words.textContent = text; };
  const source = new EventSource(dot.dataset.liveSource);
  source.addEventListener("open", () => say("on", "Live"));
  source.addEventListener("error", () => say("lost", "Connecting again"));
  source.addEventListener("message", (event) => {
    const news = JSON.parse(event.data);
    document.dispatchEvent(new CustomEvent("weir:live", { detail: news }));
    for (const [name, value] of Object.entries(news)) {
      for (const place of document.querySelectorAll(`[data-live="${CSS.escape(name)}"]`)) {
        if (place.localName === "rect") place.setAttribute("width", value);
        else if (place.textContent !== value) place.textContent = value;
      }
    }
  });
  addEventListener("pagehide", () => source.close());
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
