// Small helpers over the DOM. User data only ever enters the page as text nodes and attributes.

export const byId = (id) => document.getElementById(id);

/** A new element; `props` are attributes (true = present, false/null = absent, on* = listeners). */
export function el(tag, props = {}, ...children) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(props)) {
    if (value === null || value === undefined || value === false) continue;
    if (name.startsWith("on")) node.addEventListener(name.slice(2), value);
    else node.setAttribute(name, value === true ? "" : String(value));
  }
  node.append(...children.filter((child) => child !== null && child !== undefined));
  return node;
}

/** Shows a problem until it is dismissed or `clearAlert` is called; one that was told already is not told again. */
export function showAlert(error) {
  if (error?.isTold) return;
  const text = typeof error === "string" ? error : error?.message || "Something went wrong.";
  if (typeof error !== "string" && !error?.isApiError) console.error(error);
  const dismiss = el("button", { type: "button", "aria-label": "Dismiss", onclick: clearAlert }, "×");
  byId("alert").replaceChildren(el("span", {}, text), dismiss);
}

export function clearAlert() {
  byId("alert").replaceChildren();
}

/** Says a sentence to assistive technology without moving focus. */
export function announce(text) {
  byId("announcer").textContent = text;
}

/** Leaves an unchanged text alone, so that a live region does not repeat itself. */
export function setText(id, text) {
  const node = byId(id);
  if (node.textContent !== text) node.textContent = text;
}

/** False on phones: there Enter is the only way to a new line, and focus covers half the page with keys. */
export const prefersKeyboard = () => matchMedia("(pointer: fine)").matches;

export function excerpt(text, length = 80) {
  const flat = text.replace(/\s+/g, " ").trim();
  return flat.length > length ? `${flat.slice(0, length - 1)}…` : flat;
}

/** Runs `work(formData)` on submit, once at a time; a failure goes to `onError`. */
export function onSubmit(form, work, onError = showAlert) {
  let busy = false;
  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    if (busy) return;
    busy = true;
    clearAlert();
    form.setAttribute("aria-busy", "true");
    try {
      await work(new FormData(form));
    } catch (error) {
      onError(error);
    } finally {
      busy = false;
      form.removeAttribute("aria-busy");
    }
  });
}
