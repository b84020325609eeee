// The page: joins the sign-in client to what is shown. Everything about tokens is in auth-client.js.

import { note } from "./activity.js";
import { AuthClient } from "./auth-client.js";
import { badge } from "./badge.js";
import { clearCalls, showCalls } from "./calls.js";
import { submitWith } from "./forms.js";
import { LiveConnection } from "./live.js";
import { showSessions } from "./sessions.js";

const element = (/** @type {string} */ id) => document.getElementById(id);

const REASONS = {
  logout: "Signed out.",
  logout_everywhere: "Signed out everywhere.",
  refresh_token_expired: "The session has expired. Sign in again.",
  refresh_token_reused: "The session was ended because its refresh token was used twice: it may have been stolen.",
  refresh_token_revoked: "This session was ended elsewhere.",
  invalid_token: "There is no session in this browser.",
};
const WAYS = {
  password: "Signed in",
  refresh: "Found the session again, by a refresh: signed in",
  "another tab": "Signed in by another tab",
};

const { issuer } = await (await fetch("/config.json")).json();
export const client = new AuthClient({ issuer });
const live = new LiveConnection(client, showLive, note);

client.addEventListener("signedin", ({ detail }) => {
  note("good", `${WAYS[detail.by]} as ${detail.user.username}.`);
  clearCalls();
  show();
  live.open();
  loadSessions();
});
client.addEventListener("refreshed", ({ detail }) => {
  note("quiet", detail.by === "another tab" ? "Another tab refreshed the access token." : "Refreshed the access token.");
  show();
  live.open();
});
client.addEventListener("signedout", ({ detail }) => {
  const where = detail.by === "another tab" ? " (Another tab told.)" : "";
  note(detail.reason === "logout" ? "quiet" : "warning", (REASONS[detail.reason] ?? "Signed out.") + where);
  live.close();
  clearCalls();
  show();
  element("login-name").focus();
});
client.addEventListener("unreachable", ({ detail }) => {
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
act("reload-sessions", loadSessions);
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
await client.start().catch(() => {}); // an event has told
if (client.status === "signed-out") note("quiet", "Nobody is signed in here.");
show();

function show() {
  const { status, user } = client;
  element("signed-in").hidden = status !== "signed-in";
  element("signed-out").hidden = status === "signed-in";
  const [tone, text] = {
    "signed-in": ["good", `Signed in as ${user?.username}`],
    "signed-out": ["quiet", "Signed out"],
    unknown: ["bad", "The issuer cannot be reached"],
  }[status];
  element("state").dataset.tone = tone;
  element("state").textContent = text;
  if (!user) return;
  element("portrait").textContent = [...user.username][0].toUpperCase();
  element("user-name").textContent = user.username;
  element("password-username").defaultValue = user.username; // for password managers
  element("user-email").textContent = user.email;
  element("user-id").textContent = user.id;
  element("session-id").textContent = client.sessionId;
  element("scopes").replaceChildren(...client.scopes.map(badge));
  showLife();
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
    note("bad", `The sessions cannot be listed: ${error.message}`);
  }
}

function act(id, work) {
  const button = element(id);
  button.addEventListener("click", async () => {
    button.disabled = true;
    try {
      await work();
    } catch (error) {
      note("bad", error.message);
    } finally {
      button.disabled = false;
    }
  });
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
