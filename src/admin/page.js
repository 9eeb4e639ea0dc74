"use strict";
const away = document.getElementById("away");
async function look() {
  if (!document.hidden) {
    try {
      const answer = await fetch(location.href, { cache: "no-store", signal: AbortSignal.timeout(5000) });
      if (!answer.ok) throw answer.status;
      const page = new DOMParser().parseFromString(await answer.text(), "text/html");
      document.querySelector("main").replaceWith(page.querySelector("main"));
      away.hidden = true;
    } catch {
      away.hidden = false;
    }
  }
  setTimeout(look, 3000);
}
setTimeout(look, 3000);
