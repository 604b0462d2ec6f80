// The page: which view is shown, who is signed in, the list of conversations.

import { api, csrfToken, whenSignedOut } from "./api.js";
import { ConversationPage } from "./conversation.js";
import { byId, clearAlert, el, excerpt, onSubmit, prefersKeyboard, showAlert } from "./dom.js";
import { backoffMs, DurableStream } from "./stream.js";

const VIEWS = ["view-loading", "view-setup", "view-login", "view-app"];
const state = { me: null, lastUserId: null, inbox: null, conversations: null, streams: {} };

const page = new ConversationPage({
  onState: (value) => setStream("conversation", value),
  onActivity: moveToTop,
  onGone: () => {
    history.replaceState(null, "", "#/");
    route();
    refreshList();
  },
});

function showView(id) {
  for (const view of VIEWS) byId(view).hidden = view !== id;
}

function showForm(id) {
  showView(id);
  byId(id).querySelector("input").focus();
}

/** One word for the user: live only when every open stream is. */
function setStream(name, value) {
  if (value === null) delete state.streams[name];
  else state.streams[name] = value;
  const isLive = Object.values(state.streams).every((each) => each === "live");
  const node = byId("connection");
  if (isLive === (node.dataset.state === "live")) return;
  node.dataset.state = isLive ? "live" : "reconnecting";
  node.textContent = isLive ? "Connected" : "Reconnecting…";
}

function enter(user) {
  state.me = user;
  if (state.lastUserId !== user.id) page.composer.forget();
  state.lastUserId = user.id;
  byId("me").textContent = user.display_name || user.username;
  byId("create-user-open").hidden = !user.roles.includes("admin");
  showView("view-app");
  openInbox();
  route();
}

function openInbox() {
  state.inbox?.close();
  // Without a cursor it starts at now, so the list is read after each connection: nothing falls between.
  state.inbox = new DurableStream("/api/stream/me", {
    onEvent: (type, payload) => (type === "unread.update" ? noteActivity(payload) : refreshList()),
    onOpen: refreshList,
    onState: (value) => setStream("inbox", value),
    onReset: openInbox,
    probe: async () => {
      try {
        await api.me();
        return true;
      } catch (error) {
        return error.isTemporary;
      }
    },
  });
  state.inbox.open();
}

function leave() {
  state.inbox?.close();
  page.close();
  Object.assign(state, { me: null, inbox: null, conversations: null, streams: {} });
  document.title = "RustyGPT";
  byId("create-user").close();
  if (byId("view-login").hidden) showForm("view-login");
}

function currentId() {
  return /^#\/c\/([\w-]+)$/.exec(location.hash)?.[1] ?? null;
}

/** Shows what the address names: `#/c/<conversation id>`, `#/new`, or the list (beside which there is room for new). */
function route() {
  if (!state.me) return;
  const id = currentId();
  const isNew = location.hash === "#/new";
  byId("start").hidden = id !== null;
  byId("conversation").hidden = id === null;
  byId("view-app").classList.toggle("in-pane", id !== null || isNew);
  if (id === null) {
    page.close();
    setStream("conversation", null);
    document.title = "RustyGPT";
    if (isNew || prefersKeyboard()) byId("start-message").focus();
  } else if (id !== page.id) {
    page.open(id, state.me);
    if (prefersKeyboard()) byId("composer").focus();
  }
  drawList();
}

let listRequest = 0;

async function refreshList() {
  listRequest += 1;
  const mine = listRequest;
  try {
    const { conversations } = await api.conversations();
    if (mine !== listRequest || !state.me) return;
    state.conversations = conversations;
    drawList();
  } catch (error) {
    if (!error.isTemporary) showAlert(error);
  }
}

function drawList() {
  if (!state.conversations) return;
  const current = currentId();
  const focused = document.activeElement?.getAttribute("href");
  const items = state.conversations.map(({ id, title }) =>
    el("li", {}, el("a", { href: `#/c/${id}`, title, "aria-current": id === current ? "page" : null }, title)));
  const list = byId("conversation-list");
  list.replaceChildren(...(items.length ? items : [el("li", { class: "hint" }, "No conversations yet.")]));
  if (focused) [...list.querySelectorAll("a")].find((link) => link.getAttribute("href") === focused)?.focus();
}

