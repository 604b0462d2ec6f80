// Draws the threads of a conversation, one section for each root message, the newest last.

import { byId, el, excerpt } from "./dom.js";
import { branchLevel } from "./store.js";

const MAX_INDENT = 4; // deeper branches stay readable at 360 px
const NEAR_PX = 80; // scrolled away no further than this, new text is still followed
const ENDINGS = {
  length: "Cut off at the length limit",
  cancelled: "Stopped",
  timeout: "Took too long",
  error: "Failed",
};

export const authorOf = (message) =>
  message.role === "assistant" ? message.author_name || "Assistant" : message.author_name || message.role;

function statusOf(message) {
  if (message.deleted_at) return "Deleted";
  if (message.error) return message.error;
  if (message.state === "queued") return "Waiting…";
  if (message.state === "streaming") return "Answering…";
  return ENDINGS[message.finish_reason] ?? (message.edited_at ? "Edited" : "");
}

export class ThreadsView {
  /** `onReply(message)` and `onStop(message)` are called for the buttons. */
  constructor({ onReply, onStop }) {
    this.container = byId("threads");
    this.scroller = byId("scroller");
    this.onReply = onReply;
    this.onStop = onStop;
    this.lastTop = 0;
    this.clear();
    this.scrollToEnd();
    this.scroller.addEventListener("scroll", () => this.#scrolled());
    // A growing composer or a turned phone makes the list shorter: keep in view what was.
    new ResizeObserver(() => this.#follow()).observe(this.scroller);
  }

  clear() {
    this.sections = new Map(); // root id -> {node, ordinal}
    this.parts = new Map(); // message id -> its nodes
    this.container.replaceChildren();
    byId("threads-empty").hidden = true;
  }

  /** Draws everything anew. */
  render(store) {
    this.clear();
    for (const messages of store.threads.values()) for (const message of messages) this.update(store, message);
    byId("threads-empty").hidden = store.messages.size > 0;
    this.#follow();
  }

  /** Draws a message that is new or has changed. */
  update(store, message) {
    byId("threads-empty").hidden = true;
    let parts = this.parts.get(message.id);
    if (!parts) {
      parts = this.#build(store, message);
      this.parts.set(message.id, parts);
      this.#place(store, message, parts.node);
      if (message.id === this.followedId) parts.node.scrollIntoView({ block: "nearest" });
    }
    if (parts.text.data !== message.content) parts.text.data = message.content;
    const running = message.state !== "done";
    parts.node.dataset.state = message.state;
    parts.node.setAttribute("aria-busy", String(running));
    parts.reply.hidden = running || Boolean(message.deleted_at);
    parts.status.textContent = statusOf(message);
    if (!message.parent_id) this.#name(message);
    parts.status.classList.toggle("error", Boolean(message.error) || message.finish_reason === "error");
    if (running && message.role === "assistant" && !parts.stop) {
      parts.stop = this.#stopButton(message);
      parts.footer.append(parts.stop);
    } else if (!running && parts.stop) {
      if (document.activeElement === parts.stop) parts.reply.focus({ preventScroll: true });
      parts.stop.remove();
      parts.stop = null;
    }
    this.#follow();
  }

  /** Adds text that has just arrived. */
  append(message, text) {
    this.parts.get(message.id)?.text.appendData(text);
    this.#follow();
  }

  /** Marks the message that the composer answers (or none). */
  markTarget(messageId) {
    this.container.querySelector(".message.target")?.classList.remove("target");
    this.parts.get(messageId)?.node.classList.add("target");
  }

  /** From here on the end of the page stays in view as it grows, until the user scrolls away. */
  scrollToEnd() {
    this.follow(null);
  }

  /** The same with the end of one message, which may come later; it need not be the last of the page. */
  follow(messageId) {
    this.followedId = messageId;
    this.isFollowing = true;
    this.parts.get(messageId)?.node.scrollIntoView({ block: "nearest" });
    this.#follow();
  }

  /** Runs `change` (which adds something above) without moving what the user looks at. */
  async keepPlace(change) {
    const fromBottom = this.scroller.scrollHeight - this.scroller.scrollTop;
    this.isFollowing = false;
    await change();
    this.scroller.scrollTop = this.scroller.scrollHeight - fromBottom;
  }

  /** Only going up is the user's wish to stay there: what is shown also moves when its box becomes smaller. */
  #scrolled() {
    const { scrollTop } = this.scroller;
    const wentUp = scrollTop < this.lastTop;
    this.lastTop = scrollTop;
    if (this.#below(this.container) < NEAR_PX) this.followedId = null;
    if (this.#below(this.#followed()) < NEAR_PX) this.isFollowing = true;
    else if (wentUp) this.isFollowing = false;
  }

  #follow() {
    if (!this.isFollowing || this.frame) return;
    this.frame = requestAnimationFrame(() => {
      this.frame = null;
      if (this.isFollowing) this.scroller.scrollTop += Math.max(0, this.#below(this.#followed()));
    });
  }

  #followed() {
    return this.followedId === null ? this.container : this.parts.get(this.followedId)?.node;
  }

  /** How far the end of an element lies below the visible part, in pixels; 0 for one that is not there yet. */
  #below(node) {
    if (!node) return 0;
    return node.getBoundingClientRect().bottom - this.scroller.getBoundingClientRect().bottom;
  }

  #build(store, message) {
    const text = document.createTextNode(message.content);
    const author = el("strong", { id: `author-${message.id}` }, authorOf(message));
    const status = el("span", { class: "status" });
    const reply = el(
      "button",
      { type: "button", class: "quiet", "data-testid": "reply", onclick: () => this.onReply(message) },
      "Reply",
    );
    const footer = el("footer", {}, reply);
    const node = el(
      "article",
      {
        class: "message",
        "data-testid": "message",
        "data-role": message.role,
        "data-message-id": message.id,
        "data-level": Math.min(branchLevel(message.path), MAX_INDENT),
        "aria-labelledby": author.id,
      },
      el("header", {}, author, timeOf(message), status),
      this.#branchNote(store, message),
      el("div", { class: "content", "data-testid": "content" }, text),
      footer,
    );
    return { node, text, status, footer, reply, stop: null };
  }

