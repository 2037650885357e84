// The official `@openrouter/sdk` package, unmodified.
import { OpenRouter } from "@openrouter/sdk";
import * as errors from "@openrouter/sdk/models/errors";

import { ask, calls, equal, eventually, FLAT_TOOL, money, ok, PLACE, rejection, same, TOOL } from "./common.mjs";

const connect = ({ url, key }, more = {}) =>
  new OpenRouter({
    apiKey: key,
    serverURL: `${url}/api/v1`,
    httpReferer: "https://app.example",
    appTitle: "Example",
    retryConfig: { strategy: "none" },
    ...more,
  });

const chat = (client, body) => client.chat.send({ chatRequest: body });

function checkUsage(usage, name, { plays, prompt, cached }) {
  const play = plays[name];
  same([usage.promptTokens, usage.completionTokens], [prompt, play.completion]);
  same([usage.promptTokensDetails.cachedTokens, usage.isByok], [cached, false]);
  equal(usage.completionTokensDetails.reasoningTokens, play.reasoning);
  money(usage.cost, play.cost);
  const { upstreamInferencePromptCost, upstreamInferenceCompletionsCost } = usage.costDetails;
  money(upstreamInferencePromptCost + upstreamInferenceCompletionsCost, play.cost);
}

async function collect(stream) {
  const chunks = [];
  for await (const chunk of stream) chunks.push(chunk);
  return chunks;
}

async function refused(expected, key) {
  const client = connect({ ...expected, key });
  return await rejection(
    (async () => {
      for (let time = 0; time < 2; time += 1) {
        await chat(client, { model: expected.models.scripted, messages: ask("text") });
      }
    })(),
  );
}

