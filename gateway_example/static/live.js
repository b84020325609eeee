// The live connection: a WebSocket that the gateway closes, with 1008, once the session is revoked or its token expires.

const RETRY = 2_000;
/** Milliseconds without a tick, of which there is one a second, after which a connection is given up. */
const SILENCE = 5_000;
const POLICY_VIOLATION = 1008;

export class LiveConnection {
  #client;
  #show;
  #note;
  #socket = null;
  /** The newest one, which is to replace it. */
  #candidate = null;
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
    this.#candidate = socket;
    let opened = false;
    // A network that went away closes nothing: silence is all that is heard of it.
    let silence = 0;
    const giveUp = () => {
      socket.close();
      this.#closed(socket, opened);
    };
    const alive = () => {
      clearTimeout(silence);
      silence = setTimeout(giveUp, SILENCE);
    };
    alive();
    socket.addEventListener("open", () => {
      if (socket !== this.#candidate) return socket.close(1000);
      opened = true;
      const before = this.#socket;
      this.#socket = socket;
      before?.close(1000);
      this.#show("good", "Connected");
    });
    socket.addEventListener("message", ({ data }) => {
      alive();
      const { tick, at } = JSON.parse(data);
      const time = new Date(at).toLocaleTimeString(undefined, { hour12: false });
      if (socket === this.#socket) this.#show("good", "Connected", `Tick ${tick} at ${time}`);
    });
    socket.addEventListener("close", ({ code, reason }) => {
      clearTimeout(silence);
      this.#closed(socket, opened, code, reason);
    });
  }

  close() {
    this.#wanted = false;
    this.#socket?.close(1000);
    this.#socket = null;
    this.#candidate = null;
    this.#show("quiet", "Not connected");
  }

  async #closed(socket, opened, code, reason) {
    if (!this.#wanted || socket !== (opened ? this.#socket : this.#candidate)) return;
    this.#candidate = null;
    if (!opened && this.#socket) return; // the older connection is still good; should it end, there is another try
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
