// Runs every check of one client: `node run.mjs openai|openrouter|ai-sdk`. What is expected comes as JSON on standard
// input, a line of JSON per check goes to standard output. A check fails by throwing.
import { readFileSync } from "node:fs";

const expected = JSON.parse(readFileSync(0, "utf8"));
const { checks } = await import(`./${process.argv[2]}.mjs`);
for (const [name, check] of Object.entries(checks)) {
  const began = performance.now();
  let error = null;
  try {
    await check(expected);
  } catch (caught) {
    error = `${caught?.stack ?? caught}`;
    if (caught?.cause) error += `\ncause: ${caught.cause?.stack ?? caught.cause}`;
  }
  console.log(JSON.stringify({ name, error, ms: Math.round(performance.now() - began) }));
}
process.exit(0);
