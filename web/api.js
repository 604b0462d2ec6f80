// The HTTP API: JSON in and out, problem+json as ApiError, the CSRF header on every change.

const UNSAFE = new Set(["POST", "PUT", "PATCH", "DELETE"]);
let onSignedOut = () => {};

/** `status` 0 means that no answer came: the request may or may not have taken effect. */
export class ApiError extends Error {
  constructor(status, code, message) {
    super(message);
    this.name = "ApiError";
    this.isApiError = true;
    this.status = status;
    this.code = code;
    this.isTold = false; // true where `whenSignedOut` has told the person already
  }

  /** True when trying again later can help. Without a code a proxy answered: 404 while the service starts. */
  get isTemporary() {
    return this.status === 0 || this.status === 429 || this.status >= 500 || !this.code;
  }
}

/** `listener` is called whenever the server says that the session is over. */
export function whenSignedOut(listener) {
  onSignedOut = listener;
}

/** The token that changes carry; empty when nobody is signed in. */
export function csrfToken() {
  const found = document.cookie.split("; ").find((pair) => pair.startsWith("CSRF-TOKEN="));
  return found ? found.slice(found.indexOf("=") + 1) : "";
}

/** "body.user_name: Too short" is for programs; people read "User name: Too short". */
function plain(message) {
  return message.replace(/\bbody\.(\w)(\w*)/g, (_, first, rest) => first.toUpperCase() + rest.replaceAll("_", " "));
}

async function problemOf(response) {
  let problem = {};
  try {
    problem = await response.json();
  } catch {
    // A proxy's error page, or an empty body: the status has to do.
  }
  const message = problem.message || `The service is not ready (it answered ${response.status}).`;
  return new ApiError(response.status, problem.code || "", plain(message));
}

async function request(method, path, { body, signal } = {}) {
  const headers = { Accept: "application/json" };
  if (body !== undefined) headers["Content-Type"] = "application/json";
  if (UNSAFE.has(method)) headers["X-CSRF-TOKEN"] = csrfToken();
  let response;
  try {
    response = await fetch(path, {
      method,
      headers,
      signal,
      credentials: "same-origin",
      cache: "no-store",
      body: body === undefined ? undefined : JSON.stringify(body),
    });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new ApiError(0, "", "The server cannot be reached.");
  }
  if (!response.ok) {
    const problem = await problemOf(response);
    if (problem.status === 401 && path !== "/api/auth/login") {
      problem.isTold = true;
      onSignedOut();
    }
    throw problem;
  }
  const text = await response.text();
  return text ? JSON.parse(text) : null;
}

const get = (path, signal) => request("GET", path, { signal });
const post = (path, body) => request("POST", path, { body });
const part = encodeURIComponent;

/** `path?key=value…`, leaving out what is null or undefined. */
function withQuery(path, params) {
  const query = new URLSearchParams();
  for (const [key, value] of Object.entries(params)) {
    if (value !== null && value !== undefined) query.set(key, String(value));
  }
  const text = query.toString();
  return text ? `${path}?${text}` : path;
}

export const api = {
  setupState: () => get("/api/setup"),
  setup: (account) => post("/api/setup", account),
  login: (email, password) => post("/api/auth/login", { email, password }),
  logout: () => post("/api/auth/logout", {}),
  me: () => get("/api/auth/me"),
  createUser: (user) => post("/api/users", user),
  findUsers: (query) => get(withQuery("/api/users", { query })),

  conversations: () => get("/api/conversations"),
  createConversation: (title) => post("/api/conversations", { title }),
  conversation: (id, signal) => get(`/api/conversations/${part(id)}`, signal),
  addParticipant: (id, userId) =>
    post(`/api/conversations/${part(id)}/participants`, { user_id: userId, role: "member" }),
  removeParticipant: (id, userId) =>
    request("DELETE", `/api/conversations/${part(id)}/participants/${part(userId)}`),

  threads: (id, before, signal) =>
    get(withQuery(`/api/conversations/${part(id)}/threads`, { before }), signal),
  tree: (rootId, after, signal) => get(withQuery(`/api/threads/${part(rootId)}/tree`, { after }), signal),
  postRoot: (conversationId, content) => post(`/api/threads/${part(conversationId)}/root`, { content }),
  reply: (parentId, content) => post(`/api/messages/${part(parentId)}/reply`, { content }),
  cancel: (messageId) => post(`/api/messages/${part(messageId)}/cancel`, {}),
};
