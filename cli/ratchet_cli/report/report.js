// Hovering a curve, or moving over it with the arrow keys, shows its values. The page is complete without.
for (const svg of document.querySelectorAll("svg.curve")) {
  const [width, left, right] = [360, 46, 8];
  const from = Number(svg.dataset.from), span = Math.max(1, Number(svg.dataset.to) - from);
  const output = svg.parentNode.querySelector("output"), cursor = svg.querySelector(".cursor");
  const series = Object.keys(svg.dataset).filter((key) => /^s\d$/.test(key)).sort().map((key) => {
    const at = svg.dataset[key].lastIndexOf("|");
    const points = svg.dataset[key].slice(at + 1).split(";").map((pair) => pair.split(",").map(Number));
    return { name: svg.dataset[key].slice(0, at), points };
  });
  const steps = [...new Set(series.flatMap((one) => one.points.map((point) => point[0])))].sort((a, b) => a - b);
  let shown = steps.length;
  const nearest = (step) => {
    let low = 0, high = steps.length - 1;
    while (low < high) {
      const middle = (low + high) >> 1;
      if (steps[middle] < step) low = middle + 1; else high = middle;
    }
    return low > 0 && step - steps[low - 1] < steps[low] - step ? low - 1 : low;
  };
  const show = (index) => {
    shown = Math.min(steps.length - 1, Math.max(0, index));
    const step = steps[shown], x = left + ((step - from) / span) * (width - left - right);
    cursor.setAttribute("x1", x);
    cursor.setAttribute("x2", x);
    cursor.style.opacity = 0.6;
    const said = series.flatMap(({ name, points }) =>
      points.filter((point) => point[0] === step).map((point) => `${name} ${point[1]}`));
    output.textContent = `step ${step}: ${said.join(", ")}`;
  };
  const hide = () => {
    cursor.style.opacity = 0;
    output.textContent = "";
  };
  svg.addEventListener("pointermove", (event) => {
    const box = svg.getBoundingClientRect();
    const x = ((event.clientX - box.left) / box.width) * width;
    show(nearest(from + ((x - left) / (width - left - right)) * span));
  });
  svg.addEventListener("pointerleave", hide);
  svg.addEventListener("blur", hide);
  svg.addEventListener("keydown", (event) => {
    const move = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
    if (move) {
      event.preventDefault();
      show(shown + move);
    }
  });
}
