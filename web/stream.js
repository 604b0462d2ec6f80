// A durable event stream: whatever breaks the connection, it goes on after the last event it handed out.
//
//   idle --open()--> connecting --headers--> live --cut--> connecting   (by EventSource, with Last-Event-ID)
//   live --stream.reconnect--> connecting                               (the server's connections have a capped life)
//   connecting --refused--> waiting --backoff, probe()--> connecting    (by us, with ?after=)
//   any --stream.reset--> closed, and the owner refetches its snapshot
//   any --close()--> closed
//
// A tab that is hidden gives its connection back (browsers allow six a host over HTTP/1.1) and resumes when shown.

const EVENTS = [
  "message.created", "message.updated", "message.deleted", "message.delta", "message.done",
  "conversation.updated", "membership.changed", "unread.update",
]; // and "error"
const BACKOFF_MIN_MS = 500;
const BACKOFF_MAX_MS = 8_000;
const RECONNECT_SPREAD_MS = 300;
const HIDDEN_GRACE_MS = 5_000;

/** The delay before attempt `n` (0, 1, …): doubling, capped, with up to 30 % taken off at random. */
export function backoffMs(n, random = Math.random) {
  return Math.min(BACKOFF_MAX_MS, BACKOFF_MIN_MS * 2 ** Math.min(n, 10)) * (1 - 0.3 * random());
}

export class DurableStream {
  /**
   * `onEvent(type, payload, id)` gets each event; `onState("live" | "reconnecting")` each change;
   * `onReset()` is called once, after which the stream is closed; `onOpen()` on every connection.
   * `probe()` is awaited before each retry of a refused connection: it resolves true to go on, false to give up.
   */
  constructor(path, { after = null, onEvent, onState = () => {}, onReset, onOpen = () => {}, probe }) {
    Object.assign(this, { path, lastId: after, onEvent, onState, onReset, onOpen, probe });
    this.source = null;
    this.timer = null;
    this.hiddenTimer = null;
    this.attempt = 0;
    this.closed = false;
    this.wake = () => this.#visibilityChanged();
  }

  open() {
    document.addEventListener("visibilitychange", this.wake);
    window.addEventListener("online", this.wake);
    this.#connect();
  }

  close() {
    this.closed = true;
    document.removeEventListener("visibilitychange", this.wake);
    window.removeEventListener("online", this.wake);
    clearTimeout(this.hiddenTimer);
    this.#disconnect();
  }

  #connect() {
    this.#disconnect();
    if (this.closed) return;
    this.onState("reconnecting");
    const query = this.lastId === null ? "" : `?after=${encodeURIComponent(this.lastId)}`;
    const source = new EventSource(this.path + query);
    this.source = source;
    source.onopen = () => {
      this.attempt = 0;
      this.onState("live");
      this.onOpen();
    };
    source.onerror = (event) => {
      // A server-sent `error` event has data; the connection's own error has none.
      if (typeof event.data === "string") return this.#deliver("error", event);
      this.onState("reconnecting");
      if (source.readyState === EventSource.CLOSED) this.#retryLater();
    };
    for (const type of EVENTS) source.addEventListener(type, (event) => this.#deliver(type, event));
    source.addEventListener("stream.reconnect", (event) => {
      if (event.lastEventId) this.lastId = event.lastEventId;
      this.#disconnect();
      this.onState("reconnecting");
      // A little later, so that the readers of a replica that drains do not all come back at once.
      this.timer = setTimeout(() => this.#connect(), Math.random() * RECONNECT_SPREAD_MS);
    });
    source.addEventListener("stream.reset", () => {
      this.close();
      this.onState("reconnecting");
      this.onReset();
    });
  }

  #disconnect() {
    clearTimeout(this.timer);
    this.timer = null;
    this.source?.close();
    this.source = null;
  }

  #deliver(type, event) {
    if (event.lastEventId) this.lastId = event.lastEventId;
    let payload;
    try {
      payload = JSON.parse(event.data).payload;
    } catch (error) {
      console.error("event that is not JSON", type, error);
      return;
    }
    this.onEvent(type, payload, event.lastEventId);
  }

  #retryLater() {
    this.#disconnect();
    this.timer = setTimeout(async () => {
      const goOn = this.probe ? await this.probe() : true;
      if (this.closed || this.source) return;
      if (goOn) this.#connect();
      else this.close();
    }, backoffMs(this.attempt++));
  }

  #visibilityChanged() {
    clearTimeout(this.hiddenTimer);
    if (document.hidden) {
      this.hiddenTimer = setTimeout(() => {
        this.#disconnect();
        this.onState("reconnecting");
      }, HIDDEN_GRACE_MS);
    } else if (!this.source || this.source.readyState === EventSource.CLOSED) {
      this.attempt = 0;
      this.#connect();
    }
  }
}
