"use strict";
const MAX_LINES = 2000;
const [filter, lines, state, stop] = ["filter", "lines", "state", "stop"].map((id) => document.getElementById(id));
let watching = null;
function add(text) {
  const atEnd = lines.scrollHeight - lines.scrollTop - lines.clientHeight < 40;
  lines.append(...text.map((line) => Object.assign(document.createElement("span"), {
    textContent: line + "\n", className: line.startsWith("# ") ? "soft" : "",
  })));
  while (lines.childElementCount > MAX_LINES) lines.firstElementChild.remove();
  if (atEnd) lines.scrollTop = lines.scrollHeight;
}
async function watch(abort) {
  const asked = new FormData(filter);
  const token = asked.get("token");
  asked.delete("token");
  const answer = await fetch("tail?" + new URLSearchParams(asked), {
    cache: "no-store", signal: abort.signal,
    headers: { accept: "text/plain", ...(token && { authorization: "Bearer " + token }) },
  });
  if (!answer.ok) throw new Error(await answer.text());
  state.textContent = "Watching.";
  const [reader, decoder] = [answer.body.getReader(), new TextDecoder()];
  let rest = "";
  for (;;) {
    // A relay that stops breaks the answer off.
    const { done, value } = await reader.read().catch(() => ({ done: true }));
    if (done) return abort.signal.aborted ? "Stopped." : "The relay ended the tail. Start again.";
    const text = (rest + decoder.decode(value, { stream: true })).split("\n");
    rest = text.pop();
    add(text);
  }
}
filter.addEventListener("submit", async (event) => {
  event.preventDefault();
  watching?.abort();
  const mine = watching = new AbortController();
  stop.disabled = false;
  let says;
  try {
    says = await watch(mine);
  } catch (error) {
    says = mine.signal.aborted ? "Stopped." : String(error.message);
  }
  if (watching !== mine) return;
  state.textContent = says;
  stop.disabled = true;
});
stop.addEventListener("click", () => watching?.abort());
document.getElementById("clear").addEventListener("click", () => lines.replaceChildren());
for (const [key, value] of new URLSearchParams(location.search)) if (filter.elements[key]) filter.elements[key].value = value;
if (filter.checkValidity()) filter.requestSubmit();
