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
 * - A refresh without an answer is sent again every few seconds, by any tab that can: the answer may have been lost, and
 *   after the issuer's replay window the same token would pass for stolen.
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
 * - `unreachable` `{ retryIn }`: the service does not answer, and is asked again in so many seconds, by this tab or
 *   by another
 */

/** Milliseconds for one request to the issuer. A tab holds the lock for that long, times the attempts. */
const TIMEOUT = 8_000;
/** Milliseconds in which another tab answers, if there is one. */
const TAB_PATIENCE = 150;
const ATTEMPTS = 3;
/** Seconds: the longest that a request waits for a Retry-After to pass. */
const MAX_WAIT = 5;
/**
 * Seconds between two refreshes that fail, at most. With TIMEOUT it is well below the issuer's replay window (30 s):
 * within that an answer that was lost can be had again, after it the token passes for stolen.
 */
const MAX_BACKOFF = 10;
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
  /** How many refreshes have failed since one was answered, and the last of them, in whichever tab. */
  #failures = 0;
  /** @type {Unreachable | null} */ #failure = null;
  #timer = 0;
  /** When to refresh next, and when not before (a Retry-After), both in milliseconds since the epoch. */
  #due = Infinity;
  #notBefore = 0;
  /** The hint, where storage is forbidden: only the service knows, until it has said. */
  #remembered = true;
  #closed = new AbortController();
  #issuer;
  #origins;
  #channel;
  #name;

  /** @param {{ issuer: string, apiOrigins?: string[] }} options */
  constructor({ issuer, apiOrigins = [] }) {
    super();
    if (!navigator.locks) throw new Error("AuthClient needs a secure context: https, or a loopback address.");
    this.#issuer = new URL(issuer).origin;
    this.#origins = new Set([location.origin, this.#issuer, ...apiOrigins.map((origin) => new URL(origin).origin)]);
    this.#name = `auth-client ${this.#issuer}`;
    this.#channel = new BroadcastChannel(this.#name);
    this.#channel.addEventListener("message", ({ data }) => this.#hear(data));
    // A hidden or sleeping tab runs no timers, and one out of the back-forward cache has missed what was said.
    const { signal } = this.#closed;
    document.addEventListener("visibilitychange", () => document.hidden || this.#catchUp(), { signal });
    addEventListener("online", () => this.#catchUp(), { signal });
    addEventListener("pageshow", ({ persisted }) => persisted && this.#quietly(this.refresh()), { signal });
  }

  /** From now on hear nothing and do nothing, for whoever puts another client in place of this one: hot reload, tests. */
  close() {
    this.#closed.abort();
    this.#channel.close();
    clearTimeout(this.#timer);
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
    if (!this.#session && this.#hint) await this.refresh();
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

  /**
   * End all sessions of the user, on all devices. Where it throws, some of them may live on.
   * @throws {AuthError | Unreachable}
   */
  async logoutEverywhere() {
    const token = await this.accessToken();
    const session = this.sessionId;
    if (!token) return; // nobody is signed in
    try {
      await this.#leave("logout_everywhere", token);
    } catch (error) {
      // As in `fetch`: a token that is refused is replaced once, and it is still the same user who asks.
      const refused = error instanceof AuthError && error.status === 401;
      if (!refused || !(await this.refresh()) || this.sessionId !== session) throw error;
      await this.#leave("logout_everywhere", this.#session?.accessToken);
    }
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
   * @throws {Unreachable} where that cannot be known now, or a new token is needed and cannot be had
   */
  async accessToken() {
    const session = this.#session;
    if (!session && this.#hint) await this.refresh();
    else if (session && Date.now() >= session.expiresAt - Math.min(5_000, session.life / 10)) {
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
   * answered 503 is asked again when Retry-After says so, if that is soon, a few times. What it resolves to is the last
   * answer: check `ok`. Cookies are not sent unless `init.credentials` says so, and redirects are errors: some browsers
   * take the token along to wherever a redirect leads.
   * @param {RequestInfo | URL} input
   * @param {RequestInit} [init]
   * @returns {Promise<Response>}
   * @throws {Unreachable} where a new access token is needed and cannot be had, or cannot be known to be needed
   */
  async fetch(input, init = {}) {
    const request = new Request(input, init);
    if (!this.#origins.has(new URL(request.url).origin)) return fetch(request);
    const credentials = init.credentials ?? "omit";
    const token = await unlessAborted(this.accessToken(), request.signal);
    const session = this.sessionId;
    const response = await this.#send(request, token, credentials);
    if (token === null || !blamesToken(response)) return response;
    // Others may have been refused at the same time, and one of them may have refreshed already.
    if (this.#session?.accessToken === token) await unlessAborted(this.refresh(), request.signal);
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
    // A new tab is told by those there are, and stands in no line for that.
    if (!before) await this.#askOtherTabs();
    if (overtaken()) return this.#session !== null;
    const tooEarly = this.#notBefore - Date.now();
    if (tooEarly > 0) throw new Unreachable({ cause: this.#failure, retryAfter: Math.ceil(tooEarly / 1_000) });
    return this.#exclusively(async () => {
      // The session that somebody is just leaving: whoever does tells how it ended, better than a refusal would.
      const left = await this.#locked("leave", async (waited) => waited);
      if (left && !overtaken()) await this.#askOtherTabs();
      if (overtaken()) return this.#session !== null;
      try {
        const session = await this.#exchange();
        return session !== null && this.#adopt(session, "refresh");
      } catch (error) {
        if (!(error instanceof Unreachable)) throw error;
        const outage = { failures: this.#failures + 1, notBefore: Date.now() + (error.retryAfter ?? 0) * 1_000 };
        this.#post({ type: "unreachable", outage });
        this.#retryLater(outage, error);
        throw error;
      }
    });
  }

  /** @returns {Promise<Session | null>} null once the service has said that the session is over */
  async #exchange() {
    const asked = Date.now();
    // After a first series one at a time: whoever waits behind this tab waits no longer than that.
    const attempts = this.#failures === 0 ? ATTEMPTS : 1;
    const response = await this.#call("POST", "/user/refresh-token", { attempts });
    if (response.ok) return sessionOf(response, asked);
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
    return this.#exclusively(async () => {
      const asked = Date.now();
      const response = await this.#call("POST", path, { body: { ...members, transport: "cookie" } });
      if (!response.ok) throw await refusal(response);
      const session = await sessionOf(response, asked);
      this.#adopt(session, "password");
      return session.user;
    });
  }

  /** @param {string} reason @param {string} [everywhere] the access token with which to end all sessions */
  async #leave(reason, everywhere) {
    if (!this.#session) await this.#refreshing?.catch(() => {}); // only its answer tells which session must not come back
    // A lock of its own: a refresh that hangs keeps nobody signed in, and what it brings is refused (#adopt).
    await this.#locked("leave", async () => {
      const session = this.#session;
      if (everywhere) await this.#endAll(everywhere);
      try {
        const attempts = everywhere ? 1 : ATTEMPTS;
        const response = await this.#call("POST", "/user/logout", { token: session?.accessToken, attempts });
        // 401 says that no credential came along: nobody is signed in.
        if (response.status !== 401) await done(response);
      } catch (error) {
        if (!everywhere) throw error; // otherwise it had only the cookie to clear, of a session that has ended
      }
      if (session?.id === this.#session?.id) this.#end(reason, "this tab");
    });
  }

  /** @param {string} token */
  async #endAll(token) {
    const expiresAt = this.#session?.expiresAt ?? 0;
    let unanswered = false;
    const lost = () => {
      unanswered = true;
    };
    const response = await this.#call("DELETE", "/user/sessions", { token, attempts: ATTEMPTS, lost });
    // The attempt whose answer was lost has ended the session that this token belongs to, and all others.
    if (response.status === 401 && unanswered && Date.now() < expiresAt) return;
    await done(response);
  }

  /**
   * Do `work` while no other tab refreshes or signs in.
   * @template T @param {() => Promise<T>} work @returns {Promise<T>}
   * @throws {Unreachable} where the tab in front found it so: to find that out again would take as long again
   */
  #exclusively(work) {
    const known = this.#failure;
    return this.#locked("refresh", async (waited) => {
      if (waited) await this.#askOtherTabs(); // or the lock is here before the message of how it went
      if (this.#failure && this.#failure !== known) throw this.#failure;
      return work();
    });
  }

  /**
   * Do `work` while no other tab does anything under this lock; it is told whether it had to wait for one.
   * @template T @param {"refresh" | "leave"} what @param {(waited: boolean) => Promise<T>} work @returns {Promise<T>}
   */
  async #locked(what, work) {
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
    if (by !== "another tab") {
      this.#answered();
      this.#post({ type: "session", session });
    }
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
    this.#answered();
    clearTimeout(this.#timer);
    if (id && by !== "another tab") this.#post({ type: "signedout", id, reason });
    this.#tell("signedout", { reason, by });
  }

  /** What another tab says. @param {any} message */
  #hear(message) {
    if (message.type === "session") {
      if (!message.again) this.#answered();
      this.#adopt(message.session, "another tab");
      this.#tabAnswered?.();
    } else if (message.type === "signedout") {
      this.#ended.add(message.id);
      if (message.id === this.sessionId) this.#end(message.reason, "another tab");
      this.#tabAnswered?.();
    } else if (message.type === "unreachable") {
      // The cookie is of all tabs: should the one that asked be closed meanwhile, another asks again in time.
      this.#retryLater(message.outage, new Unreachable());
      this.#tabAnswered?.();
    } else if (message.type === "ask") {
      const session = this.#session;
      if (session && session.issuedAt > message.newerThan && session.expiresAt > Date.now()) {
        this.#post({ type: "session", session, again: true });
      }
    }
  }

  /** @param {object} message */
  #post(message) {
    if (!this.#closed.signal.aborted) this.#channel.postMessage(message);
  }

  /** Resolves when another tab has told of a token newer than ours, or none does in a moment. */
  async #askOtherTabs() {
    await new Promise((resolve) => {
      this.#tabAnswered = () => resolve(undefined);
      setTimeout(resolve, TAB_PATIENCE);
      this.#post({ type: "ask", newerThan: this.#session?.issuedAt ?? 0 });
    });
    this.#tabAnswered = null;
  }

  /** After a pause: the access token may have expired, or the service may answer again. */
  #catchUp() {
    if (this.#hint && (this.#failures > 0 || Date.now() >= this.#due)) this.#quietly(this.refresh());
  }

  /** The service has said how things are: what failed before is past. */
  #answered() {
    this.#failures = 0;
    this.#failure = null;
    this.#notBefore = 0;
  }

  /** @param {{ failures: number, notBefore: number }} outage as one of the tabs met it @param {Unreachable} failure */
  #retryLater({ failures, notBefore }, failure) {
    this.#failures = failures;
    this.#failure = failure;
    this.#notBefore = notBefore;
    if (!this.#hint) return;
    // Not all browsers at one moment, and of the tabs here the first that comes: its failure puts off all others.
    const backoff = Math.min(MAX_BACKOFF, 2 ** failures) * (0.5 + Math.random() / 2);
    const told = Math.max(0, notBefore - Date.now()) / 1_000;
    const seconds = Math.max(backoff, told * (1 + Math.random() / 4));
    this.#refreshIn(seconds * 1_000);
    this.#tell("unreachable", { retryIn: Math.round(seconds) });
  }

  /** @param {number} milliseconds */
  #refreshIn(milliseconds) {
    clearTimeout(this.#timer);
    if (this.#closed.signal.aborted) return;
    this.#due = Date.now() + milliseconds;
    this.#timer = setTimeout(() => {
      // Nobody looks at a hidden tab: it refreshes when somebody does, unless an answer may have been lost.
      if (!document.hidden || this.#failures > 0) this.#quietly(this.refresh());
    }, Math.max(0, milliseconds));
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
      return this.#remembered;
    }
  }

  set #hint(given) {
    this.#remembered = given;
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
    return response.status === 204 ? null : jsonOf(response);
  }

  /**
   * A call to the issuer with the cookie. 503 and no answer are tried again, `attempts` times in all.
   * @param {string} method @param {string} path
   * @param {{ body?: object, token?: string, attempts?: number, lost?: () => void }} options
   *   `lost` is called after an attempt without an answer: it may have done its work
   * @returns {Promise<Response>} @throws {Unreachable}
   */
  async #call(method, path, { body, token, attempts = 1, lost = () => {} }) {
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
        lost();
        problem = new Unreachable({ cause });
      }
      const wait = problem.retryAfter ?? attempt / 2;
      if (attempt === attempts || wait > MAX_WAIT) throw problem;
      await pause(wait);
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
      if (response.status !== 503 || wait === null || wait > MAX_WAIT) return response;
      if (request.method !== "GET" || attempt === ATTEMPTS) return response;
      await unlessAborted(pause(wait), request.signal);
    }
  }
}

