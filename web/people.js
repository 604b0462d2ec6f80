// The participants of a conversation: who is in it, and, for its owner and admins, adding and removing.

import { api } from "./api.js";
import { announce, byId, clearAlert, el, showAlert } from "./dom.js";

const MANAGERS = new Set(["owner", "admin"]);
const TYPING_PAUSE_MS = 200;
const nameOf = (user) => user.display_name || user.username;

export class PeoplePanel {
  constructor() {
    this.conversation = null;
    this.query = byId("people-query");
    this.results = byId("people-results");
    byId("people-toggle").addEventListener("click", () => this.#show(byId("people").hidden));
    this.query.addEventListener("input", () => {
      clearTimeout(this.timer);
      this.timer = setTimeout(() => this.#search(), TYPING_PAUSE_MS);
    });
  }

  /** Shows a conversation as the server describes it. */
  attach(conversation, me) {
    if (this.conversation?.id !== conversation.id) this.#show(false);
    Object.assign(this, { conversation, me, manages: MANAGERS.has(conversation.role) });
    byId("people-search").hidden = !this.manages;
    byId("people-toggle").textContent = `People (${conversation.participants.length})`;
    byId("participants").replaceChildren(...conversation.participants.map((person) => this.#participant(person)));
    if (!byId("people").hidden) this.#search();
  }

  #show(open) {
    byId("people").hidden = !open;
    byId("people-toggle").setAttribute("aria-expanded", String(open));
    if (!open) return;
    this.query.value = "";
    this.#search();
  }

  /** Lists whom the name typed so far fits and who is not here yet; of nothing typed, the first people there are. */
  async #search() {
    if (!this.manages) return;
    const { conversation } = this;
    const query = this.query.value.trim();
    try {
      const { users } = await api.findUsers(query);
      if (conversation !== this.conversation || query !== this.query.value.trim()) return;
      const present = new Set(conversation.participants.map((person) => person.user_id));
      const found = users.filter((user) => !present.has(user.id)).map((user) => this.#found(user));
      this.results.replaceChildren(...(found.length ? found : [el("li", { class: "hint" }, "Nobody to add.")]));
    } catch (error) {
      showAlert(error);
    }
  }

  #participant(person) {
    const isMe = person.user_id === this.me.id;
    const name = nameOf(person);
    const remove = this.#button("Remove", `Remove ${name}`, `${name} was removed`, (conversationId) =>
      api.removeParticipant(conversationId, person.user_id));
    return el(
      "li", {}, el("span", {}, isMe ? `${name} (you)` : name), el("span", { class: "hint" }, person.role),
      this.manages && !isMe && person.role !== "owner" ? remove : null,
    );
  }

  #found(user) {
    const name = nameOf(user);
    const add = this.#button("Add", `Add ${name}`, `${name} was added`, (conversationId) =>
      api.addParticipant(conversationId, user.id));
    const alias = user.display_name ? el("span", { class: "hint" }, user.username) : null;
    return el("li", {}, el("span", {}, name), alias, add);
  }

  /** A button that changes who takes part; the conversation is then read again. */
  #button(text, label, done, change) {
    const click = async ({ currentTarget: button }) => {
      const { id } = this.conversation;
      button.disabled = true;
      clearAlert();
      try {
        await change(id);
        announce(done);
        const conversation = await api.conversation(id);
        if (this.conversation.id !== id) return;
        this.attach(conversation, this.me);
        byId("people-toggle").focus(); // the button that had the focus is gone
      } catch (error) {
        button.disabled = false;
        showAlert(error);
      }
    };
    return el("button", { type: "button", class: "quiet", "aria-label": label, onclick: click }, text);
  }
}
