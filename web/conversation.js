// One open conversation: a snapshot, then the events after its cursor.

import { api } from "./api.js";
import { Composer } from "./composer.js";
import { announce, byId, excerpt, showAlert } from "./dom.js";
import { PeoplePanel } from "./people.js";
import { ConversationStore, offsetOf } from "./store.js";
import { backoffMs, DurableStream } from "./stream.js";
import { authorOf, ThreadsView } from "./thread.js";

export class ConversationPage {
  /** `onState` hears of the stream, `onActivity(id)` of new messages, `onGone()` of a conversation we may not read. */
  constructor({ onState, onActivity, onGone }) {
    Object.assign(this, { onState, onActivity, onGone });
    this.view = new ThreadsView({
      onReply: (message) => this.composer.reply(message),
      onStop: (message) => this.#stop(message),
    });
    this.composer = new Composer({
      onTarget: (messageId) => this.view.markTarget(messageId),
      onSent: (answerId) => this.view.follow(answerId),
    });
    this.people = new PeoplePanel();
    this.id = null;
    this.older = byId("older");
    this.older.addEventListener("click", () => this.#showOlder());
  }

  open(id, me) {
    this.close();
    this.id = id;
    this.me = me;
    if (this.composer.conversationId !== id) this.composer.forget();
    this.view.clear();
    this.view.scrollToEnd();
    this.older.hidden = true;
    byId("conversation-title").textContent = "Loading…";
    this.#load();
  }

  close() {
    this.abort?.abort();
    this.stream?.close();
    this.id = this.stream = this.abort = null;
  }

  /** Reads the snapshot, trying again while the server is away, then follows the stream. */
  async #load() {
    this.abort?.abort();
    this.stream?.close();
    const abort = new AbortController();
    this.abort = abort;
    this.onState("reconnecting");
    for (let attempt = 0; ; attempt += 1) {
      try {
        const snapshot = await this.#snapshot(abort.signal);
        if (!abort.signal.aborted) this.#start(snapshot);
        return;
      } catch (error) {
        if (abort.signal.aborted) return;
        if (!error.isTemporary) return this.#failed(error);
        await new Promise((resolve) => setTimeout(resolve, backoffMs(attempt)));
        if (abort.signal.aborted) return;
      }
    }
  }

  async #snapshot(signal) {
    const { id } = this;
    const [conversation, page] = await Promise.all([api.conversation(id, signal), api.threads(id, null, signal)]);
    const store = new ConversationStore((kind, subject) => this.#changed(store, kind, subject));
    await Promise.all(page.threads.map((thread) => loadTree(store, thread.root_id, signal)));
    // The older cursor of the two: what the trees already hold is dropped by the store.
    const cursors = [conversation.cursor, page.cursor].sort((a, b) => offsetOf(a) - offsetOf(b));
    return { conversation, store, cursor: cursors[0], nextBefore: page.next_before };
  }

  #start({ conversation, store, cursor, nextBefore }) {
    Object.assign(this, { store, nextBefore });
    this.older.hidden = !nextBefore;
    byId("conversation-title").textContent = conversation.title;
    document.title = `${conversation.title} · RustyGPT`;
    this.people.attach(conversation, this.me);
    this.view.render(store);
    this.composer.attach(this.id, store, conversation.role);
    this.stream = new DurableStream(`/api/stream/conversations/${encodeURIComponent(this.id)}`, {
      after: cursor,
      onEvent: (type, payload, id) => this.#event(type, payload, id),
      onState: this.onState,
      onReset: () => this.#load(),
      probe: () => this.#mayRead(),
    });
    this.stream.open();
  }

  #event(type, payload, id) {
    if (type === "membership.changed") {
      this.#refreshPeople();
      return;
    }
    if (type === "conversation.updated") {
      this.#conversationUpdated(payload.conversation);
      return;
    }
    this.store.apply(type, payload, id);
    if (type === "message.created") {
      this.onActivity(this.id);
      const { message } = payload;
      if (message.role === "user" && message.author_id !== this.me.id) speak(message);
    } else if (type === "message.done") {
      const answer = this.store.messages.get(payload.message_id);
      if (answer) speak(answer);
    }
  }

  /** The store tells of every change; while a snapshot is being read nothing is drawn. */
  #changed(store, kind, subject) {
    if (store !== this.store) return;
    if (kind === "delta") {
      this.view.append(subject.message, subject.text);
    } else if (kind === "message") {
      this.view.update(store, subject);
      this.composer.refresh();
    } else if (kind === "unknown-root") {
      this.#fetchThread(store, subject);
    }
  }

  async #fetchThread(store, rootId) {
    try {
      await loadTree(store, rootId, this.abort.signal);
    } catch (error) {
      if (error.name !== "AbortError" && store === this.store) this.#load();
    }
  }

  async #showOlder() {
    const { store, abort } = this;
    this.older.disabled = true;
    try {
      await this.view.keepPlace(async () => {
        const page = await api.threads(this.id, this.nextBefore, abort.signal);
        const missing = page.threads.filter((thread) => !store.threads.has(thread.root_id));
        await Promise.all(missing.map((thread) => loadTree(store, thread.root_id, abort.signal)));
        if (store !== this.store) return;
        this.nextBefore = page.next_before;
        this.older.hidden = !page.next_before;
      });
    } catch (error) {
      if (error.name !== "AbortError") showAlert(error);
    } finally {
      this.older.disabled = false;
    }
  }

  #conversationUpdated({ title, deleted_at }) {
    if (deleted_at) {
      this.close();
      showAlert("This conversation was deleted.");
      this.onGone();
      return;
    }
    byId("conversation-title").textContent = title;
    document.title = `${title} · RustyGPT`;
  }

  async #refreshPeople() {
    const { id } = this;
    try {
      const conversation = await api.conversation(id);
      if (this.id !== id) return;
      this.people.attach(conversation, this.me);
      this.composer.attach(id, this.store, conversation.role);
    } catch (error) {
      if (this.id === id && !error.isTemporary) this.#failed(error);
    }
  }

  /** Asked when the stream is refused: false when no later attempt can succeed. */
  async #mayRead() {
    const { id } = this;
    try {
      await api.conversation(id);
      return true;
    } catch (error) {
      if (error.isTemporary) return true;
      if (this.id === id) this.#failed(error);
      return false;
    }
  }

  async #stop(message) {
    try {
      await api.cancel(message.id);
      return true;
    } catch (error) {
      showAlert(error);
      return false;
    }
  }

  #failed(error) {
    this.close();
    if (error.status === 401) return; // the sign-in page says enough
    showAlert(error);
    this.onGone();
  }
}

/** Once for each message, when it is whole: token by token would drown everything else. */
function speak(message) {
  announce(`${authorOf(message)}: ${excerpt(message.content, 300)}`);
}

/** Reads all pages of a thread into the store; events of it that come meanwhile are applied after. */
async function loadTree(store, rootId, signal) {
  store.startLoading(rootId);
  let after = null;
  do {
    const page = await api.tree(rootId, after, signal);
    store.addPage(page.messages, page.cursor);
    after = page.next_after;
  } while (after);
  store.finishLoading(rootId);
}
