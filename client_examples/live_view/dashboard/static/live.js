"use strict";
// Asks for the two parts of the page again and again, and puts in what has changed.

const EVERY_MS = { now: 1000, history: 10000 };
const PATIENCE_MS = 10000;
const query = new URLSearchParams(location.search);
query.set("zone", Intl.DateTimeFormat().resolvedOptions().timeZone);
let lastAnswer = new Date();

/** Fetches a part and shows it. Throws where there is no good answer. */
async function refresh(part) {
  const response = await fetch(`${part}?${query}`, { signal: AbortSignal.timeout(PATIENCE_MS) });
  if (!response.ok) throw new Error(`${part}: ${response.status}`);
  const fresh = new DOMParser().parseFromString(await response.text(), "text/html").body;
  show(document.getElementById(part), fresh);
}

/** Replaces only the elements that differ: pictures do not flicker, and a table keeps its place. */
function show(old, fresh) {
  const ids = (element) => Array.from(element.children, (child) => child.id).join();
  const focused = old.contains(document.activeElement) ? document.activeElement.getAttribute("href") : null;
  if (ids(old) !== ids(fresh)) {
    old.replaceChildren(...fresh.children);
  } else {
    Array.from(fresh.children).forEach((child, index) => {
      const before = old.children[index];
      if (before.outerHTML !== child.outerHTML) before.replaceWith(child);
    });
  }
  if (focused && !old.contains(document.activeElement)) {
    Array.from(old.querySelectorAll("a")).find((link) => link.getAttribute("href") === focused)?.focus();
  }
}

function tellWhetherLost(isLost) {
  if (!isLost) lastAnswer = new Date();
  document.getElementById("lost-since").textContent = lastAnswer.toLocaleTimeString();
  document.getElementById("lost").hidden = !isLost;
  document.body.classList.toggle("lost", isLost);
}

async function keepFresh(part) {
  // A page nobody looks at costs the device nothing.
  if (!document.hidden) {
    try {
      await refresh(part);
      tellWhetherLost(false);
    } catch {
      tellWhetherLost(true);
    }
  }
  setTimeout(keepFresh, EVERY_MS[part], part);
}

for (const part of Object.keys(EVERY_MS)) keepFresh(part);
document.addEventListener("visibilitychange", () => {
  if (!document.hidden) for (const part of Object.keys(EVERY_MS)) refresh(part).catch(() => tellWhetherLost(true));
});
