// The gateway's routes, called at a click, with the answer shown and a refusal explained.

import { whileBusy } from "./busy.js";

/** @param {import("./auth-client.js").AuthClient} client @param {(tone: string, text: string) => void} note */
export function showCalls(client, note) {
  for (const row of document.querySelectorAll("#calls > li")) {
    const { method, path } = row.dataset;
    const button = row.querySelector("button");
    button.setAttribute("aria-label", `Call ${method} ${path}`);
    const answer = row.querySelector(".answer");
    const call = async () => {
      const began = performance.now();
      const session = client.sessionId;
      try {
        const response = await client.fetch(path, { method });
        const milliseconds = Math.round(performance.now() - began);
        const text = await response.text();
        if (client.sessionId === session) showAnswer(answer, response, text, milliseconds, client.user);
        note(response.ok ? "quiet" : "warning", `${method} ${path}: ${response.status}`);
      } catch (error) {
        const failed = paragraph(error.message);
        failed.className = "error";
        answer.replaceChildren(failed);
        note("bad", `${method} ${path}: ${error.message}`);
      }
    };
    button.addEventListener("click", () => whileBusy(button, call));
  }
}

/** Forget the answers: they are the last user's. */
export function clearCalls() {
  for (const answer of document.querySelectorAll("#calls .answer")) answer.replaceChildren();
}

function showAnswer(place, response, text, milliseconds, user) {
  const status = document.createElement("p");
  status.className = "status";
  status.dataset.tone = response.ok ? "good" : "warning";
  status.textContent = `${response.status} ${response.statusText} in ${milliseconds} ms`;
  const body = document.createElement("pre");
  body.tabIndex = 0;
  body.textContent = indented(text);
  place.replaceChildren(status, ...explanation(response, user), ...(body.textContent ? [body] : []));
}

function explanation(response, user) {
  const challenge = response.headers.get("WWW-Authenticate") ?? "";
  const scope = /scope="([^"]+)"/.exec(challenge)?.[1];
  if (response.status === 403 && scope && user) {
    const command = document.createElement("code");
    command.textContent = `auth-service users grant ${user.username} ${scope}`;
    return [paragraph(`This needs the scope ${scope}, which your token does not hold. Grant it with `, command,
      " and sign in again: a session keeps the scopes it was opened with.")];
  }
  if (response.status === 401) return [paragraph("The gateway does not accept the token: the session has ended.")];
  if (response.status === 503) {
    return [paragraph("The gateway cannot say now whether the token is still good, so it asks to try again later.")];
  }
  return [];
}

function paragraph(...content) {
  const made = document.createElement("p");
  made.append(...content);
  return made;
}

function indented(text) {
  try {
    return JSON.stringify(JSON.parse(text), null, 2);
  } catch {
    return text;
  }
}
