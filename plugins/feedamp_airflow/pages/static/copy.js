// A button copies the field that it names. `navigator.clipboard` is missing where Airflow is served by plain HTTP, so
// the field is selected and copied as a person would; if the browser refuses, it stays selected.
for (const button of document.querySelectorAll("[data-copies]")) {
  button.hidden = false;
  button.addEventListener("click", () => {
    document.getElementById(button.dataset.copies).select();
    const isCopied = document.execCommand("copy");
    button.parentElement.querySelector("[role=status]").textContent = isCopied ? "Copied." : "Press Ctrl+C to copy it.";
  });
}
