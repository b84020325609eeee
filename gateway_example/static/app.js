// The page: joins the sign-in client to what is shown. Everything about tokens is in auth-client.js.

import { note } from "./activity.js";
import { AuthClient } from "./auth-client.js";
import { badge } from "./badge.js";
import { whileBusy } from "./busy.js";
import { clearCalls, showCalls } from "./calls.js";
import { clearForms, submitWith } from "./forms.js";
import { LiveConnection } from "./live.js";
import { clearSessions, complain, showSessions } from "./sessions.js";

const element = (/** @type {string} */ id) => document.getElementById(id);

const REASONS = {
  logout: "Signed out.",
  logout_everywhere: "Signed out everywhere.",
  refresh_token_expired: "The session has expired. Sign in again.",
  refresh_token_reused: "The session was ended because its refresh token was used twice: it may have been stolen.",
  refresh_token_revoked: "This session was ended elsewhere.",
  invalid_token: "The session is over: its cookie has expired or was deleted. Sign in again.",
};
// Without the name: the next to sit here reads this too.
const WAYS = {
  password: "Signed in.",
  refresh: "Found the session again, by a refresh: signed in.",
  "another tab": "Signed in by another tab.",
};

const { issuer } = await (await fetch("/config.json")).json();
export const client = newClient();
const live = new LiveConnection(client, showLive, note);
let unreachable = false;

client.addEventListener("signedin", ({ detail }) => {
  note("good", WAYS[detail.by]);
  clear();
  show();
  if (detail.by === "password") {
    element("main").focus({ preventScroll: true });
    scrollTo(0, 0);
  }
  live.open();
  loadSessions();
});
client.addEventListener("refreshed", ({ detail }) => {
  note("quiet", detail.by === "another tab" ? "Another tab refreshed the access token." : "Refreshed the access token.");
  element("actions-error").textContent = "";
  show();
  live.open();
});
client.addEventListener("signedout", ({ detail }) => {
  const where = detail.by === "another tab" ? " (Another tab told.)" : "";
  note(detail.reason === "logout" ? "quiet" : "warning", (REASONS[detail.reason] ?? "Signed out.") + where);
  live.close();
  clear();
  show();
  openDoor(element("tab-login"));
  element("login-name").focus();
});
client.addEventListener("unreachable", ({ detail }) => {
  unreachable = true;
  note("bad", `The issuer cannot be reached. You stay signed in; next try in ${detail.retryIn} s.`);
  show();
});

submitWith(element("login"), ({ name, password }) =>
  client.login({ [name.includes("@") ? "email" : "username"]: name, password }),
);
submitWith(element("register"), (account) => client.register(account));
submitWith(element("password"), async ({ current, next }) => {
  await client.changePassword({ current, next });
  note("good", "The password is changed, and every other session has ended.");
  loadSessions();
});

act("refresh", () => client.refresh());
act("logout", () => client.logout());
act("logout-everywhere", () => client.logoutEverywhere());
act("look-again", () => client.start());
element("reload-sessions").addEventListener("click", () => whileBusy(element("reload-sessions"), loadSessions));
showCalls(client, note);

const doors = [element("tab-login"), element("tab-register")];
for (const [index, tab] of doors.entries()) {
  tab.addEventListener("click", () => openDoor(tab));
  tab.addEventListener("keydown", ({ key }) => {
    if (key === "ArrowLeft" || key === "ArrowRight") openDoor(doors[1 - index]).focus();
  });
}

warnOfWrongHost();
element("demo-hint").hidden = !isLoopback(new URL(issuer).hostname);
setInterval(showLife, 500);
show();
await client.start().catch(() => {}); // an event has told
if (client.status === "signed-out") note("quiet", "Nobody is signed in here.");
show();

function show() {
  const { status, user } = client;
  if (status !== "unknown") unreachable = false;
  for (const id of ["signed-in", "signed-out", "unknown"]) element(id).hidden = id !== status;
  element("unknown-hint").hidden = !unreachable;
  const [tone, text] = {
    "signed-in": ["good", `Signed in as ${user?.username}`],
    "signed-out": ["quiet", "Signed out"],
    unknown: unreachable ? ["bad", "The issuer cannot be reached"] : ["quiet", "Looking for a session…"],
  }[status];
  element("state").dataset.tone = tone;
  element("state").textContent = text;
  element("portrait").textContent = user ? [...user.username][0].toUpperCase() : "";
  element("user-name").textContent = user?.username ?? "";
  element("password-username").defaultValue = user?.username ?? ""; // for password managers
  element("user-email").textContent = user?.email ?? "";
  element("user-id").textContent = user?.id ?? "";
  element("session-id").textContent = client.sessionId ?? "";
  element("scopes").replaceChildren(...client.scopes.map(badge));
  showLife();
}

/** What one user typed and saw is not for the next. */
function clear() {
  clearCalls();
  clearForms();
  clearSessions();
  element("actions-error").textContent = "";
}

function showLife() {
  if (!client.life) return;
  const left = Math.max(0, client.life.expiresAt - Date.now());
  const seconds = Math.ceil(left / 1000);
  element("life").value = left / client.life.life;
  element("life-text").textContent =
    seconds > 0 ? `${Math.floor(seconds / 60)}:${String(seconds % 60).padStart(2, "0")} left` : "expired";
}

function showLive(tone, text, tick) {
  element("live").dataset.tone = tone;
  if (element("live").textContent !== text) element("live").textContent = text; // or it is read out each second
  if (tick) element("live-tick").textContent = tick;
}

async function loadSessions() {
  try {
    await showSessions(client, note);
  } catch (error) {
    complain(`The sessions cannot be listed: ${error.message}`);
    note("bad", `The sessions cannot be listed: ${error.message}`);
  }
}

/** What fails is said next to the button too: on a phone the log is far below. */
function act(id, work) {
  const button = element(id);
  const attempt = async () => {
    element("actions-error").textContent = "";
    try {
      await work();
    } catch (error) {
      if (client.user) element("actions-error").textContent = `You are still signed in. ${error.message}`;
      note("bad", error.message);
    }
  };
  button.addEventListener("click", () => whileBusy(button, attempt));
}

function newClient() {
  try {
    return new AuthClient({ issuer });
  } catch (error) {
    element("notice").textContent = error.message;
    element("notice").hidden = false;
    throw error;
  }
}

function openDoor(chosen) {
  for (const tab of doors) {
    const open = tab === chosen;
    tab.setAttribute("aria-selected", String(open));
    tab.tabIndex = open ? 0 : -1;
    element(tab.getAttribute("aria-controls")).hidden = !open;
  }
  return chosen;
}

/** localhost and 127.0.0.1 are two sites: the browser would drop the cookie in silence. */
function warnOfWrongHost() {
  const { hostname } = new URL(issuer);
  if (hostname === location.hostname || !isLoopback(hostname) || !isLoopback(location.hostname)) return;
  const there = new URL(location.href);
  there.hostname = hostname;
  const link = document.createElement("a");
  link.href = there.href;
  link.textContent = there.origin;
  element("notice").append("Signing in works only where page and issuer share a host name. Open ", link, " instead.");
  element("notice").hidden = false;
}

function isLoopback(hostname) {
  return hostname === "localhost" || hostname === "[::1]" || hostname.startsWith("127.");
}
