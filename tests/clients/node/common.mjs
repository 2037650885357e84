// What the checks of all clients share.
import { deepStrictEqual, strictEqual } from "node:assert";

export { deepStrictEqual as same, strictEqual as equal } from "node:assert";
export { ok } from "node:assert";

export const ask = (name) => [{ role: "user", content: `Play: ${name}` }];

export const WEATHER = {
  type: "object",
  properties: { city: { type: "string" }, days: { type: "number" } },
  required: ["city"],
};
export const TOOL = { type: "function", function: { name: "get_weather", parameters: WEATHER } };
export const PLACE = {
  type: "object",
  properties: { place: { type: "string" }, litres: { type: "integer" } },
  required: ["place", "litres"],
  additionalProperties: false,
};

/** The tool as the Responses API has it. */
export const FLAT_TOOL = { type: "function", name: "get_weather", parameters: WEATHER, strict: false };

/** Return what `promise` is rejected with; resolving is the failure. */
export async function rejection(promise) {
  try {
    await promise;
  } catch (error) {
    return error;
  }
  throw new Error("it was not refused");
}

/** Return what `look` finds once it finds something. */
export async function eventually(look) {
  for (let tries = 0; tries < 400; tries += 1) {
    const found = await look();
    if (found !== null && found !== undefined && found !== false) return found;
    await new Promise((resume) => setTimeout(resume, 25));
  }
  throw new Error("it did not happen in time");
}

/** Compare money: USD as numbers, equal to a billionth of a dollar. */
export function money(found, expected) {
  strictEqual(typeof found, "number");
  strictEqual(found.toFixed(12), expected.toFixed(12));
}

/** Compare calls given as [id, name, arguments] with those of the play. */
export function calls(found, { plays }) {
  deepStrictEqual(found, plays.tools.tools);
}
