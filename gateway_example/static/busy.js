// A button at work takes no second press. It is not `disabled`: that would take the keyboard's focus away.

/** @param {HTMLButtonElement} button @param {() => Promise<void>} work */
export async function whileBusy(button, work) {
  if (button.getAttribute("aria-disabled") === "true") return;
  button.setAttribute("aria-disabled", "true");
  try {
    await work();
  } finally {
    button.removeAttribute("aria-disabled");
  }
}
