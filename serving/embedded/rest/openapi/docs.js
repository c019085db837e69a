"use strict";

// Lists the operations of openapi.json and sends requests to them. Everything is set as text.

function make(tag, attributes = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  element.append(...children);
  return element;
}

let description;
let made = 0;

function resolved(value) {
  if (!value || !value.$ref) return value;
  return value.$ref.slice(2).split("/").reduce((found, key) => found[key], description);
}

function labelled(text, control) {
  control.id = `control-${++made}`;
  return [make("label", { for: control.id }, text), control];
}

function tensors(caption, schemas) {
  const rows = Object.entries(schemas).map(([name, schema]) => {
    const preset = "default" in schema ? ` = ${JSON.stringify(schema.default)}` : "";
    return make("tr", {}, make("th", { scope: "row" }, name),
      make("td", {}, `${schema.description || ""}${preset}`));
  });
  return make("table", {}, make("caption", {}, caption), make("tbody", {}, ...rows));
}

// The inputs and outputs of one signature, from the schemas of its column forms.
function signature(name, operation) {
  const columns = (schemas) =>
    (schemas || []).find((schema) => schema.title === `${name}, columns`)?.properties;
  const json = (part) => resolved(part)?.content?.["application/json"]?.schema;
  const asked = columns(json(operation.requestBody)?.oneOf)?.inputs;
  const answered = columns(json(operation.responses["200"])?.anyOf)?.outputs;
  if (!asked || !answered) return [];
  return [tensors("Inputs", asked.properties),
    tensors("Outputs", answered.properties || { output: answered })];
}

function quoted(text) {
  return `'${text.replaceAll("'", "'\\''")}'`;
}

function shown(text) {
  try {
    return JSON.stringify(JSON.parse(text), null, 1);
  } catch {
    return text; // bare NaN, or a page
  }
}

function operationInside(method, path, operation) {
  const parameters = (operation.parameters || []).map((parameter) => {
    const options = parameter.schema.enum.map((value) => make("option", {}, value));
    return [parameter.name, make("select", {}, ...options)];
  });
  const parts = parameters.flatMap(([name, control]) => labelled(name, control));
  const content = resolved(operation.requestBody)?.content?.["application/json"];
  let body;
  if (content) {
    body = make("textarea", { spellcheck: "false" });
    const examples = content.examples || {};
    const about = make("div");
    const show = (name) => {
      body.value = name ? JSON.stringify(examples[name].value, null, 1) : "{}";
      about.replaceChildren(...(name ? signature(name, operation) : []));
    };
    const names = Object.keys(examples);
    if (names.length) {
      const chosen = make("select", {}, ...names.map((name) => make("option", {}, name)));
      chosen.addEventListener("change", () => show(chosen.value));
      parts.push(...labelled("Signature", chosen));
    }
    show(names[0]);
    parts.push(about, ...labelled("Request body", body));
  }
  const send = make("button", { type: "button", class: "send" }, "Send");
  const copy = make("button", { type: "button" }, "Show as curl");
  const state = make("p", { role: "status" });
  const answer = make("pre", { tabindex: "0", role: "region", "aria-label": "Answer", hidden: "" });
  const address = () => parameters.reduce(
    (text, [name, control]) => text.replace(`{${name}}`, encodeURIComponent(control.value)), path);
  const say = (text, failed, result) => {
    state.textContent = text;
    state.classList.toggle("failed", failed);
    answer.hidden = result === undefined;
    answer.textContent = result || "";
  };
  copy.addEventListener("click", () => {
    const data = body ? ` -d ${quoted(shown(body.value).replaceAll(/\n */g, " "))}` : "";
    say("Paste into a terminal:", false, `curl ${quoted(location.origin + address())}${data}`);
  });
  send.addEventListener("click", async () => {
    say("Sending …", false);
    const started = performance.now();
    try {
      const options = body ? { method, body: body.value } : { method };
      const response = await fetch(address(), options);
      const text = await response.text();
      const took = (performance.now() - started).toFixed(1);
      say(`HTTP ${response.status} after ${took} ms`, !response.ok, shown(text));
    } catch (error) {
      say(`No answer: ${error.message}`, true);
    }
  });
  return make("div", { class: "inside" }, ...parts,
    make("div", { class: "buttons" }, send, copy), state, answer);
}

function operationItem(method, path, operation) {
  const head = make("summary", {}, make("span", { class: `method ${method}` }, method), " ",
    make("code", {}, path), " ", make("span", { class: "soft" }, operation.summary));
  const item = make("details", {}, head);
  item.addEventListener("toggle", () => {
    if (item.open && item.children.length === 1) {
      item.append(operationInside(method, path, operation));
    }
  });
  return item;
}

function render() {
  const sections = new Map(description.tags.map(({ name }) => [name, []]));
  for (const [path, methods] of Object.entries(description.paths)) {
    for (const [method, operation] of Object.entries(methods)) {
      sections.get(operation.tags[0]).push(operationItem(method.toUpperCase(), path, operation));
    }
  }
  const main = document.getElementById("operations");
  const links = document.getElementById("models");
  main.replaceChildren();
  let number = 0;
  for (const [name, items] of sections) {
    const id = `section-${++number}`;
    main.append(make("section", { "aria-labelledby": id }, make("h2", { id }, name), ...items));
    links.append(make("li", {}, make("a", { href: `#${id}` }, name)));
  }
  const first = main.querySelector(".POST")?.closest("details");
  if (first) first.open = true;
  document.getElementById("about").textContent = description.info.description.replaceAll("`", "");
  document.getElementById("version").textContent = `version ${description.info.version}`;
}

fetch("/openapi.json")
  .then((response) => {
    if (!response.ok) throw new Error(`HTTP ${response.status}`);
    return response.json();
  })
  .then((loaded) => {
    description = loaded;
    render();
  })
  .catch((error) => {
    document.getElementById("state").textContent =
      `The description cannot be loaded: ${error.message}. Reload the page.`;
  });
