// @ts-check
/**
 * Sign-in for single-page apps in front of auth-service: one plain ES module, no dependencies. Take it as it is.
 *
 *     const client = new AuthClient({ issuer: "https://auth.example.com", apiOrigins: ["https://api.example.com"] });
 *     client.addEventListener("signedout", ({ detail }) => showLogin(detail.reason));
 *     await client.start();                              // the user, or null
 *     const orders = await client.fetch("https://api.example.com/orders");
 *
 * What it keeps to:
 * - The access token is in memory only. The refresh token is in a cookie that no script can read. What is in
 *   localStorage is one bit: that there may be a session, so that a first visit does not ask for nothing.
 * - One refresh at a time over all tabs (Web Locks), and its result goes to all of them (BroadcastChannel).
 * - A session that has ended never comes back, in no tab, however late an answer arrives: its id is remembered.
 * - Signed out is what the service says. That it cannot be reached says nothing: the user stays signed in.
 * - The access token goes to the origins you list, to this page's own and to the issuer's, and to no other.
 *
 * It needs a secure context (https, or loopback), and page and issuer on one site, or the browser drops the cookie.
 * The page's origin must be in the issuer's AUTH_ALLOWED_ORIGINS.
 *
 * @typedef {{ id: string, username: string, email: string }} User
 * @typedef {{ id: string, created_at: string, last_used_at: string, expires_at: string, ip: string | null,
 *   user_agent: string | null, current: boolean }} SessionInfo
 * @typedef {{ id: string, accessToken: string, issuedAt: number, expiresAt: number, life: number, scope: string,
 *   user: User }} Session
 *   `issuedAt` is the issuer's time, in seconds: it tells which of two tokens is newer. `expiresAt` is this computer's,
 *   in milliseconds since the epoch: timers stop while it sleeps, that clock does not.
 * @typedef {"password" | "refresh" | "another tab"} Way
 *
 * Events (each a CustomEvent):
 * - `signedin` `{ user, by: Way }`: also when another user takes over, and when a reload finds the session again
 * - `refreshed` `{ expiresAt, by: Way }`: the same session has a new access token
 * - `signedout` `{ reason, by: "this tab" | "the service" | "another tab" }`: `reason` is `logout`,
 *   `logout_everywhere`, or the code with which the refresh was refused, such as `refresh_token_revoked`
 * - `unreachable` `{ retryIn }`: the service does not answer, and is asked again in so many seconds
 */

/** Milliseconds for one request to the issuer. A tab holds the lock for that long, times the attempts. */
const TIMEOUT = 8_000;
/** Milliseconds in which another tab answers, if there is one. */
const TAB_PATIENCE = 150;
const ATTEMPTS = 3;
/** Milliseconds: the longest that a request waits because of a Retry-After. */
const MAX_WAIT = 5_000;
/** The refusals of a refresh that mean: sign in again (the issuer's README, "When a refresh is refused"). */
const SIGNED_OUT = new Set(["refresh_token_expired", "refresh_token_reused", "refresh_token_revoked", "invalid_token"]);

/** The service refused, and said why (problem details, RFC 9457). `fields` maps a field's name to what is wrong. */
export class AuthError extends Error {
  /** @param {number} status @param {any} problem @param {number | null} retryAfter seconds */
  constructor(status, problem, retryAfter) {
    super(problem.detail ?? `The service answered ${status}.`);
    this.name = "AuthError";
    this.status = status;
    /** @type {string} */
    this.code = problem.code ?? "unknown";
    /** @type {Record<string, string>} */
    this.fields = Object.fromEntries((problem.errors ?? []).map((/** @type {any} */ e) => [e.field, e.message]));
    this.retryAfter = retryAfter;
  }
}

/** The service gave no answer that means anything. Nobody was signed out, and nothing was spent. */
export class Unreachable extends Error {
  /** @param {{ cause?: unknown, retryAfter?: number | null }} [more] */
  constructor({ cause, retryAfter = null } = {}) {
    super("The sign-in service cannot be reached now.", { cause });
    this.name = "Unreachable";
    this.retryAfter = retryAfter;
  }
}

export class AuthClient extends EventTarget {
  /** @type {Session | null} */ #session = null;
  /** @type {Promise<boolean> | null} */ #refreshing = null;
  /** @type {(() => void) | null} */ #tabAnswered = null;
  /** Ids of sessions that must not come back. */
  #ended = new Set();
  #failures = 0;
  #timer = 0;
  /** When to refresh next, in milliseconds since the epoch. */
  #due = Infinity;
  #issuer;
  #origins;
  #channel;
  #name;

