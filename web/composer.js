// The box that messages are written in, and what the next one answers:
// the newest message of the current thread, a message chosen with Reply, or nothing (a new thread).

import { api } from "./api.js";
import { byId, clearAlert, excerpt, prefersKeyboard, setText, showAlert } from "./dom.js";
import { authorOf } from "./thread.js";

const HINT = "Enter sends, Shift+Enter starts a new line";
const WAIT = "You can send when the answer is complete, or stop it";
const READ_ONLY = "You can read this conversation but not write in it";
const MAX_HEIGHT_PX = 240;

export class Composer {
  /** `onTarget(messageId | null)` hears of an explicitly chosen target; `onSent(answerId)` of a message taken. */
  constructor({ onTarget, onSent }) {
    this.onTarget = onTarget;
    this.onSent = onSent;
    this.box = byId("composer");
    this.sendButton = byId("send");
    this.forget();
    byId("composer-form").addEventListener("submit", (event) => {
      event.preventDefault();
      this.#send();
    });
    this.box.addEventListener("keydown", (event) => {
      // isComposing: an input method uses Enter to accept what it suggests.
      if (event.key === "Enter" && !event.shiftKey && !event.isComposing && prefersKeyboard()) {
        event.preventDefault();
        this.#send();
      } else if (event.key === "Escape" && this.#isChosen()) {
        this.#choose({ replyTo: null, newThread: false });
      }
    });
    this.box.addEventListener("input", () => this.#grow());
    byId("composer-new-thread").addEventListener("click", () => this.#choose({ replyTo: null, newThread: true }));
    byId("composer-follow").addEventListener("click", () => this.#choose({ replyTo: null, newThread: false }));
  }

  /** Starts on a conversation; `store` is read, never changed. */
  attach(conversationId, store, role) {
    if (this.conversationId !== conversationId) this.forget();
    Object.assign(this, { conversationId, store, readOnly: role === "viewer" });
    if (this.replyTo) this.replyTo = store.messages.get(this.replyTo.id) ?? null;
    this.onTarget(this.replyTo?.id ?? null);
    this.refresh();
  }

  /** Drops the draft and every choice of a target. */
  forget() {
    Object.assign(this, {
      conversationId: null, store: null, readOnly: false, sending: false,
      replyTo: null, newThread: false, rootId: null, awaited: null,
    });
    this.box.value = "";
    this.#grow();
  }

  reply(message) {
    this.#choose({ replyTo: message, newThread: false });
  }

  /** Call when messages have changed: the target, or whether it can be answered yet, may be another. */
  refresh() {
    if (!this.store) return;
    if (this.store.messages.has(this.awaited)) this.awaited = null;
    const target = this.#target();
    const wait = this.#mustWait(target);
    this.sendButton.disabled = this.readOnly || this.sending || wait;
    this.box.disabled = this.readOnly;
    setText("composer-hint", this.readOnly ? READ_ONLY : wait ? WAIT : prefersKeyboard() ? HINT : "");
    // What everybody expects, to go on below the last message shown, needs no words.
    setText("composer-target", target ? `Replying to ${authorOf(target)}: ${excerpt(target.content, 60)}` : "New thread");
    byId("composer-target").hidden = target === this.store.lowestMessage();
    byId("composer-new-thread").hidden = this.readOnly || !target;
    byId("composer-follow").hidden = this.store.messages.size === 0 || !this.#isChosen();
  }

  #isChosen() {
    return this.replyTo !== null || this.newThread;
  }

  #choose({ replyTo, newThread }) {
    Object.assign(this, { replyTo, newThread });
    this.onTarget(replyTo?.id ?? null);
    this.refresh();
    this.box.focus();
  }

  #target() {
    if (this.newThread) return null;
    return this.replyTo ?? this.store.lastMessage(this.rootId);
  }

  /** An unfinished answer is no context for the next question; nor is one that we have not been sent yet. */
  #mustWait(target) {
    if (this.newThread) return false;
    if (!this.replyTo && this.awaited) return true;
    return target !== null && target.state !== "done";
  }

  async #send() {
    const content = this.box.value;
    const { conversationId } = this;
    if (!this.store || this.sendButton.disabled || !content.trim()) return;
    const target = this.#target();
    this.sending = true;
    this.refresh();
    clearAlert();
    try {
      const posted = target ? await api.reply(target.id, content) : await api.postRoot(conversationId, content);
      if (this.conversationId !== conversationId) return;
      if (this.box.value === content) this.box.value = "";
      this.#grow();
      Object.assign(this, {
        replyTo: null, newThread: false, rootId: posted.root_id, awaited: posted.assistant_message_id,
      });
      this.onTarget(null);
      this.onSent(posted.assistant_message_id);
    } catch (error) {
      showAlert(error.status === 0 ? `${error.message} If your message is shown above, it was sent.` : error);
    } finally {
      if (this.conversationId === conversationId) {
        this.sending = false;
        this.refresh();
      }
    }
  }

  #grow() {
    this.box.style.height = "auto";
    if (this.box.value) this.box.style.height = `${Math.min(this.box.scrollHeight, MAX_HEIGHT_PX)}px`;
  }
}
