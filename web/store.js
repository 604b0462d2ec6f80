// What is known of one conversation: its threads and messages, made of a snapshot and the events after it.
// No DOM here: `node --test` can drive it.
//
// Guarantee: an event changes a message once. Each message remembers the offset it is current as of (the cursor
// of the page it came in, then the last event applied), and events at or before that are dropped.

/** The number in an event id or cursor; what stands before it (an epoch) only ever changes with a reset. */
export function offsetOf(id) {
  const digits = /(\d+)$/.exec(String(id ?? ""));
  return digits ? Number(digits[1]) : 0;
}

/** Depth-first order: plain array order of paths. */
export function comparePaths(a, b) {
  const shared = Math.min(a.length, b.length);
  for (let i = 0; i < shared; i += 1) if (a[i] !== b[i]) return a[i] - b[i];
  return a.length - b.length;
}

/** How often the way from the root left the first branch: what the page indents by. */
export function branchLevel(path) {
  return path.slice(1).filter((ordinal) => ordinal > 1).length;
}

export class ConversationStore {
  /** `listener(kind, subject)`: ("message", message), ("delta", {message, text}), ("unknown-root", rootId). */
  constructor(listener) {
    this.listener = listener;
    this.messages = new Map();
    this.threads = new Map(); // root id -> messages in path order
    this.loading = new Map(); // root id -> events held back until its tree is here
  }

  /** Events of this thread wait from now on, until `finishLoading`. */
  startLoading(rootId) {
    if (!this.loading.has(rootId)) this.loading.set(rootId, []);
  }

  addPage(messages, cursor) {
    const asOf = offsetOf(cursor);
    for (const message of messages) this.#put(message, asOf);
  }

  finishLoading(rootId) {
    const held = this.loading.get(rootId) ?? [];
    this.loading.delete(rootId);
    for (const [type, payload, id] of held) this.apply(type, payload, id);
  }

  /** Takes one event of the stream. */
  apply(type, payload, id) {
    const rootId = payload.root_id ?? payload.message?.root_id ?? this.messages.get(payload.message_id)?.root_id;
    if (this.loading.has(rootId)) {
      this.loading.get(rootId).push([type, payload, id]);
      return;
    }
    const offset = offsetOf(id);
    if (type === "message.created") this.#created(payload.message, offset, [type, payload, id]);
    else if (type === "message.updated" && this.threads.has(rootId)) this.#put(payload.message, offset);
    else if (type === "message.deleted") {
      this.#update(payload.message_id, offset, { content: "", deleted_at: payload.deleted_at });
    } else if (type === "message.delta") this.#delta(payload, offset);
    else if (type === "message.done") this.#done(payload, offset);
    else if (type === "error" && payload.message_id) {
      this.#update(payload.message_id, offset, { error: payload.message });
    }
  }

  /** What a follow-up answers: the newest message that was not deleted (of a thread, if given). */
  lastMessage(rootId = null) {
    let last = null;
    for (const message of this.threads.get(rootId) ?? this.messages.values()) {
      if (!message.deleted_at && (!last || message.seq > last.seq)) last = message;
    }
    return last;
  }

  /** The last of the page: threads and messages are shown in the order of their paths. */
  lowestMessage() {
    let lowest = null;
    for (const message of this.messages.values()) {
      if (!lowest || comparePaths(message.path, lowest.path) > 0) lowest = message;
    }
    return lowest;
  }

  #created(message, offset, event) {
    if (this.threads.has(message.root_id) || !message.parent_id) {
      this.#put(message, offset);
      return;
    }
    // A reply in a thread older than the ones shown: the whole thread is fetched, and this waits for it.
    this.loading.set(message.root_id, [event]);
    this.listener("unknown-root", message.root_id);
  }

  #delta(payload, offset) {
    const message = this.messages.get(payload.message_id);
    if (!message || offset <= message.asOf) return;
    const text = payload.choices?.[0]?.delta?.content ?? "";
    const changedState = message.state !== "streaming";
    message.asOf = offset;
    message.content += text;
    message.state = "streaming";
    if (text) this.listener("delta", { message, text });
    if (changedState) this.listener("message", message);
  }

  #done(payload, offset) {
    const { finish_reason, usage } = payload;
    this.#update(payload.message_id, offset, { state: "done", finish_reason, usage });
  }

  #update(messageId, offset, changes) {
    const message = this.messages.get(messageId);
    if (!message || offset <= message.asOf) return;
    Object.assign(message, changes, { asOf: offset });
    this.listener("message", message);
  }

  #put(view, asOf) {
    const known = this.messages.get(view.id);
    if (known) {
      if (asOf <= known.asOf) return;
      Object.assign(known, view, { asOf });
      this.listener("message", known);
      return;
    }
    const message = { ...view, content: view.content ?? "", asOf };
    this.messages.set(message.id, message);
    const thread = this.threads.get(message.root_id) ?? [];
    this.threads.set(message.root_id, thread);
    let at = thread.length;
    while (at > 0 && comparePaths(thread[at - 1].path, message.path) > 0) at -= 1;
    thread.splice(at, 0, message);
    this.listener("message", message);
  }
}
