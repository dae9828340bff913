if (window.self !== window.top) document.documentElement.dataset.framed = "yes";
// Airflow keeps the chosen theme here; a page in its frame follows it, also when it changes.
(() => {
  const follow = () => {
    const theme = localStorage.getItem("theme");
    if (theme === "dark" || theme === "light") document.documentElement.dataset.theme = theme;
    else delete document.documentElement.dataset.theme;
  };
  follow();
  addEventListener("storage", follow);
})();
