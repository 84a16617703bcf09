/** Asks for the API key, in a dialog that stays open until the user has entered one. */

/**
 * @param {HTMLDialogElement} dialog
 * @param {boolean} refused whether the service has refused a key
 * @returns {Promise<string>}
 */
export function askForKey(dialog, refused) {
  const input = dialog.querySelector("input");
  dialog.querySelector("#key-refused").hidden = !refused;
  input.value = "";
  dialog.showModal();
  return new Promise((resolve) => {
    const take = (event) => {
      event.preventDefault();
      if (!input.value.trim()) return;
      dialog.removeEventListener("submit", take);
      dialog.onclose = null;
      dialog.close();
      resolve(input.value.trim());
    };
    dialog.addEventListener("submit", take);
    dialog.onclose = () => dialog.showModal(); // The Escape key closes it.
  });
}