  /** @param {{ issuer: string, apiOrigins?: string[] }} options */
  constructor({ issuer, apiOrigins = [] }) {
    super();
    this.#issuer = new URL(issuer).origin;
    this.#origins = new Set([location.origin, this.#issuer, ...apiOrigins.map((origin) => new URL(origin).origin)]);
    this.#name = `auth-client ${this.#issuer}`;
    this.#channel = new BroadcastChannel(this.#name);
    this.#channel.addEventListener("message", ({ data }) => this.#hear(data));
    // A hidden or sleeping tab runs no timers, and one out of the back-forward cache has missed what was said.
    document.addEventListener("visibilitychange", () => document.hidden || this.#catchUp());
    addEventListener("online", () => this.#catchUp());
    addEventListener("pageshow", ({ persisted }) => persisted && this.#quietly(this.refresh()));
  }

  /** @returns {User | null} */
  get user() {
    return this.#session?.user ?? null;
  }

  /** The session's id (`sid`), or null. @returns {string | null} */
  get sessionId() {
    return this.#session?.id ?? null;
  }

  /** The scopes of the access token. @returns {string[]} */
  get scopes() {
    return this.#session?.scope.split(" ").filter(Boolean) ?? [];
  }

  /** When the access token expires, and how long it lives, both in milliseconds. */
  get life() {
    return this.#session && { expiresAt: this.#session.expiresAt, life: this.#session.life };
  }

  /** Whether somebody is signed in; `unknown` while the service that would know cannot be reached. */
  get status() {
    return this.#session ? "signed-in" : this.#hint ? "unknown" : "signed-out";
  }

  /**
   * Find the session of an earlier visit or of another tab. Call it once, after adding listeners.
   * @returns {Promise<User | null>} null where nobody is signed in
   * @throws {Unreachable} where that cannot be known now; it is tried again, and `signedin` tells
   */
  async start() {
    if (this.#hint) {
      await this.#askOtherTabs();
      if (!this.#session) await this.refresh();
    }
    return this.user;
  }

  /**
   * @param {{ email?: string, username?: string, password: string, scope?: string }} credentials either name
   * @returns {Promise<User>} @throws {AuthError | Unreachable}
   */
  login(credentials) {
    return this.#open("/user/login", credentials);
  }

  /**
   * Make an account and sign in.
   * @param {{ username: string, email: string, password: string, scope?: string }} account
   * @returns {Promise<User>} @throws {AuthError | Unreachable}
   */
  register(account) {
    return this.#open("/user/register", account);
  }

  /**
   * End this session, here and in all tabs. If the service cannot be reached the user is still signed in: whoever
   * leaves a shared computer must not be told otherwise.
   * @throws {AuthError | Unreachable}
   */
  async logout() {
    await this.#leave("logout");
  }

  /** End all sessions of the user, on all devices. @throws {AuthError | Unreachable} */
  async logoutEverywhere() {
    const token = await this.accessToken();
    if (token) await this.#leave("logout_everywhere", token);
  }

  /** The account as the service knows it now. @returns {Promise<User>} @throws {AuthError | Unreachable} */
  me() {
    return this.#api("GET", "/user/me");
  }

  /** The newest first. @returns {Promise<SessionInfo[]>} @throws {AuthError | Unreachable} */
  sessions() {
    return this.#api("GET", "/user/sessions");
  }

  /** End one of the user's sessions; this one too. @param {string} id @throws {AuthError | Unreachable} */
  async endSession(id) {
    if (id === this.sessionId) await this.logout();
    else await this.#api("DELETE", `/user/sessions/${encodeURIComponent(id)}`);
  }

  /**
   * Every other session ends.
   * @param {{ current: string, next: string }} passwords
   * @throws {AuthError | Unreachable}
   */
  async changePassword({ current, next }) {
    await this.#api("POST", "/user/password", { current_password: current, new_password: next });
  }

  /**
   * An access token that is good for a moment yet, for what `fetch` cannot do: a WebSocket takes it as the
   * subprotocols `["bearer", token]`.
   * @returns {Promise<string | null>} null where nobody is signed in
   * @throws {Unreachable}
   */
  async accessToken() {
    const session = this.#session;
    if (session && Date.now() >= session.expiresAt - Math.min(5_000, session.life / 10)) {
      try {
        await this.refresh();
      } catch (error) {
        if (Date.now() >= session.expiresAt) throw error;
      }
    }
    return this.#session?.accessToken ?? null;
  }

  /**
   * `fetch` with the access token, for the origins that may see it; a plain `fetch` for all others.
   *
   * After a 401 that blames the token it refreshes, together with all other calls, and asks once more. A GET that is
   * answered 503 is asked again when Retry-After says so, a few times. What it resolves to is the last answer: check
   * `ok`. Cookies are not sent unless `init.credentials` says so, and redirects are errors: some browsers take the
   * token along to wherever a redirect leads.
   * @param {RequestInfo | URL} input
   * @param {RequestInit} [init]
   * @returns {Promise<Response>}
   * @throws {Unreachable} where a new access token is needed and cannot be had
   */
  async fetch(input, init = {}) {
    const request = new Request(input, init);
    if (!this.#origins.has(new URL(request.url).origin)) return fetch(request);
    const credentials = init.credentials ?? "omit";
    const token = await this.accessToken();
    const session = this.sessionId;
    const response = await this.#send(request, token, credentials);
    if (token === null || !blamesToken(response)) return response;
    // Others may have been refused at the same time, and one of them may have refreshed already.
    if (this.#session?.accessToken === token) await this.refresh();
    // Another user may have signed in meanwhile: what the first one asked for is not asked in the name of the second.
    if (!this.#session || this.#session.id !== session) return response;
    return this.#send(request, this.#session.accessToken, credentials);
  }

  /**
   * Take a new access token now: one request for all callers in all tabs.
   * @returns {Promise<boolean>} whether somebody is signed in
   * @throws {Unreachable}
   */
  refresh() {
    this.#refreshing ??= this.#refresh().finally(() => {
      this.#refreshing = null;
    });
    return this.#refreshing;
  }

  async #refresh() {
    const before = this.#session?.accessToken;
    const overtaken = () => this.#session?.accessToken !== before;
    return this.#exclusively("refresh", async (waited) => {
      // The session that somebody is just leaving: whoever does tells how it ended, better than a refusal would.
      const left = await this.#exclusively("leave", async (hadToWait) => hadToWait);
      if ((waited || left) && !overtaken()) await this.#askOtherTabs();
      if (overtaken()) return this.#session !== null;
      try {
        const tokens = await this.#exchange();
        this.#failures = 0;
        return tokens !== null && this.#adopt(tokens, "refresh");
      } catch (error) {
        this.#retryLater();
        throw error;
      }
    });
  }

  /** @returns {Promise<Session | null>} null once the service has said that the session is over */
  async #exchange() {
    const asked = Date.now();
    const response = await this.#call("POST", "/user/refresh-token", { attempts: ATTEMPTS });
    if (response.ok) return sessionOf(await response.json(), asked);
    const error = await refusal(response);
    if (response.status !== 401 || !SIGNED_OUT.has(error.code)) {
      throw new Unreachable({ cause: error, retryAfter: error.retryAfter });
    }
    this.#end(error.code, "the service");
    return null;
  }

  /** @param {string} path @param {object} members */
  async #open(path, members) {
    // Within the lock: the cookie of a refresh under way must not come after, and replace, the one set here.
    return this.#exclusively("refresh", async () => {
      const asked = Date.now();
      const response = await this.#call("POST", path, { body: { ...members, transport: "cookie" } });
      if (!response.ok) throw await refusal(response);
      const session = sessionOf(await response.json(), asked);
      this.#adopt(session, "password");
      return session.user;
    });
  }

  /** @param {string} reason @param {string} [everywhere] the access token with which to end all sessions */
  async #leave(reason, everywhere) {
    if (!this.#session) await this.#refreshing?.catch(() => {}); // only its answer tells which session must not come back
    // A lock of its own: a refresh that hangs keeps nobody signed in, and what it brings is refused (#adopt).
    await this.#exclusively("leave", async () => {
      const session = this.#session;
      if (everywhere) {
        const all = await this.#call("DELETE", "/user/sessions", { token: everywhere, attempts: ATTEMPTS });
        if (!all.ok) throw await refusal(all);
      }
      // After the other it ends nothing any more, but it clears the cookie.
      const response = await this.#call("POST", "/user/logout", { token: session?.accessToken, attempts: ATTEMPTS });
      // 401 says that no credential came along: nobody is signed in.
      if (!response.ok && response.status !== 401) throw await refusal(response);
      if (session?.id === this.#session?.id) this.#end(reason, "this tab");
    });
  }

  /**
   * Do `work` while no other tab does anything under this lock; it is told whether it had to wait for one.
   * @template T @param {"refresh" | "leave"} what @param {(waited: boolean) => Promise<T>} work @returns {Promise<T>}
   */
  async #exclusively(what, work) {
    const name = `${this.#name} ${what}`;
    const free = await navigator.locks.request(name, { ifAvailable: true }, async (lock) =>
      lock ? { result: await work(false) } : null,
    );
    return free ? free.result : navigator.locks.request(name, () => work(true));
  }

  /** @param {Session} session @param {Way} by @returns {boolean} whether it is the session in force now */
  #adopt(session, by) {
    const previous = this.#session;
    if (this.#ended.has(session.id)) return false;
    if (previous?.id === session.id && by === "another tab") {
      if (previous.accessToken === session.accessToken || previous.issuedAt > session.issuedAt) return true;
    }
    if (previous && previous.id !== session.id) this.#ended.add(previous.id);
    this.#session = session;
    this.#hint = true;
    // A little before it expires, and not all tabs at one moment.
    const ahead = Math.min(60_000, session.life / 5) * (0.5 + Math.random() / 2);
    this.#refreshIn(session.expiresAt - Date.now() - ahead);
    if (by !== "another tab") this.#channel.postMessage({ type: "session", session });
    if (previous?.id === session.id) this.#tell("refreshed", { expiresAt: session.expiresAt, by });
    else this.#tell("signedin", { user: session.user, by });
    return true;
  }

  /** @param {string} reason @param {string} by */
  #end(reason, by) {
    const id = this.sessionId;
    if (!id && !this.#hint) return; // that is known already
    if (id) this.#ended.add(id);
    this.#session = null;
    this.#hint = false;
    clearTimeout(this.#timer);
    if (id && by !== "another tab") this.#channel.postMessage({ type: "signedout", id, reason });
    this.#tell("signedout", { reason, by });
  }

  /** What another tab says. @param {any} message */
  #hear(message) {
    if (message.type === "session") {
      this.#adopt(message.session, "another tab");
      this.#tabAnswered?.();
    } else if (message.type === "signedout") {
      this.#ended.add(message.id);
      if (message.id === this.sessionId) this.#end(message.reason, "another tab");
      this.#tabAnswered?.();
    } else if (message.type === "ask") {
      const session = this.#session;
      if (session && session.issuedAt > message.newerThan && session.expiresAt > Date.now()) {
        this.#channel.postMessage({ type: "session", session });
      }
    }
  }

  /** Resolves when another tab has told of a token newer than ours, or none does in a moment. */
  async #askOtherTabs() {
    await new Promise((resolve) => {
      this.#tabAnswered = () => resolve(undefined);
      setTimeout(resolve, TAB_PATIENCE);
      this.#channel.postMessage({ type: "ask", newerThan: this.#session?.issuedAt ?? 0 });
    });
    this.#tabAnswered = null;
  }

  /** After a pause: the access token may have expired, or the service may answer again. */
  #catchUp() {
    if (this.#hint && (this.#failures > 0 || Date.now() >= this.#due)) this.#quietly(this.refresh());
  }

  #retryLater() {
    const seconds = Math.min(60, 2 ** this.#failures) * (1 + Math.random());
    this.#failures += 1;
    this.#refreshIn(seconds * 1_000);
    this.#tell("unreachable", { retryIn: Math.round(seconds) });
  }

  /** @param {number} milliseconds */
  #refreshIn(milliseconds) {
    clearTimeout(this.#timer);
    this.#due = Date.now() + milliseconds;
    // Nobody looks at a hidden tab: it refreshes when somebody does.
    this.#timer = setTimeout(() => document.hidden || this.#quietly(this.refresh()), Math.max(0, milliseconds));
  }

  /** An event has told already why it failed. @param {Promise<unknown>} work */
  #quietly(work) {
    work.catch((error) => {
      if (!(error instanceof Unreachable)) throw error;
    });
  }

  /** @param {string} type @param {object} detail */
  #tell(type, detail) {
    this.dispatchEvent(new CustomEvent(type, { detail }));
  }

  get #hint() {
    try {
      return localStorage.getItem(this.#name) !== null;
    } catch {
      return true; // storage is forbidden here: then only the service knows
    }
  }

  set #hint(given) {
    try {
      if (given) localStorage.setItem(this.#name, "1");
      else localStorage.removeItem(this.#name);
    } catch {
      // a hint that cannot be kept costs one request
    }
  }

  /**
   * A call to the issuer with the user's access token; answers its JSON.
   * @param {string} method @param {string} path @param {object} [body]
   */
  async #api(method, path, body) {
    const init = body ? { body: JSON.stringify(body), headers: { "Content-Type": "application/json" } } : {};
    let response;
    try {
      response = await this.fetch(this.#issuer + path, { method, signal: AbortSignal.timeout(TIMEOUT), ...init });
    } catch (cause) {
      throw cause instanceof Unreachable ? cause : new Unreachable({ cause });
    }
    if (!response.ok) throw await refusal(response);
    return response.status === 204 ? null : response.json();
  }

  /**
   * A call to the issuer with the cookie. 503 and no answer are tried again, `attempts` times in all.
   * @param {string} method @param {string} path
   * @param {{ body?: object, token?: string, attempts?: number }} options
   * @returns {Promise<Response>} @throws {Unreachable}
   */
  async #call(method, path, { body, token, attempts = 1 }) {
    const headers = new Headers();
    if (body) headers.set("Content-Type", "application/json");
    if (token) headers.set("Authorization", `Bearer ${token}`);
    for (let attempt = 1; ; attempt += 1) {
      let problem;
      try {
        const response = await fetch(this.#issuer + path, {
          method,
          headers,
          body: body && JSON.stringify(body),
          credentials: "include",
          redirect: "error",
          signal: AbortSignal.timeout(TIMEOUT),
        });
        if (response.status !== 503) return response;
        problem = new Unreachable({ retryAfter: retryAfter(response) });
      } catch (cause) {
        problem = new Unreachable({ cause });
      }
      if (attempt === attempts) throw problem;
      await pause(problem.retryAfter ?? attempt / 2);
    }
  }

  /**
   * @param {Request} request kept whole, for another attempt
   * @param {string | null} token @param {RequestCredentials} credentials
   */
  async #send(request, token, credentials) {
    for (let attempt = 1; ; attempt += 1) {
      const copy = new Request(request.clone(), token ? { credentials, redirect: "error" } : { credentials });
      if (token) copy.headers.set("Authorization", `Bearer ${token}`);
      const response = await fetch(copy);
      const wait = retryAfter(response);
      if (response.status !== 503 || wait === null || request.method !== "GET" || attempt === ATTEMPTS) return response;
      await pause(wait);
    }
  }
}

