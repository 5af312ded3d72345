"use strict";
const at = id => document.getElementById(id);
// Text only ever becomes text: nothing here makes markup of what a model says.
const make = (tag, kind, text) => {
  const node = document.createElement(tag);
  if (kind) node.className = kind;
  if (text !== undefined) node.textContent = text;
  return node;
};
const out = at("out"), text = at("text"), pick = at("model");
let models = [], messages = [], running = null;

const WORDS = {
  generate: ["Message", "Send", "Enter sends, Shift+Enter begins a new line.", "Say something to the model."],
  classify: ["Text to classify", "Classify", "Enter sends, Shift+Enter begins a new line.", "The model says which label a text has."],
  embed: ["Texts to compare", "Compare", "One text in each line: shows how close they are to each other.", "The model says how close texts are to each other."],
};

const headers = () => {
  const all = { "content-type": "application/json" };
  if (at("token").value) all.authorization = "Bearer " + at("token").value;
  return all;
};

async function ask(path, body, signal) {
  const method = body ? "POST" : "GET";
  const answer = await fetch(path, { method, headers: headers(), body: body && JSON.stringify(body), signal });
  if (answer.ok) return answer;
  at("key").hidden = answer.status !== 401;
  const told = await answer.json().catch(() => null);
  throw new Error(told && told.error ? told.error.message : "The server answers with status " + answer.status + ".");
}

const model = () => models.find(it => it.id === pick.value);
// A model that says of itself what it does is known once it was loaded.
const task = () => (model() && model().task) || "generate";

async function list() {
  const kept = pick.value;
  models = (await (await ask("/v1/models")).json()).data;
  pick.replaceChildren(...models.map(it => {
    const option = make("option", "", it.id);
    option.value = it.id;
    return option;
  }));
  if (models.some(it => it.id === kept)) pick.value = kept;
  pick.disabled = models.length < 2;
  describe();
}

function describe() {
  const [what, verb, hint, empty] = WORDS[task()];
  const about = [model().preset === "auto" ? task() : model().preset];
  if (model().context) about.push(model().context.toLocaleString("en") + " tokens");
  at("about").textContent = about.join(" · ");
  at("what").textContent = what;
  text.placeholder = what;
  at("send").textContent = verb;
  at("hint").textContent = hint;
  at("settings").hidden = task() !== "generate";
  if (!out.children.length) out.append(make("p", "empty", empty));
}

function clear() {
  stop();
  messages = [];
  out.replaceChildren();
  if (model()) describe();
}

function add(node) {
  out.querySelectorAll(".empty").forEach(it => it.remove());
  out.append(node);
  node.scrollIntoView({ block: "end" });
  return node;
}

const fault = error => add(make("p", "fault", error.message));
const stop = () => running && running.abort();

function say(role, content) {
  const box = make("div", "said " + role);
  box.append(make("p", "", content), make("small"));
  return add(box);
}

const number = (id, whole) => {
  const value = at(id).value;
  return value === "" ? undefined : whole ? parseInt(value, 10) : parseFloat(value);
};

function request() {
  const system = at("system").value.trim();
  const first = system ? [{ role: "system", content: system }] : [];
  return {
    model: pick.value, messages: [...first, ...messages], stream: true, stream_options: { include_usage: true },
    temperature: number("temperature"), max_tokens: number("most", true), seed: number("seed", true),
  };
}

// The objects of a stream of events, one by one.
async function* events(answer) {
  const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  for (;;) {
    const { value, done } = await reader.read();
    if (done) return;
    const parts = (rest + value).split("\n\n");
    rest = parts.pop();
    for (const part of parts) {
      const data = part.replace(/^data: /, "");
      if (data !== "[DONE]") yield JSON.parse(data);
    }
  }
}

