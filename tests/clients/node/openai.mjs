// The official `openai` package for Node, unmodified.
import OpenAI from "openai";

import { ask, calls, equal, FLAT_TOOL, money, ok, PLACE, rejection, same, TOOL } from "./common.mjs";

const connect = ({ url, key }, more = {}) =>
  new OpenAI({ apiKey: key, baseURL: `${url}/v1`, maxRetries: 0, ...more });

async function refused(expected, key) {
  const client = connect({ ...expected, key });
  return await rejection(
    (async () => {
      for (let time = 0; time < 2; time += 1) {
        await client.chat.completions.create({ model: expected.models.scripted, messages: ask("text") });
      }
    })(),
  );
}

export const checks = {
  async chat(expected) {
    const { models, plays, prompt, cached } = expected;
    const { data, response } = await connect(expected)
      .chat.completions.create({ model: models.scripted, messages: ask("text") })
      .withResponse();
    equal(data.choices[0].message.content, plays.text.text);
    equal(data.choices[0].finish_reason, "stop");
    equal(data.id, response.headers.get("x-generation-id"));
    same(
      [data.usage.prompt_tokens, data.usage.completion_tokens, data.usage.prompt_tokens_details.cached_tokens],
      [prompt, plays.text.completion, cached],
    );
    money(data.usage.cost, plays.text.cost);
  },

  async stream(expected) {
    const { models, plays, prompt } = expected;
    const stream = await connect(expected).chat.completions.create({
      model: models.scripted,
      messages: ask("text"),
      stream: true,
      stream_options: { include_usage: true },
    });
    const chunks = [];
    for await (const chunk of stream) chunks.push(chunk);
    const last = chunks.pop();
    same(chunks.map((chunk) => chunk.choices[0].delta.content).filter(Boolean), plays.text.pieces);
    equal(chunks.at(-1).choices[0].finish_reason, "stop");
    same([last.choices, last.usage.prompt_tokens, last.usage.completion_tokens], [[], prompt, plays.text.completion]);
  },

  async tools(expected) {
    const { models, plays } = expected;
    const client = connect(expected);
    const body = { model: models.scripted, messages: ask("tools"), tools: [TOOL] };
    const answer = await client.chat.completions.create(body);
    const { message } = answer.choices[0];
    const said = (each) => each.tool_calls.map((call) => [call.id, call.function.name, call.function.arguments]);
    calls(said(message), expected);
    const results = message.tool_calls.map((call) => ({ role: "tool", tool_call_id: call.id, content: "rain" }));
    const closing = await client.chat.completions.create({
      ...body,
      messages: [...body.messages, message, ...results],
    });
    equal(closing.choices[0].message.content, plays.told.text);
  },

  async tools_in_a_stream(expected) {
    const stream = connect(expected).chat.completions.stream({
      model: expected.models.scripted,
      messages: ask("tools"),
      tools: [TOOL],
    });
    const { choices } = await stream.finalChatCompletion();
    equal(choices[0].finish_reason, "tool_calls");
    calls(
      choices[0].message.tool_calls.map((call) => [call.id, call.function.name, call.function.arguments]),
      expected,
    );
  },

  async structured(expected) {
    const answer = await connect(expected).chat.completions.parse({
      model: expected.models.scripted,
      messages: ask("json"),
      response_format: { type: "json_schema", json_schema: { name: "place", strict: true, schema: PLACE } },
    });
    same(JSON.parse(answer.choices[0].message.content), { place: "Basel", litres: 42 });
  },

  async reasoning(expected) {
    const play = expected.plays.reasoning;
    const { choices } = await connect(expected).chat.completions.create({
      model: expected.models.scripted,
      messages: ask("reasoning"),
    });
    same([choices[0].message.reasoning_content, choices[0].message.content], [play.thought, play.text]);
  },

  async images(expected) {
    const content = [
      { type: "text", text: "Play: text" },
      { type: "image_url", image_url: { url: "data:image/png;base64,cGljdHVyZQ==", detail: "low" } },
    ];
    const { choices } = await connect(expected).chat.completions.create({
      model: expected.models.scripted,
      messages: [{ role: "user", content }],
    });
    equal(choices[0].message.content, expected.plays.text.text);
  },

  async routing(expected) {
    const body = { model: expected.models.scripted, messages: ask("text") };
    const client = connect(expected);
    const { response } = await client.chat.completions
      .create({ ...body, provider: { only: ["script"] } })
      .withResponse();
    ok(response.headers.get("x-weir-route").includes("script"));
    const error = await rejection(client.chat.completions.create({ ...body, provider: { only: ["own"] } }));
    same([error.status, error.param], [404, "provider.only"]);
  },

  async real(expected) {
    const client = connect(expected);
    const messages = [{ role: "user", content: "hello" }];
    const answer = await client.chat.completions.create({ model: expected.models.real, messages });
    equal(answer.choices[0].message.content, expected.real.text);
    equal(answer.usage.completion_tokens, expected.real.tokens);
    let text = "";
    const stream = await client.chat.completions.create({ model: expected.models.real, messages, stream: true });
    for await (const chunk of stream) text += chunk.choices[0].delta.content ?? "";
    equal(text, expected.real.text);
    const called = await client.chat.completions.create({
      model: expected.models.realTools,
      messages,
      tools: [TOOL],
      max_tokens: 300,
    });
    equal(called.choices[0].message.tool_calls[0].function.name, "get_weather");
  },

  async errors(expected) {
    const { models, weak } = expected;
    const client = connect(expected);
    for (const [body, kind, status, type] of [
      [{ temperature: "hot" }, OpenAI.BadRequestError, 400, "invalid_request"],
      [{ messages: ask("too-long") }, OpenAI.BadRequestError, 400, "context_length_exceeded"],
      [{ messages: ask("refused") }, OpenAI.UnprocessableEntityError, 422, "invalid_request"],
      [{ model: "no/such" }, OpenAI.NotFoundError, 404, "not_found"],
      [{ messages: ask("full"), model: weak.full }, OpenAI.InternalServerError, 503, "provider_unavailable"],
      [{ messages: ask("broken"), model: weak.broken }, OpenAI.InternalServerError, 502, "provider_unavailable"],
    ]) {
      const error = await rejection(
        client.chat.completions.create({ model: models.scripted, messages: ask("text"), ...body }),
      );
      ok(error instanceof kind, `${error}`);
      same([error.status, error.error.code, error.error.metadata.error_type], [status, status, type]);
      ok(error.requestID);
    }
  },

  async errors_of_keys(expected) {
    const { keys } = expected;
    ok((await refused(expected, keys.unknown)) instanceof OpenAI.AuthenticationError);
    ok((await refused(expected, expected.admin)) instanceof OpenAI.PermissionDeniedError);
    ok((await refused(expected, keys.elsewhere)) instanceof OpenAI.PermissionDeniedError);
    equal((await refused(expected, keys.poor)).status, 402);
    const often = await refused(expected, keys.often);
    ok(often instanceof OpenAI.RateLimitError);
    ok(Number(often.headers.get("retry-after")) >= 1);
  },

  async cut(expected) {
    const client = connect(expected);
    for (const name of ["cut", "failing"]) {
      let text = "";
      const error = await rejection(
        (async () => {
          const stream = await client.chat.completions.create({
            model: expected.weak.cut,
            messages: ask(name),
            stream: true,
          });
          for await (const chunk of stream) text += chunk.choices[0].delta.content ?? "";
        })(),
      );
      equal(text, expected.plays[name].text);
      ok(error instanceof OpenAI.APIError);
      equal(error.error.metadata.error_type, "provider_unavailable");
    }
  },

  async retries(expected) {
    const client = connect(expected, { maxRetries: 2 });
    const began = performance.now();
    const answer = await client.chat.completions.create({ model: expected.weak.once, messages: ask("once-openai-js") });
    equal(answer.choices[0].message.content, expected.plays.text.text);
    ok(performance.now() - began >= 1000);
  },

  async responses(expected) {
    const { plays, prompt } = expected;
    const answer = await connect(expected).responses.create({ model: expected.models.scripted, input: "Play: text" });
    same([answer.output_text, answer.status], [plays.text.text, "completed"]);
    same([answer.usage.input_tokens, answer.usage.output_tokens], [prompt, plays.text.completion]);
    money(answer.usage.cost, plays.text.cost);
  },

  async responses_stream(expected) {
    const stream = await connect(expected).responses.create({
      model: expected.models.scripted,
      input: "Play: text",
      stream: true,
    });
    const events = [];
    for await (const event of stream) events.push(event);
    const pieces = events.filter((event) => event.type === "response.output_text.delta").map((event) => event.delta);
    same(pieces, expected.plays.text.pieces);
    equal(events.at(-1).type, "response.completed");
    equal(events.at(-1).response.usage.output_tokens, expected.plays.text.completion);
  },

  async responses_tools(expected) {
    const client = connect(expected);
    const body = { model: expected.models.scripted, tools: [FLAT_TOOL] };
    const answer = await client.responses.create({ ...body, input: "Play: tools" });
    const made = answer.output.filter((item) => item.type === "function_call");
    calls(
      made.map((call) => [call.call_id, call.name, call.arguments]),
      expected,
    );
    const results = made.map(({ call_id }) => ({ type: "function_call_output", call_id, output: "rain" }));
    const input = [{ role: "user", content: "Play: tools" }, ...answer.output, ...results];
    equal((await client.responses.create({ ...body, input })).output_text, expected.plays.told.text);
  },

  async responses_structured(expected) {
    const answer = await connect(expected).responses.parse({
      model: expected.models.scripted,
      input: "Play: json",
      text: { format: { type: "json_schema", name: "place", strict: true, schema: PLACE } },
    });
    same(JSON.parse(answer.output_text), { place: "Basel", litres: 42 });
  },

  async responses_errors(expected) {
    const client = connect(expected);
    for (const [body, kind] of [
      [{ temperature: "hot" }, OpenAI.BadRequestError],
      [{ model: "no/such" }, OpenAI.NotFoundError],
      [{ input: "Play: broken", model: expected.weak.broken }, OpenAI.InternalServerError],
    ]) {
      const ask = { model: expected.models.scripted, input: "Play: text", ...body };
      ok((await rejection(client.responses.create(ask))) instanceof kind);
    }
  },

  async completions(expected) {
    const answer = await connect(expected).completions.create({ model: expected.models.scripted, prompt: "Water" });
    same([answer.choices[0].text, answer.choices[0].finish_reason], [" and so on", "stop"]);
  },

  async embeddings(expected) {
    const answer = await connect(expected).embeddings.create({
      model: expected.models.embedder,
      input: ["a", "b"],
      encoding_format: "float",
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
    const client = connect(expected);
    const found = [];
    for await (const model of client.models.list()) found.push(model.id);
    ok(found.includes(expected.models.scripted) && found.includes(expected.models.real));
  },

  async model(expected) {
    const client = connect(expected);
    const one = await client.models.retrieve(expected.models.scripted);
    same([one.id, one.created], [expected.models.scripted, expected.created]);
    ok((await rejection(client.models.retrieve("no/such"))) instanceof OpenAI.NotFoundError);
  },
};
