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
