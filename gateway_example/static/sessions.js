// The list of one's own sessions, each with a way to end it.

import { badge } from "./badge.js";
import { whileBusy } from "./busy.js";

/**
 * @param {import("./auth-client.js").AuthClient} client
 * @param {(tone: string, text: string) => void} note
 */
export async function showSessions(client, note) {
  const list = document.getElementById("sessions");
  const asked = client.sessionId;
  const sessions = await client.sessions();
  if (client.sessionId !== asked) return; // the list is of a user who is no longer the one here
  list.replaceChildren(...sessions.map((session) => row(session, client, note)));
  complain("");
}

/** Forget them: they are the last user's. */
export function clearSessions() {
  document.getElementById("sessions").replaceChildren();
  complain("");
}

/** Next to the list, where a phone shows it too. @param {string} text */
export function complain(text) {
  document.getElementById("sessions-error").textContent = text;
}

function row(session, client, note) {
  const item = document.createElement("li");
  const what = document.createElement("div");
  const name = document.createElement("p");
  name.className = "device";
  name.textContent = device(session.user_agent);
  if (session.current) name.append(" ", badge("this one"));
  const details = document.createElement("p");
  details.className = "hint";
  details.textContent = [
    session.ip,
    `since ${moment(session.created_at)}`,
    session.current ? "in use now" : `used ${lastUse(session.last_used_at)}`,
    `ends ${moment(session.expires_at)}`,
  ].filter(Boolean).join(" · ");
  details.title = session.user_agent ?? "";
  what.append(name, details);
  const button = document.createElement("button");
  button.type = "button";
  button.className = "small";
  button.textContent = "Sign out";
  button.setAttribute("aria-label", `Sign out ${name.textContent}, since ${moment(session.created_at)}`);
  const end = async () => {
    try {
      await client.endSession(session.id);
      if (session.current) return;
      note("quiet", `Ended another session: ${device(session.user_agent)}.`);
      if (item.contains(document.activeElement)) document.getElementById("reload-sessions").focus();
      item.remove();
      complain("");
    } catch (error) {
      complain(`That session is not ended: ${error.message}`);
      note("bad", error.message);
    }
  };
  button.addEventListener("click", () => whileBusy(button, end));
  item.append(what, button);
  return item;
}

// Order matters: Edge and Opera say that they are Chrome too, and Chrome that it is Safari.
const BROWSERS = [
  [/Edg\/(\d+)/, "Edge"],
  [/OPR\/(\d+)/, "Opera"],
  [/Firefox\/(\d+)/, "Firefox"],
  [/HeadlessChrome\/(\d+)/, "Headless Chrome"],
  [/Chrome\/(\d+)/, "Chrome"],
  [/Version\/(\d+).*Safari\//, "Safari"],
  [/^([A-Za-z][\w.-]*)\/(\d+)/, null],
];
const SYSTEMS = [
  [/iPhone|iPad/, "iOS"],
  [/Android/, "Android"],
  [/Windows/, "Windows"],
  [/Mac OS X/, "macOS"],
  [/CrOS/, "ChromeOS"],
  [/Linux/, "Linux"],
];

/** "Firefox 140 on Windows"; what is not a browser is named as it names itself. @param {string | null} userAgent */
function device(userAgent) {
  if (!userAgent) return "Unknown device";
  const [pattern, browser] = BROWSERS.find(([candidate]) => candidate.test(userAgent)) ?? [];
  if (!pattern) return userAgent.slice(0, 40);
  const found = pattern.exec(userAgent);
  const system = SYSTEMS.find(([candidate]) => candidate.test(userAgent))?.[1];
  return (browser ? `${browser} ${found[1]}` : `${found[1]} ${found[2]}`) + (system ? ` on ${system}` : "");
}

function isToday(date) {
  return date.toDateString() === new Date().toDateString();
}

function moment(text) {
  const date = new Date(text);
  return isToday(date)
    ? date.toLocaleTimeString(undefined, { hour: "2-digit", minute: "2-digit", hour12: false })
    : date.toLocaleDateString(undefined, { day: "numeric", month: "short" });
}

/** The service tells it to the hour, rounded down. @param {string} text */
function lastUse(text) {
  return isToday(new Date(text)) ? `after ${moment(text)}` : moment(text);
}
