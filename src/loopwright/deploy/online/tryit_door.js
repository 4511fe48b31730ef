// Asks for a key where the server needs one, fetches the page with it, and puts that in place of this one.
(() => {
  "use strict";
  const form = document.getElementById("door");
  const said = document.getElementById("said");
  const input = document.getElementById("key");
  const bytes = (text) => String.fromCharCode(...new TextEncoder().encode(text));

  async function enter(key) {
    let answer;
    try {
      answer = await fetch(location.href, { headers: { "x-api-key": bytes(key), accept: "text/html" } });
    } catch (error) {
      said.textContent = `The server cannot be reached: ${error.message}`;
      return false;
    }
    if (!answer.ok) {
      said.textContent = answer.status === 401 ? "This key is not valid." : `The server answered ${answer.status}.`;
      return false;
    }
    const text = await answer.text();
    try { sessionStorage.setItem("key", key); } catch { /* then it is asked for again */ }
    document.open();
    document.write(text);
    document.close();
    return true;
  }

  form.addEventListener("submit", (event) => {
    event.preventDefault();
    if (input.value.trim()) enter(input.value.trim());
  });
  let kept = null;
  try { kept = sessionStorage.getItem("key"); } catch { /* storage may be forbidden */ }
  if (kept) {
    enter(kept).then((open) => {
      if (!open) try { sessionStorage.removeItem("key"); } catch { /* nothing was kept */ }
    });
  }
})();
