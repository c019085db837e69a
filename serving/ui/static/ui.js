// Without this script the page works by plain forms and links. With it, they replace <main> in
// place, results are announced, and inputs suggest ids.
"use strict";

const main = document.getElementById("main");
let running = null;

async function show(address, push) {
  running?.abort();
  running = new AbortController();
  main.setAttribute("aria-busy", "true");
  let text;
  try {
    text = await (await fetch(address, { signal: running.signal })).text();
  } catch (error) {
    if (error.name === "AbortError") return;
    main.removeAttribute("aria-busy");
    const line = document.createElement("p");
    line.className = "problem";
    line.setAttribute("role", "alert");
    line.textContent = "The page's server does not answer; start `shortlist ui` again.";
    main.prepend(line);
    return;
  }
  const page = new DOMParser().parseFromString(text, "text/html");
  const focused = document.activeElement?.id;
  const open = [...main.querySelectorAll("details")].map((part) => part.open);
  main.replaceChildren(...page.getElementById("main").childNodes);
  main.removeAttribute("aria-busy");
  main.querySelectorAll("details").forEach((part, at) => (part.open ||= open[at] ?? false));
  document.title = page.title;
  if (push) history.pushState(null, "", address);
  const part = address.includes("#") && document.getElementById(address.split("#")[1]);
  if (part) part.scrollIntoView({ block: "nearest" });
  (document.getElementById(focused) ?? main).focus({ preventScroll: true });
  const results = main.querySelector("[data-summary]");
  document.getElementById("announce").textContent = results?.dataset.summary ?? page.title;
}

document.addEventListener("submit", (event) => {
  const form = event.target;
  if (!form.matches("[data-live]")) return;
  event.preventDefault();
  show(`${form.getAttribute("action")}?${new URLSearchParams(new FormData(form))}`, true);
});

document.addEventListener("click", (event) => {
  const link = event.target.closest("a[data-live]");
  if (!link || event.button || event.ctrlKey || event.metaKey || event.shiftKey) return;
  event.preventDefault();
  show(link.getAttribute("href"), true);
});

addEventListener("popstate", () => show(location.pathname + location.search, false));

let timer = 0;
document.addEventListener("input", (event) => {
  const input = event.target;
  if (!input.dataset.suggest) return;
  clearTimeout(timer);
  timer = setTimeout(async () => {
    const target = input.form.elements.target?.value ?? "";
    const query = new URLSearchParams({ target, q: input.value });
    const answer = await fetch(`/suggest/${input.dataset.suggest}?${query}`).catch(() => null);
    if (!answer?.ok) return;
    const options = (await answer.json()).map(({ value, label }) => {
      const option = document.createElement("option");
      option.value = value;
      if (label && label !== value) option.label = label;
      return option;
    });
    input.list.replaceChildren(...options);
  }, 120);
});