/**
 * The session that a token response opens or goes on with.
 * @param {Response} response @param {number} asked when: a token is never taken for younger than it is
 * @returns {Promise<Session>} @throws {Unreachable}
 */
async function sessionOf(response, asked) {
  const tokens = await jsonOf(response);
  try {
    const life = tokens.expires_in * 1_000;
    const { sid: id, iat: issuedAt } = claimsOf(tokens.access_token);
    const { access_token: accessToken, scope, user } = tokens;
    return { id, accessToken, issuedAt, expiresAt: asked + life, life, scope, user };
  } catch (cause) {
    throw new Unreachable({ cause });
  }
}

/** A 200 without JSON is a captive portal, not the service. @param {Response} response @throws {Unreachable} */
async function jsonOf(response) {
  try {
    return await response.json();
  } catch (cause) {
    throw new Unreachable({ cause });
  }
}

/** 204 is the one answer that says so. @param {Response} response @throws {AuthError | Unreachable} */
async function done(response) {
  if (response.status !== 204) throw response.ok ? new Unreachable() : await refusal(response);
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

/** Seconds, a day at most, or null where the answer does not say. @param {Response} response */
function retryAfter(response) {
  const value = response.headers.get("Retry-After");
  return value !== null && /^\d+$/.test(value) ? Math.min(86_400, Number(value)) : null;
}

/** Never the same for all who were refused at one moment. @param {number} seconds */
function pause(seconds) {
  return new Promise((resolve) => setTimeout(resolve, seconds * 1_000 * (1 + Math.random() / 4)));
}

/**
 * `work`, or the signal's reason as soon as there is one.
 * @template T @param {Promise<T>} work @param {AbortSignal} signal @returns {Promise<T>}
 */
function unlessAborted(work, signal) {
  return new Promise((resolve, reject) => {
    const abort = () => reject(signal.reason);
    if (signal.aborted) abort();
    signal.addEventListener("abort", abort, { once: true });
    work.then(resolve, reject);
  });
}
