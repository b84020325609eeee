// A word in a small frame, such as a scope.

/** @param {string} text */
export function badge(text) {
  const made = document.createElement("span");
  made.className = "badge";
  made.textContent = text;
  return made;
}