export const checks = {
  async chat(expected) {
    const answer = await chat(connect(expected), { model: expected.models.scripted, messages: ask("text") });
    same(
      [answer.choices[0].message.content, answer.choices[0].finishReason, answer.model, answer.object],
      [expected.plays.text.text, "stop", expected.models.scripted, "chat.completion"],
    );
    checkUsage(answer.usage, "text", expected);
  },

  async stream(expected) {
    const chunks = await collect(
      await chat(connect(expected), { model: expected.models.scripted, messages: ask("text"), stream: true }),
    );
    same(chunks.map((chunk) => chunk.choices[0].delta.content).filter(Boolean), expected.plays.text.pieces);
    same(
      chunks.slice(-2).map((chunk) => chunk.choices[0].finishReason),
      ["stop", "stop"],
    );
    same(chunks.map((chunk) => Boolean(chunk.usage)).indexOf(true), chunks.length - 1);
    checkUsage(chunks.at(-1).usage, "text", expected);
  },

  async tools(expected) {
    const client = connect(expected);
    const body = { model: expected.models.scripted, messages: ask("tools"), tools: [TOOL] };
    const { message } = (await chat(client, body)).choices[0];
    calls(
      message.toolCalls.map((call) => [call.id, call.function.name, call.function.arguments]),
      expected,
    );
    const results = message.toolCalls.map((call) => ({ role: "tool", toolCallId: call.id, content: "rain" }));
    const closing = await chat(client, { ...body, messages: [...body.messages, message, ...results] });
    equal(closing.choices[0].message.content, expected.plays.told.text);
  },

  async tools_in_a_stream(expected) {
    const chunks = await collect(
      await chat(connect(expected), {
        model: expected.models.scripted,
        messages: ask("tools"),
        tools: [TOOL],
        stream: true,
      }),
    );
    const found = [];
    for (const piece of chunks.flatMap((chunk) => chunk.choices[0].delta.toolCalls ?? [])) {
      found[piece.index] ??= ["", "", ""];
      found[piece.index][0] += piece.id ?? "";
      found[piece.index][1] += piece.function?.name ?? "";
      found[piece.index][2] += piece.function?.arguments ?? "";
    }
    calls(found, expected);
  },

  async structured(expected) {
    const answer = await chat(connect(expected), {
      model: expected.models.scripted,
      messages: ask("json"),
      responseFormat: { type: "json_schema", jsonSchema: { name: "place", strict: true, schema: PLACE } },
    });
    same(JSON.parse(answer.choices[0].message.content), { place: "Basel", litres: 42 });
  },

  async reasoning(expected) {
    const body = { model: expected.models.scripted, messages: ask("reasoning") };
    const answer = await chat(connect(expected), body);
    const play = expected.plays.reasoning;
    same([answer.choices[0].message.reasoning, answer.choices[0].message.content], [play.thought, play.text]);
    checkUsage(answer.usage, "reasoning", expected);
    const chunks = await collect(await chat(connect(expected), { ...body, stream: true }));
    equal(chunks.map((chunk) => chunk.choices[0].delta.reasoning ?? "").join(""), play.thought);
  },

  async images(expected) {
    const content = [
      { type: "text", text: "Play: text" },
      { type: "image_url", imageUrl: { url: "data:image/png;base64,cGljdHVyZQ==", detail: "low" } },
    ];
    const answer = await chat(connect(expected), {
      model: expected.models.scripted,
      messages: [{ role: "user", content }],
    });
    equal(answer.choices[0].message.content, expected.plays.text.text);
  },

  async routing(expected) {
    const client = connect(expected);
    const answer = await client.chat.send({
      chatRequest: {
        models: [expected.weak.cut, expected.models.scripted],
        messages: ask("text"),
        provider: { only: ["script"], sort: "price" },
      },
      xOpenRouterMetadata: "enabled",
    });
    equal(answer.choices[0].message.content, expected.plays.text.text);
    equal(answer.openrouterMetadata.requested, expected.weak.cut);
    const error = await rejection(
      chat(client, { model: expected.models.scripted, messages: ask("text"), provider: { only: ["own"] } }),
    );
    ok(error instanceof errors.NotFoundResponseError);
  },

  async real(expected) {
    const client = connect(expected);
    const messages = [{ role: "user", content: "hello" }];
    const answer = await chat(client, { model: expected.models.real, messages });
    same([answer.choices[0].message.content, answer.usage.completionTokens], [expected.real.text, expected.real.tokens]);
    const chunks = await collect(await chat(client, { model: expected.models.real, messages, stream: true }));
    equal(chunks.map((chunk) => chunk.choices[0].delta.content ?? "").join(""), expected.real.text);
    const called = await chat(client, { model: expected.models.realTools, messages, tools: [TOOL], maxTokens: 300 });
    equal(called.choices[0].message.toolCalls[0].function.name, "get_weather");
  },

  async errors(expected) {
    const { models, weak } = expected;
    const client = connect(expected);
    for (const [body, kind, type] of [
      [{ messages: ask("too-long") }, errors.BadRequestResponseError, "context_length_exceeded"],
      [{ messages: ask("refused") }, errors.UnprocessableEntityResponseError, "invalid_request"],
      [{ model: "no/such" }, errors.NotFoundResponseError, "not_found"],
      [{ messages: ask("full"), model: weak.full }, errors.ServiceUnavailableResponseError, "provider_unavailable"],
      [{ messages: ask("broken"), model: weak.broken }, errors.BadGatewayResponseError, "provider_unavailable"],
    ]) {
      const error = await rejection(chat(client, { model: models.scripted, messages: ask("text"), ...body }));
      ok(error instanceof kind, `${error?.stack}`);
      same([error.error.code, error.error.metadata.error_type], [error.statusCode, type]);
    }
  },

  async errors_of_keys(expected) {
    const { keys } = expected;
    ok((await refused(expected, keys.unknown)) instanceof errors.UnauthorizedResponseError);
    ok((await refused(expected, expected.admin)) instanceof errors.ForbiddenResponseError);
    ok((await refused(expected, keys.elsewhere)) instanceof errors.ForbiddenResponseError);
    ok((await refused(expected, keys.poor)) instanceof errors.PaymentRequiredResponseError);
    const often = await refused(expected, keys.often);
    ok(often instanceof errors.TooManyRequestsResponseError);
    ok(Number(often.headers.get("retry-after")) >= 1);
  },

  async cut(expected) {
    const client = connect(expected);
    for (const name of ["cut", "failing"]) {
      const chunks = await collect(
        await chat(client, { model: expected.weak.cut, messages: ask(name), stream: true }),
      );
      const last = chunks.pop();
      equal(chunks.map((chunk) => chunk.choices[0].delta.content ?? "").join(""), expected.plays[name].text);
      same([last.choices[0].finishReason, last.error.code], ["error", 502]);
    }
  },

  async retries(expected) {
    const client = connect(expected, {
      retryConfig: {
        strategy: "backoff",
        backoff: { initialInterval: 1, maxInterval: 10, exponent: 1, maxElapsedTime: 30000 },
        retryConnectionErrors: false,
      },
    });
    const began = performance.now();
    const answer = await chat(client, { model: expected.weak.once, messages: ask("once-openrouter-js") });
    equal(answer.choices[0].message.content, expected.plays.text.text);
    ok(performance.now() - began >= 1000);
  },

  async responses(expected) {
    const { plays, prompt } = expected;
    const answer = await connect(expected).beta.responses.send({
      responsesRequest: { model: expected.models.scripted, input: "Play: text" },
    });
    same([answer.output[0].content[0].text, answer.status], [plays.text.text, "completed"]);
    same([answer.usage.inputTokens, answer.usage.outputTokens], [prompt, plays.text.completion]);
    money(answer.usage.cost, plays.text.cost);
  },

  async responses_stream(expected) {
    const events = await collect(
      await connect(expected).beta.responses.send({
        responsesRequest: { model: expected.models.scripted, input: "Play: text", stream: true },
      }),
    );
    const pieces = events.filter((event) => event.type === "response.output_text.delta").map((event) => event.delta);
    same(pieces, expected.plays.text.pieces);
    equal(events.at(-1).type, "response.completed");
  },

  async responses_tools(expected) {
    const client = connect(expected);
    const body = { model: expected.models.scripted, tools: [FLAT_TOOL] };
    const send = (input) => client.beta.responses.send({ responsesRequest: { ...body, input } });
    const answer = await send("Play: tools");
    const made = answer.output.filter((item) => item.type === "function_call");
    calls(
      made.map((call) => [call.callId, call.name, call.arguments]),
      expected,
    );
    const results = made.map(({ callId }) => ({ type: "function_call_output", callId, output: "rain" }));
    const closing = await send([{ role: "user", content: "Play: tools" }, ...made, ...results]);
    equal(closing.output[0].content[0].text, expected.plays.told.text);
  },

  async responses_errors(expected) {
    const client = connect(expected);
    const send = (model, input) => client.beta.responses.send({ responsesRequest: { model, input } });
    ok((await rejection(send("no/such", "Play: text"))) instanceof errors.NotFoundResponseError);
    ok((await rejection(send(expected.weak.broken, "Play: broken"))) instanceof errors.BadGatewayResponseError);
  },

  async rerank(expected) {
    const answer = await connect(expected).rerank.rerank({
      requestBody: { model: expected.models.reranker, query: "rain", documents: ["sun", "rain"], topN: 2 },
    });
    same(
      answer.results.map((each) => [each.index, each.relevanceScore]),
      [
        [1, 0.75],
        [0, 0.25],
      ],
    );
  },

  async credits(expected) {
    await chat(connect(expected), { model: expected.models.scripted, messages: ask("text") });
    const manager = connect({ ...expected, key: expected.admin });
    await eventually(async () => (await manager.credits.getCredits()).data.totalUsage >= expected.plays.text.cost);
  },

  async workspaces(expected) {
    const manager = connect({ ...expected, key: expected.admin }).workspaces;
    const made = (await manager.create({ createWorkspaceRequest: { name: "Search", slug: "search-js" } })).data;
    same([made.name, made.slug], ["Search", "search-js"]);
    equal((await manager.get({ id: made.id })).data.slug, "search-js");
    const listed = await manager.list();
    ok((listed.result ?? listed).data.some((each) => each.id === made.id));
    const changed = await manager.update({ id: made.id, updateWorkspaceRequest: { name: "Research" } });
    equal(changed.data.name, "Research");
    const budget = await manager.setBudget({
      workspaceRef: "search-js",
      interval: "monthly",
      upsertWorkspaceBudgetRequest: { limitUsd: 12.5 },
    });
    equal(budget.data.limitUsd, 12.5);
    equal((await manager.listBudgets({ workspaceRef: "search-js" })).data.length, 1);
    await manager.deleteBudget({ workspaceRef: "search-js", interval: "monthly" });
    equal((await manager.delete({ id: made.id })).deleted, true);
    ok((await rejection(manager.get({ id: made.id }))) instanceof errors.NotFoundResponseError);
  },

  async guardrails(expected) {
    const manager = connect({ ...expected, key: expected.admin });
    const { data } = await manager.guardrails.create({
      createGuardrailRequest: { name: "one model", allowedModels: [expected.models.real] },
    });
    const key = await manager.apiKeys.create({ requestBody: { name: "guarded" } });
    await manager.guardrails.bulkAssignKeys({ id: data.id, bulkAssignKeysRequest: { keyHashes: [key.data.hash] } });
    const client = connect({ ...expected, key: key.key });
    const allowed = () =>
      chat(client, { model: expected.models.scripted, messages: ask("text") }).then(
        () => true,
        (error) => ![403, 404].includes(error.statusCode),
      );
    await eventually(async () => !(await allowed()));
    equal((await manager.guardrails.delete({ id: data.id })).deleted, true);
    await eventually(allowed);
  },

  async presets(expected) {
    const client = connect(expected);
    const chatRequest = { model: expected.models.scripted, messages: ask("text"), temperature: 0.25 };
    const made = await client.presets.createPresetsChatCompletions({ slug: "brief-js", chatRequest });
    equal(made.data.slug, "brief-js");
    const listed = await client.presets.list();
    ok((listed.result ?? listed).data.some((each) => each.slug === "brief-js"));
    equal((await client.presets.get({ slug: "brief-js" })).data.slug, "brief-js");
    const model = `${expected.models.scripted}@preset/brief-js`;
    const answer = await eventually(() => chat(client, { model, messages: ask("text") }).catch(() => null));
    equal(answer.choices[0].message.content, expected.plays.text.text);
  },

  async byok(expected) {
    const manager = connect({ ...expected, key: expected.admin }).byok;
    const key = "sk-of-the-team-0123456789abcdef";
    const { data } = await manager.create({ createBYOKKeyRequest: { provider: "script", key, name: "ours" } });
    ok(!JSON.stringify(data).includes(key));
    const listed = await manager.list();
    ok((listed.result ?? listed).data.some((each) => each.id === data.id));
    const changed = await manager.update({ id: data.id, updateBYOKKeyRequest: { disabled: true } });
    equal(changed.data.disabled, true);
    equal((await manager.delete({ id: data.id })).deleted, true);
    ok((await rejection(manager.get({ id: data.id }))) instanceof errors.NotFoundResponseError);
  },

  async analytics(expected) {
    await chat(connect(expected), { model: expected.models.scripted, messages: ask("text") });
    const manager = connect({ ...expected, key: expected.admin });
    const start = new Date(new Date().setUTCHours(0, 0, 0, 0));
    const rows = async (model) => {
      const found = await manager.analytics.queryAnalytics({
        requestBody: {
          metrics: ["request_count", "tokens_total", "total_usage"],
          dimensions: ["model"],
          filters: [{ field: "model", operator: "eq", value: model }],
          timeRange: { start, end: new Date() },
        },
      });
      return found.data.metadata.rowCount; // this client throws the values of rows away
    };
    await eventually(async () => (await rows(expected.models.scripted)) === 1);
    equal(await rows("no/such"), 0);
  },

  async embeddings(expected) {
    const answer = await connect(expected).embeddings.generate({
      requestBody: { model: expected.models.embedder, input: ["a", "b"] },
    });
    same(
      answer.data.map((each) => each.embedding),
      [
        [0.5, -0.25, 0],
        [0.5, -0.25, 1],
      ],
    );
  },

  async models(expected) {
    const { result } = await connect(expected).models.list();
    const model = result.data.find((each) => each.id === expected.models.scripted);
    same([model.created, model.contextLength, Number(model.pricing.completion)], [expected.created, 40960, 3e-7]);
    ok(model.architecture.inputModalities.includes("image"));
    ok(result.data.some((each) => each.id === expected.models.real));
  },

  async model(expected) {
    const [author, slug] = expected.models.scripted.split("/");
    const client = connect(expected);
    equal((await client.models.get({ author, slug })).data.id, expected.models.scripted);
    ok((await rejection(client.models.get({ author: "no", slug: "such" }))) instanceof errors.NotFoundResponseError);
  },

  async count(expected) {
    const client = connect(expected);
    equal((await client.models.count()).data.count, (await client.models.list()).result.data.length);
  },

  async endpoints(expected) {
    const [author, slug] = expected.models.scripted.split("/");
    const { data } = await connect(expected).endpoints.list({ author, slug });
    const [endpoint] = data.endpoints;
    same([data.id, endpoint.providerName, endpoint.contextLength], [expected.models.scripted, "script", 40960]);
    equal(Number(endpoint.pricing.completion), 3e-7);
  },

  async zdr(expected) {
    const { data } = await connect(expected).endpoints.listZdrEndpoints();
    ok(data.every((endpoint) => endpoint.providerName));
  },

  async providers(expected) {
    const { data } = await connect(expected).providers.list();
    ok(data.map((provider) => provider.slug).includes("script"));
  },

  async generation(expected) {
    const client = connect(expected);
    const answer = await chat(client, { model: expected.models.scripted, messages: ask("reasoning"), user: "anna" });
    const { data } = await eventually(() => client.generations.getGeneration({ id: answer.id }).catch(() => null));
    const play = expected.plays.reasoning;
    same(
      [data.id, data.providerName, data.streamed, data.finishReason, data.externalUser],
      [answer.id, "script", false, "stop", "anna"],
    );
    same(
      [data.nativeTokensPrompt, data.nativeTokensCompletion, data.nativeTokensReasoning],
      [expected.prompt, play.completion, play.reasoning],
    );
    money(data.totalCost, play.cost);
    equal(data.providerResponses.length, 1);
    const unknown = client.generations.getGeneration({ id: `${answer.id.slice(0, -4)}0000` });
    ok((await rejection(unknown)) instanceof errors.NotFoundResponseError);
  },

  async content(expected) {
    const client = connect({ ...expected, key: expected.keys.kept });
    const asked = []; // the choice reaches the worker a moment after it was made, and what is stored the reader
    const { data } = await eventually(async () => {
      asked.push((await chat(client, { model: expected.models.scripted, messages: ask("reasoning") })).id);
      for (const id of asked) {
        const found = await client.generations.listGenerationContent({ id }).catch(() => null);
        if (found) return found;
      }
      return null;
    });
    const play = expected.plays.reasoning;
    same([data.output.completion, data.output.reasoning], [play.text, play.thought]);
    equal(data.input.messages[0].content, "Play: reasoning");
  },

  async key(expected) {
    const client = connect({ ...expected, key: expected.keys.limited });
    await chat(client, { model: expected.models.scripted, messages: ask("text") });
    const data = await eventually(async () => {
      const found = (await client.apiKeys.getCurrentKeyMetadata()).data;
      return found.usage > 0 ? found : null;
    });
    same([data.limit, data.limitReset, data.isManagementKey], [1.5, "daily", false]);
    money(data.usage, expected.plays.text.cost);
    money(data.limitRemaining, 1.5 - expected.plays.text.cost);
  },

  async keys(expected) {
    const manager = connect({ ...expected, key: expected.admin });
    const made = await manager.apiKeys.create({
      requestBody: { name: "node", limit: 2, limitReset: "monthly", expiresAt: new Date(Date.now() + 86400000) },
    });
    same([made.data.name, made.data.limit, made.data.limitReset], ["node", 2, "monthly"]);
    const { hash } = made.data;
    equal((await manager.apiKeys.get({ hash })).data.label, made.data.label);
    const listed = await manager.apiKeys.list();
    ok((listed.result ?? listed).data.some((each) => each.hash === hash));
    const changed = await manager.apiKeys.update({ hash, requestBody: { name: "renamed", disabled: true } });
    same([changed.data.name, changed.data.disabled], ["renamed", true]);
    equal((await manager.apiKeys.delete({ hash })).deleted, true);
    ok((await refused(expected, made.key)) instanceof errors.UnauthorizedResponseError);
  },

  async activity(expected) {
    const client = connect(expected);
    await chat(client, { model: expected.weak.broken, messages: ask("text") });
    const row = await eventually(async () => {
      const { data } = await client.analytics.getUserActivity();
      return data.find((each) => each.model === expected.weak.broken && each.completionTokens > 0);
    });
    same([row.requests, row.promptTokens, row.completionTokens], [1, expected.prompt, expected.plays.text.completion]);
    money(row.usage, expected.plays.text.cost);
  },

  async rankings(expected) {
    const client = connect(expected);
    await chat(client, { model: expected.models.scripted, messages: ask("text") });
    const today = new Date().toISOString().slice(0, 10);
    const row = await eventually(async () => {
      const found = await client.datasets.getRankingsDaily({ startDate: today, endDate: today });
      equal(found.meta.version, "v1");
      return found.data.find((each) => each.modelPermaslug === expected.models.scripted);
    });
    ok(Number(row.totalTokens) >= expected.prompt + expected.plays.text.completion);
  },

  async app_rankings(expected) {
    const found = await connect(expected).datasets.getAppRankings();
    equal((found.result ?? found).meta.version, "v1");
  },
};
