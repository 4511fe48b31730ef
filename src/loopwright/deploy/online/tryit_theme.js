// Runs before anything is drawn, so that the page never flashes in the other theme.
(() => {
  "use strict";
  let kept = null;
  try { kept = localStorage.getItem("theme"); } catch { /* storage may be forbidden */ }
  const dark = kept ? kept === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
  document.documentElement.dataset.theme = dark ? "dark" : "light";
  addEventListener("DOMContentLoaded", () => {
    const button = document.querySelector(".theme");
    const show = () => { button.textContent = document.documentElement.dataset.theme === "dark" ? "Dark" : "Light"; };
    button.addEventListener("click", () => {
      const next = document.documentElement.dataset.theme === "dark" ? "light" : "dark";
      document.documentElement.dataset.theme = next;
      try { localStorage.setItem("theme", next); } catch { /* then it holds for this page */ }
      show();
    });
    show();
  });
})();
