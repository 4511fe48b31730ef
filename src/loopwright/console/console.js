// Runs before the page is painted: light or dark as the system says, unless the reader has chosen.
(() => {
  const system = matchMedia("(prefers-color-scheme: dark)");
  const stored = () => { try { return localStorage.getItem("loopwright-theme"); } catch { return null; } };
  const dark = () => (stored() ? stored() === "dark" : system.matches);
  const zone = Intl.DateTimeFormat().resolvedOptions().timeZone || "";
  const report = () => window.emitEvent?.("reader", { dark: dark(), zone });
  const apply = () => {
    document.documentElement.dataset.theme = dark() ? "dark" : "light";
    const facts = encodeURIComponent(`${dark() ? "dark" : "light"} ${zone}`);
    document.cookie = `loopwright-reader=${facts}; path=/; max-age=31536000; SameSite=Lax`;
    report();
  };
  system.addEventListener("change", apply);
  window.loopwright = {
    report,
    toggle() {
      const next = dark() ? "light" : "dark";
      // Back to the system's own theme means to follow it again.
      try { if ((next === "dark") === system.matches) localStorage.removeItem("loopwright-theme"); else localStorage.setItem("loopwright-theme", next); } catch { /* private mode */ }
      apply();
    },
  };
  apply();
})();
// Buttons that change something post to the JSON interface, the one door that is guarded; the page then shows the news.
(() => {
  const said = (button, text, wrong) => {
    const place = button.parentElement?.querySelector(".act-said");
    if (place) { place.textContent = text; place.classList.toggle("wrong", wrong); }
  };
  const post = async (url, body) => {
    const answer = await fetch(url, { method: "POST", headers: { "Content-Type": "application/json" }, body });
    if (answer.ok) return answer;
    const found = await answer.json().catch(() => null);
    throw new Error(found?.error?.message || `${answer.status} ${answer.statusText}`);
  };
  const act = async (button) => {
    button.disabled = true;
    try {
      await post(button.dataset.act, button.dataset.body || "{}");
      said(button, "Done.", false);
    } catch (error) {
      said(button, error.message, true);
      button.disabled = false;
    }
  };
  const save = async (button) => {
    const sql = document.querySelector(".sql textarea")?.value || "";
    const chosen = document.querySelector(".tools .search .q-field__native span")?.textContent || "";
    const deployment = chosen && chosen !== "all deployments" ? chosen : null;
    try {
      const answer = await post("/api/sql", JSON.stringify({ sql, deployment, format: "csv" }));
      const link = document.createElement("a");
      link.href = URL.createObjectURL(await answer.blob());
      link.download = "predictions.csv";
      link.click();
      setTimeout(() => URL.revokeObjectURL(link.href), 1000);
      said(button, "", false);
    } catch (error) { said(button, error.message, true); }
  };
  document.addEventListener("click", (event) => {
    const button = event.target.closest?.("[data-act], [data-csv]");
    if (button) (button.dataset.act ? act : save)(button);
  });
})();
