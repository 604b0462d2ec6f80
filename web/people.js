// The participants of a conversation: who is in it, and, for its owner and admins, adding and removing.

import { api } from "./api.js";
import { announce, byId, clearAlert, el, onSubmit, showAlert } from "./dom.js";

const MANAGERS = new Set(["owner", "admin"]);
const nameOf = (user) => user.display_name || user.username;

export class PeoplePanel {
  constructor() {
    this.conversation = null;
    byId("people-toggle").addEventListener("click", () => this.#show(byId("people").hidden));
    onSubmit(byId("people-search"), async (form) => {
      const query = String(form.get("query")).trim();
      if (query) this.#results((await api.findUsers(query)).users);
    });
  }

  /** Shows a conversation as the server describes it. */
  attach(conversation, me) {
    if (this.conversation?.id !== conversation.id) {
      this.#show(false);
      byId("people-results").replaceChildren();
      byId("people-query").value = "";
    }
    Object.assign(this, { conversation, me });
    const manages = MANAGERS.has(conversation.role);
    byId("people-search").hidden = !manages;
    byId("people-toggle").textContent = `People (${conversation.participants.length})`;
    byId("participants").replaceChildren(...conversation.participants.map((person) => this.#row(person, manages)));
  }

  #show(open) {
    byId("people").hidden = !open;
    byId("people-toggle").setAttribute("aria-expanded", String(open));
  }

  #row(person, manages) {
    const self = person.user_id === this.me.id;
    const label = `${nameOf(person)}${self ? " (you)" : ""}`;
    const remove = manages && !self && person.role !== "owner"
      ? this.#button("Remove", `Remove ${label}`, () => this.#change(
        () => api.removeParticipant(this.conversation.id, person.user_id), `${label} was removed`))
      : null;
    return el("li", {}, el("span", {}, label), el("span", { class: "hint" }, person.role), remove);
  }

  #results(users) {
    const present = new Set(this.conversation.participants.map((person) => person.user_id));
    const rows = users.filter((user) => !present.has(user.id)).map((user) => {
      const add = this.#button("Add", `Add ${nameOf(user)}`, () => this.#change(
        () => api.addParticipant(this.conversation.id, user.id), `${nameOf(user)} was added`));
      const row = el("li", {}, el("span", {}, nameOf(user)), el("span", { class: "hint" }, user.username), add);
      add.addEventListener("done", () => row.remove());
      return row;
    });
    byId("people-results").replaceChildren(...(rows.length ? rows : [el("li", { class: "hint" }, "Nobody to add.")]));
    announce(`${rows.length} users found`);
  }

  #button(text, label, work) {
    const button = el("button", {
      type: "button",
      "aria-label": label,
      onclick: async () => {
        button.disabled = true;
        if (await work()) button.dispatchEvent(new Event("done"));
        button.disabled = false;
      },
    }, text);
    return button;
  }

  /** True when the change was made; the list is then read again. */
  async #change(work, done) {
    const { id } = this.conversation;
    clearAlert();
    try {
      await work();
      announce(done);
      const conversation = await api.conversation(id);
      if (this.conversation.id === id) this.attach(conversation, this.me);
      return true;
    } catch (error) {
      showAlert(error);
      return false;
    }
  }
}
