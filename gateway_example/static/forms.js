// Forms: what is wrong is said next to the field it is about, in the service's own words.

import { whileBusy } from "./busy.js";

/**
 * Send a form through `send`, which gets its values; what `send` is refused is shown in the form.
 * @param {HTMLFormElement} form
 * @param {(values: Record<string, string>) => Promise<unknown>} send
 */
export function submitWith(form, send) {
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    whileBusy(form.querySelector("button:not([type=button])"), async () => {
      clearErrors(form);
      try {
        await send(Object.fromEntries(new FormData(form)));
        form.reset();
      } catch (error) {
        show(form, error);
      }
    });
  });
}

/** Forget what was typed, and what was wrong with it: it is the last user's. */
export function clearForms() {
  for (const form of document.forms) {
    form.reset();
    clearErrors(form);
  }
}

function clearErrors(form) {
  for (const place of form.querySelectorAll(".error")) place.textContent = "";
  for (const input of form.querySelectorAll("[aria-invalid]")) input.removeAttribute("aria-invalid");
}

function show(form, error) {
  const places = [...form.querySelectorAll(".error[data-for]")];
  let first = null;
  for (const [field, message] of Object.entries(error.fields ?? {})) {
    const place = places.find((candidate) => candidate.dataset.for.split(" ").includes(field));
    if (!place) continue;
    place.textContent = sentence(message === "taken" ? error.message : message);
    const input = form.querySelector(`[aria-describedby~="${place.id}"]`);
    input.setAttribute("aria-invalid", "true");
    first ??= input;
  }
  if (first) first.focus();
  else form.querySelector(".whole").textContent = waiting(error);
}

/** The service says already that one may try again; added is when. */
function waiting({ message, retryAfter }) {
  if (!retryAfter) return message;
  const rest = message.replace(/: (wait, then )?try again\.$/, ".");
  return `${rest} Try again in ${retryAfter} s.`;
}

function sentence(text) {
  return text.charAt(0).toUpperCase() + text.slice(1) + (text.endsWith(".") ? "" : ".");
}
