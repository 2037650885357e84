// Rankings: the counter of today, which moves. Text is only ever put in as text.

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
