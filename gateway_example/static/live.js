// The live connection: a WebSocket that the gateway closes, with 1008, once the session is revoked or its token expires.

const RETRY = 2_000;
const POLICY_VIOLATION = 1008;

export class LiveConnection {
  #client;
  #show;
  #note;
  #socket = null;
  #wanted = false;

  /**
   * @param {import("./auth-client.js").AuthClient} client
   * @param {(tone: string, text: string, tick?: string) => void} show
   * @param {(tone: string, text: string) => void} note
   */
  constructor(client, show, note) {
    this.#client = client;
    this.#show = show;
    this.#note = note;
  }

  /** Connect with the token of now; a connection with an older one is closed once the new one is open. */
  async open() {
    this.#wanted = true;
    const token = await this.#client.accessToken().catch(() => null);
    if (!this.#wanted) return;
    if (!token) {
      setTimeout(() => this.#reopen(), RETRY);
      return;
    }
    const address = new URL("/api/live", location.href);
    address.protocol = address.protocol.replace("http", "ws");
    // A browser's WebSocket takes no headers: the token is the second of its subprotocols.
    const socket = new WebSocket(address, ["bearer", token]);
    let opened = false;
    socket.addEventListener("open", () => {
      opened = true;
      const before = this.#socket;
      this.#socket = socket;
      before?.close(1000);
      if (!this.#wanted) socket.close(1000);
      else this.#show("good", "Connected");
    });
    socket.addEventListener("message", ({ data }) => {
      const { tick, at } = JSON.parse(data);
      const time = new Date(at).toLocaleTimeString(undefined, { hour12: false });
      if (socket === this.#socket) this.#show("good", "Connected", `Tick ${tick} at ${time}`);
    });
    socket.addEventListener("close", ({ code, reason }) => this.#closed(socket, opened, code, reason));
  }

  close() {
    this.#wanted = false;
    this.#socket?.close(1000);
    this.#socket = null;
    this.#show("quiet", "Not connected");
  }

  async #closed(socket, opened, code, reason) {
    if (!this.#wanted || (opened && socket !== this.#socket)) return;
    this.#socket = null;
    this.#show("warning", "Connection lost");
    try {
      if (code === POLICY_VIOLATION) {
        this.#note("warning", `The gateway closed the live connection${reason ? `: ${reason}` : ""}. Asking the issuer…`);
        if (await this.#client.refresh()) await this.open();
      } else {
        setTimeout(() => this.#reopen(), RETRY);
        // A handshake that was refused has no code; the same token on a plain request tells why.
        if (!opened) await this.#client.fetch("/api/me");
      }
    } catch {
      setTimeout(() => this.#reopen(), RETRY); // the issuer or the gateway is away
    }
  }

  #reopen() {
    if (this.#wanted && this.#socket === null) this.open();
  }
}
