// A box above the tables of a page that has <div id="filter">: only rows stay that fit what is typed or pasted.
// A row fits if it has all the words, or if its message, whose varying parts are "…", occurs in what was pasted.
(() => {
  const place = document.getElementById("filter");
  if (!place) return;
  const escaped = (text) => text.replace(/[.*+?^${}()|[\]\\]/g, "\\$&");
  const rows = [...place.parentElement.querySelectorAll("table tbody tr")].map((row) => {
    const code = row.querySelector("td code");
    const message = code ? code.textContent.toLowerCase() : "";
    const words = message.replaceAll("…", " ").match(/[a-z]{2,}/g) || [];
    const pattern = words.length > 2 ? new RegExp(message.split("…").map(escaped).join(".*?"), "s") : null;
    return { row, text: row.textContent.toLowerCase(), pattern };
  });
  const box = document.createElement("input");
  box.type = "search";
  box.className = "filter";
  box.placeholder = "a message, or some of its words";
  box.setAttribute("aria-label", "Show only the rows that fit");
  const count = document.createElement("p");
  count.setAttribute("role", "status");
  place.append(box, count);

  const show = () => {
    const asked = box.value.trim().toLowerCase().replace(/\s+/g, " ");
    const words = asked.split(" ");
    let shown = 0;
    for (const { row, text, pattern } of rows) {
      const fits = words.every((word) => text.includes(word)) || (pattern !== null && pattern.test(asked));
      row.hidden = asked !== "" && !fits;
      shown += row.hidden ? 0 : 1;
    }
    count.textContent = asked === "" ? "" : `${shown} of ${rows.length} rows`;
    // Of what stands between two headings nothing is left where no row is.
    let heading = null;
    let kept = true;
    for (const part of [...place.parentElement.children, null]) {
      if (part === null || /^H[23]$/.test(part.tagName)) {
        if (heading) heading.hidden = asked !== "" && !kept;
        heading = part;
        kept = false;
      } else if (part.matches(".md-typeset__scrollwrap, table")) {
        const some = part.querySelectorAll("tbody tr:not([hidden])").length > 0;
        part.hidden = asked !== "" && !some;
        kept = kept || some;
      } else if (heading) {
        part.hidden = asked !== "";
      }
    }
  };
  box.addEventListener("input", show);
})();
