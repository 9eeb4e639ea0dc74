"use strict";
const away = document.getElementById("away");
async function look() {
  if (!document.hidden) {
    try {
      const answer = await fetch(location.href, { cache: "no-store", signal: AbortSignal.timeout(5000) });
      if (!answer.ok) throw answer.status;
      const page = new DOMParser().parseFromString(await answer.text(), "text/html");
      const open = document.querySelectorAll("details[open]");
      open.forEach((details) => page.getElementById(details.id)?.setAttribute("open", ""));
      const focused = document.activeElement;
      const places = "a, summary";
      const place = [...document.querySelectorAll(places)].indexOf(focused);
      document.querySelector("main").replaceWith(page.querySelector("main"));
      if (place >= 0) document.querySelectorAll(places)[place]?.focus({ preventScroll: true });
      away.hidden = true;
    } catch {
      away.hidden = false;
    }
  }
  setTimeout(look, 3000);
}
setTimeout(look, 3000);