async function chat(content) {
  messages.push({ role: "user", content });
  say("user", content);
  const box = say("assistant waits", "…");
  const body = box.firstChild, note = box.lastChild;
  let told = "", first = 0, usage = null, why = "";
  const began = performance.now();
  const end = () => {
    box.classList.remove("waits");
    if (!told) box.remove();
    else messages.push({ role: "assistant", content: told });
    const now = performance.now(), parts = [];
    if (usage) {
      parts.push(usage.completion_tokens + " tokens");
      // What came at once has no speed.
      if (usage.completion_tokens > 1 && now - first > 20) parts.push(((usage.completion_tokens - 1) / (now - first) * 1000).toFixed(1) + " tokens/s");
    }
    if (first) parts.push("first after " + ((first - began) / 1000).toFixed(2) + " s");
    if (why) parts.push(why);
    note.textContent = parts.join(" · ");
  };
  try {
    const answer = await ask("/v1/chat/completions", request(), running.signal);
    for await (const piece of events(answer)) {
      if (piece.error) throw new Error(piece.error.message);
      if (piece.usage) usage = piece.usage;
      const choice = piece.choices[0];
      if (choice && choice.finish_reason === "length") why = "cut off";
      const more = choice && choice.delta.content;
      if (!more) continue;
      first = first || performance.now();
      told += more;
      body.textContent = told;
      box.classList.remove("waits");
      box.scrollIntoView({ block: "end" });
    }
  } catch (error) {
    if (error.name === "AbortError") why = "stopped";
    else fault(error);
    // What was not answered is not part of the conversation.
    if (!told) messages.pop();
  }
  end();
}

function scores(labels) {
  const list = make("div", "scores");
  for (const { label, score } of labels) {
    const bar = make("meter");
    [bar.max, bar.value] = [1, score];
    list.append(make("span", "", label), bar, make("span", "", (score * 100).toFixed(1) + " %"));
  }
  return list;
}

// The text with its parts marked that have a label. Places are bytes of UTF-8.
function marked(text, spans) {
  const bytes = new TextEncoder().encode(text), quote = make("p", "quote");
  const piece = (from, to) => new TextDecoder().decode(bytes.slice(from, to));
  let last = 0;
  for (const span of spans) {
    const mark = make("mark", "", piece(span.start, span.end) + " ");
    mark.append(make("small", "", span.label));
    quote.append(piece(last, span.start), mark);
    last = span.end;
  }
  quote.append(piece(last));
  return quote;
}

async function classify(input) {
  const answer = await ask("/v1/classify", { model: pick.value, input }, running.signal);
  const told = (await answer.json()).data[0], card = make("div", "card");
  card.append(marked(input, told.spans));
  if (told.labels.length) card.append(scores(told.labels));
  else if (!told.spans.length) card.append(make("p", "hint", "Nothing in it has a label."));
  add(card);
}

const dot = (a, b) => a.reduce((sum, it, at) => sum + it * b[at], 0);
const close = (a, b) => dot(a, b) / Math.sqrt(dot(a, a) * dot(b, b));

async function embed(input) {
  const lines = input.split("\n").map(it => it.trim()).filter(it => it);
  const answer = await ask("/v1/embeddings", { model: pick.value, input: lines }, running.signal);
  const vectors = (await answer.json()).data.map(it => it.embedding);
  const card = make("div", "card scroll"), table = make("table"), head = make("tr");
  head.append(make("th", "", vectors[0].length + " numbers each"), ...lines.map((_, at) => make("th", "", at + 1)));
  table.append(head);
  lines.forEach((line, row) => {
    const cells = make("tr");
    cells.append(make("th", "", row + 1 + "  " + line));
    vectors.forEach(it => cells.append(make("td", "", close(vectors[row], it).toFixed(3))));
    table.append(cells);
  });
  card.append(table);
  add(card);
}

async function send() {
  const content = text.value.trim();
  if (!content || running) return;
  running = new AbortController();
  [at("send").hidden, at("stop").hidden] = [true, false];
  text.value = "";
  try {
    await { generate: chat, classify, embed }[task()](content);
  } catch (error) {
    if (error.name !== "AbortError") fault(error);
    text.value = text.value || content;
  }
  running = null;
  [at("send").hidden, at("stop").hidden] = [false, true];
  // Loaded by now, it may say more of itself.
  await list().catch(() => {});
  text.focus();
}

at("ask").addEventListener("submit", event => { event.preventDefault(); send(); });
at("key").addEventListener("submit", event => {
  event.preventDefault();
  out.querySelectorAll(".fault").forEach(it => it.remove());
  list().then(() => { at("key").hidden = true; text.focus(); }, fault);
});
at("stop").addEventListener("click", stop);
at("new").addEventListener("click", clear);
pick.addEventListener("change", clear);
text.addEventListener("keydown", event => {
  const newline = event.shiftKey || task() === "embed";
  if (event.key === "Enter" && !newline && !event.isComposing) { event.preventDefault(); send(); }
});
list().catch(error => { if (at("key").hidden) fault(error); });
