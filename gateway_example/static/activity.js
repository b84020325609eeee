// The log of what happened, for people: newest first, and read out by screen readers.

const LENGTH = 60;
const list = document.getElementById("activity");

/** @param {"good" | "quiet" | "warning" | "bad"} tone @param {string} text */
export function note(tone, text) {
  const entry = document.createElement("li");
  entry.dataset.tone = tone;
  const time = document.createElement("time");
  const now = new Date();
  time.dateTime = now.toISOString();
  time.textContent = now.toLocaleTimeString(undefined, { hour12: false });
  const what = document.createElement("span");
  what.textContent = text;
  entry.append(time, what);
  list.prepend(entry);
  while (list.children.length > LENGTH) list.lastElementChild.remove();
}