/** Reading a thread, too, tells of it: only what is newer than known moves a conversation. */
function noteActivity({ conversation_id, last_activity_at }) {
  const known = state.conversations?.find((each) => each.id === conversation_id);
  if (!known || last_activity_at <= known.updated_at) return;
  known.updated_at = last_activity_at;
  moveToTop(conversation_id);
}

function moveToTop(id) {
  const at = state.conversations?.findIndex((each) => each.id === id) ?? -1;
  if (at <= 0) return;
  state.conversations.unshift(...state.conversations.splice(at, 1));
  drawList();
}

const account = (form) =>
  Object.fromEntries(["username", "email", "password"].map((name) => [name, String(form.get(name))]));

onSubmit(byId("setup-form"), async (form) => {
  const { username, email, password } = account(form);
  try {
    await api.setup({ username, email, password });
  } catch (error) {
    if (error.code === "RGP.SETUP.DONE") showForm("view-login");
    throw error;
  }
  showForm("view-login"); // what remains if signing in fails
  byId("setup-form").reset();
  enter((await api.login(email, password)).user);
});

onSubmit(byId("login-form"), async (form) => {
  enter((await api.login(String(form.get("email")).trim(), String(form.get("password")))).user);
  byId("login-form").reset();
});

// A conversation whose first message was refused: trying again goes on with it.
let begun = null;

onSubmit(byId("start-form"), async (form) => {
  const message = String(form.get("message"));
  const title = String(form.get("title")).trim() || excerpt(message, 60);
  if (!title) return byId("start-message").focus();
  begun ??= (await api.createConversation(title)).conversation_id;
  if (message.trim()) await api.postRoot(begun, message);
  byId("start-form").reset();
  location.hash = `#/c/${begun}`;
  begun = null;
  refreshList();
});
byId("start-message").addEventListener("keydown", (event) => {
  if (event.key !== "Enter" || event.shiftKey || event.isComposing || !prefersKeyboard()) return;
  event.preventDefault();
  byId("start-form").requestSubmit();
});

const createUserDialog = byId("create-user");
const createUserError = byId("create-user-error");
byId("create-user-open").addEventListener("click", () => {
  createUserError.textContent = "";
  createUserDialog.showModal();
});
byId("create-user-close").addEventListener("click", () => createUserDialog.close());
onSubmit(
  byId("create-user-form"),
  async (form) => {
    createUserError.textContent = "";
    const displayName = String(form.get("display_name")).trim();
    await api.createUser({
      ...account(form),
      display_name: displayName || null,
      is_admin: form.get("is_admin") !== null,
    });
    byId("create-user-form").reset();
    createUserDialog.close();
  },
  (error) => {
    createUserError.textContent = error.message; // the page's own alert lies behind the dialog
  },
);

byId("logout").addEventListener("click", async () => {
  clearAlert();
  try {
    await api.logout();
  } catch (error) {
    if (error.status !== 401) return showAlert(error);
  }
  page.composer.forget();
  leave();
});

async function boot() {
  for (let attempt = 0; ; attempt += 1) {
    try {
      if (!(await api.setupState()).is_setup) return showForm("view-setup");
      if (!csrfToken()) return showForm("view-login");
      const { user } = await api.me();
      clearAlert();
      return enter(user);
    } catch (error) {
      if (error.status === 401) return; // `leave` has shown the sign-in page
      showAlert(error);
      if (!error.isTemporary) return;
      await new Promise((resolve) => setTimeout(resolve, backoffMs(attempt)));
    }
  }
}

whenSignedOut(() => {
  if (state.me) showAlert("Your session has ended. Please sign in again.");
  leave();
});
window.addEventListener("hashchange", () => {
  clearAlert();
  route();
});
boot();