  /** Where a second or later answer to a message begins, it says which message it answers. */
  #branchNote(store, message) {
    const parent = store.messages.get(message.parent_id);
    if (!parent || message.path.at(-1) === 1) return null;
    return el("p", { class: "hint" }, `↳ in reply to ${authorOf(parent)}: ${excerpt(parent.content, 60)}`);
  }

  #stopButton(message) {
    const button = el(
      "button",
      {
        type: "button",
        class: "quiet",
        "data-testid": "stop",
        onclick: async () => {
          button.disabled = true;
          if (!(await this.onStop(message))) button.disabled = false;
        },
      },
      "Stop",
    );
    return button;
  }

  #place(store, message, node) {
    const section = this.#section(message);
    const thread = store.threads.get(message.root_id);
    for (let i = thread.indexOf(message) + 1; i < thread.length; i += 1) {
      const next = this.parts.get(thread[i].id)?.node;
      if (next) return section.insertBefore(node, next);
    }
    return section.append(node);
  }

  #section(message) {
    const known = this.sections.get(message.root_id);
    if (known) return known.node;
    const ordinal = message.path[0];
    const heading = el("h2", { class: "thread-title", "data-testid": "thread-title", hidden: true });
    const attributes = { class: "thread", "aria-label": `Thread ${ordinal}`, "data-root-id": message.root_id };
    const node = el("section", attributes, heading);
    let next = null;
    for (const other of this.sections.values()) {
      if (other.ordinal > ordinal && (!next || other.ordinal < next.ordinal)) next = other;
    }
    this.container.insertBefore(node, next?.node ?? null);
    this.sections.set(message.root_id, { node, ordinal, heading });
    return node;
  }

  /** The thread's title stands above it once the model, or a person, has given it one. */
  #name(root) {
    const { node, ordinal, heading } = this.sections.get(root.root_id);
    heading.textContent = root.title ?? "";
    heading.hidden = !root.title;
    node.setAttribute("aria-label", root.title ?? `Thread ${ordinal}`);
  }
}

function timeOf(message) {
  const when = new Date(message.created_at);
  if (Number.isNaN(when.getTime())) return null;
  const today = when.toDateString() === new Date().toDateString();
  const text = today
    ? when.toLocaleTimeString([], { hour: "2-digit", minute: "2-digit" })
    : when.toLocaleString([], { dateStyle: "short", timeStyle: "short" });
  return el("time", { datetime: message.created_at, title: when.toLocaleString() }, text);
}