/**
 * The session that a token response opens or goes on with.
 * @param {any} tokens @param {number} asked when: a token is never taken for younger than it is
 * @returns {Session}
 */
function sessionOf(tokens, asked) {
  const life = tokens.expires_in * 1_000;
  const { sid: id, iat: issuedAt } = claimsOf(tokens.access_token);
  const { access_token: accessToken, scope, user } = tokens;
  return { id, accessToken, issuedAt, expiresAt: asked + life, life, scope, user };
}

/** What an access token says; for telling sessions apart, not for trusting it. @param {string} token */
function claimsOf(token) {
  const base64 = token.split(".")[1].replaceAll("-", "+").replaceAll("_", "/");
  return JSON.parse(new TextDecoder().decode(Uint8Array.from(atob(base64), (character) => character.charCodeAt(0))));
}

/** RFC 6750 §3.1. A 401 for another reason, such as a wrong password, is not mended by a new token. @param {Response} response */
function blamesToken(response) {
  const challenge = response.headers.get("WWW-Authenticate");
  return response.status === 401 && (challenge === null || challenge.includes('error="invalid_token"'));
}

/** @param {Response} response @returns {Promise<AuthError>} */
async function refusal(response) {
  const problem = await response.json().catch(() => ({}));
  return new AuthError(response.status, problem, retryAfter(response));
}

/** Seconds, or null where the answer does not say. @param {Response} response */
function retryAfter(response) {
  const value = response.headers.get("Retry-After");
  return value !== null && /^\d+$/.test(value) ? Number(value) : null;
}

/** Bounded, and never the same for all who were refused at one moment. @param {number} seconds */
function pause(seconds) {
  const milliseconds = Math.min(MAX_WAIT, seconds * 1_000) * (1 + Math.random() / 4);
  return new Promise((resolve) => setTimeout(resolve, milliseconds));
}
