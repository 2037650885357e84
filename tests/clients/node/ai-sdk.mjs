// `@openrouter/ai-sdk-provider` in strict mode under `ai`, both unmodified.
import { createOpenRouter } from "@openrouter/ai-sdk-provider";
import { APICallError, embedMany, generateObject, generateText, jsonSchema, RetryError, stepCountIs, streamText, tool } from "ai";
import { z } from "zod";

import { ask, equal, money, ok, PLACE, rejection, same, WEATHER } from "./common.mjs";

const connect = ({ url, key }) =>
  createOpenRouter({
    apiKey: key,
    baseURL: `${url}/api/v1`,
    compatibility: "strict",
    appName: "Example",
    appUrl: "https://app.example",
  });

const weather = (execute) => ({
  get_weather: tool({ description: "Weather", inputSchema: jsonSchema(WEATHER), ...(execute ? { execute } : {}) }),
});

async function refused(expected, key) {
  const model = connect({ ...expected, key })(expected.models.scripted);
  return await rejection(
    (async () => {
      for (let time = 0; time < 2; time += 1) await generateText({ model, prompt: "Play: text", maxRetries: 0 });
    })(),
  );
}

export const checks = {
  async chat(expected) {
    const { plays, prompt, cached, models } = expected;
    const answer = await generateText({ model: connect(expected)(models.scripted), messages: ask("text") });
    same([answer.text, answer.finishReason], [plays.text.text, "stop"]);
    same(
      [answer.usage.inputTokens, answer.usage.outputTokens, answer.usage.cachedInputTokens],
      [prompt, plays.text.completion, cached],
    );
    const { openrouter } = answer.providerMetadata;
    equal(openrouter.provider, "script");
    money(openrouter.usage.cost, plays.text.cost);
  },

  async stream(expected) {
    const { plays, prompt, models } = expected;
    const stream = streamText({ model: connect(expected)(models.scripted), messages: ask("text") });
    const pieces = [];
    for await (const piece of stream.textStream) pieces.push(piece);
    same(pieces, plays.text.pieces);
    const usage = await stream.usage;
    same([usage.inputTokens, usage.outputTokens], [prompt, plays.text.completion]);
    money((await stream.providerMetadata).openrouter.usage.cost, plays.text.cost);
  },

  async tools(expected) {
    const asked = [];
    const answer = await generateText({
      model: connect(expected)(expected.models.scripted),
      messages: ask("tools"),
      tools: weather(async (input) => {
        asked.push(input);
        return "rain";
      }),
      stopWhen: stepCountIs(2),
    });
    same(asked, expected.plays.tools.tools.map(([, , text]) => JSON.parse(text)));
    equal(answer.text, expected.plays.told.text);
    same(
      answer.steps[0].toolCalls.map((call) => [call.toolCallId, call.toolName]),
      expected.plays.tools.tools.map(([id, name]) => [id, name]),
    );
  },

  async tools_in_a_stream(expected) {
    const stream = streamText({
      model: connect(expected)(expected.models.scripted),
      messages: ask("tools"),
      tools: weather(),
    });
    await stream.consumeStream();
    same(
      (await stream.toolCalls).map((call) => [call.toolCallId, call.toolName, call.input]),
      expected.plays.tools.tools.map(([id, name, text]) => [id, name, JSON.parse(text)]),
    );
    equal(await stream.finishReason, "tool-calls");
  },

  async structured(expected) {
    const model = connect(expected)(expected.models.scripted);
    const byZod = z.object({ place: z.string(), litres: z.number().int() });
    for (const schema of [jsonSchema(PLACE), byZod]) {
      const { object } = await generateObject({ model, messages: ask("json"), schema });
      same(object, { place: "Basel", litres: 42 });
    }
  },

  async reasoning(expected) {
    const play = expected.plays.reasoning;
    const model = connect(expected)(expected.models.scripted, { reasoning: { effort: "low" } });
    const answer = await generateText({ model, messages: ask("reasoning") });
    same([answer.reasoningText, answer.text], [play.thought, play.text]);
    const stream = streamText({ model, messages: ask("reasoning") });
    await stream.consumeStream();
    same([await stream.reasoningText, await stream.text], [play.thought, play.text]);
    equal((await stream.usage).reasoningTokens, play.reasoning);
  },

  async images(expected) {
    const picture = new Uint8Array([1, 2, 3, 4]);
    const content = [
      { type: "text", text: "Play: text" },
      { type: "image", image: picture, mediaType: "image/png" },
    ];
    const model = connect(expected)(expected.models.scripted);
    equal((await generateText({ model, messages: [{ role: "user", content }] })).text, expected.plays.text.text);
  },

  async routing(expected) {
    const provider = connect(expected);
    const only = (slug) => provider(expected.models.scripted, { provider: { only: [slug] } });
    const answer = await generateText({ model: only("script"), messages: ask("text") });
    equal(answer.providerMetadata.openrouter.provider, "script");
    const error = await rejection(generateText({ model: only("own"), messages: ask("text"), maxRetries: 0 }));
    equal(error.statusCode, 404);
  },

  async real(expected) {
    const provider = connect(expected);
    const answer = await generateText({ model: provider(expected.models.real), prompt: "hello" });
    same([answer.text, answer.usage.outputTokens], [expected.real.text, expected.real.tokens]);
    const stream = streamText({ model: provider(expected.models.real), prompt: "hello" });
    equal(await stream.text, expected.real.text);
    const called = await generateText({
      model: provider(expected.models.realTools),
      prompt: "hello",
      tools: weather(),
      maxOutputTokens: 300,
    });
    equal(called.toolCalls[0].toolName, "get_weather");
  },

  async errors(expected) {
    const provider = connect(expected);
    for (const [model, name, status, type] of [
      [expected.models.scripted, "too-long", 400, "context_length_exceeded"],
      [expected.models.scripted, "refused", 422, "invalid_request"],
      ["no/such", "text", 404, "not_found"],
      [expected.weak.full, "full", 503, "provider_unavailable"],
      [expected.weak.broken, "broken", 502, "provider_unavailable"],
    ]) {
      const error = await rejection(generateText({ model: provider(model), messages: ask(name), maxRetries: 0 }));
      ok(APICallError.isInstance(error), `${error?.stack}`);
      same([error.statusCode, error.data.error.code, error.data.error.metadata.error_type], [status, status, type]);
      equal(error.isRetryable, status >= 500);
    }
  },

  async errors_of_keys(expected) {
    const { keys } = expected;
    equal((await refused(expected, keys.unknown)).statusCode, 401);
    equal((await refused(expected, expected.admin)).statusCode, 403);
    equal((await refused(expected, keys.elsewhere)).statusCode, 403);
    equal((await refused(expected, keys.poor)).statusCode, 402);
    const often = await refused(expected, keys.often);
    equal(often.statusCode, 429);
    ok(Number(often.responseHeaders["retry-after"]) >= 1);
  },

  async cut(expected) {
    for (const name of ["cut", "failing"]) {
      const found = [];
      const stream = streamText({
        model: connect(expected)(expected.weak.cut),
        messages: ask(name),
        maxRetries: 0,
        onError: () => {},
      });
      for await (const part of stream.fullStream) found.push(part);
      const text = found.filter((part) => part.type === "text-delta").map((part) => part.text);
      equal(text.join(""), expected.plays[name].text);
      ok(found.some((part) => part.type === "error"));
      equal(await stream.finishReason, "error");
    }
  },

  async retries(expected) {
    const began = performance.now();
    const answer = await generateText({
      model: connect(expected)(expected.weak.once),
      messages: ask("once-ai-sdk"),
      maxRetries: 2,
    });
    equal(answer.text, expected.plays.text.text);
    ok(performance.now() - began >= 1000);
    const given = await rejection(
      generateText({ model: connect(expected)(expected.weak.full), messages: ask("full"), maxRetries: 1 }),
    );
    ok(RetryError.isInstance(given));
  },

  async completions(expected) {
    const answer = await generateText({
      model: connect(expected).completion(expected.models.scripted),
      prompt: "Water",
    });
    same([answer.text, answer.finishReason], [" and so on", "stop"]);
  },

  async embeddings(expected) {
    const { embeddings } = await embedMany({
      model: connect(expected).textEmbeddingModel(expected.models.embedder),
      values: ["a", "b"],
    });
    same(embeddings, [
      [0.5, -0.25, 0],
      [0.5, -0.25, 1],
    ]);
  },
};
