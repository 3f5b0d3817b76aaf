// Asks Prometheus what a dashboard's JSON asks, as Grafana would: variables filled in, one answer a target.
// Decides nothing about looks. Times are seconds since 1970.

const SCRAPE_SECONDS = 2; // what the data source would be told about the rhythm of scrapes

/** What a window of time and the variables make of Grafana's placeholders. */
export function filled(text, window, values) {
  const builtIn = {
    __rate_interval: `${Math.max(window.step + SCRAPE_SECONDS, 4 * SCRAPE_SECONDS)}s`,
    __interval: `${window.step}s`,
    __range: `${window.end - window.start}s`,
  };
  const all = { ...builtIn, ...values };
  return text.replace(/\$\{?(\w+)\}?/g, (whole, name) => all[name] ?? whole);
}

/** {start, end} in whole seconds and the step in which Grafana would ask, for curves of `points` points. */
export function windowOf(start, end, points = 800) {
  const step = Math.max(SCRAPE_SECONDS, Math.ceil((end - start) / points));
  return { start: Math.floor(start / step) * step, end: Math.floor(end / step) * step, step };
}

/** Answers to a dashboard: {values of variables, panels with answers, annotations with events}. */
export async function ask(prometheus, dashboard, window) {
  const values = await variables(prometheus, dashboard, window);
  const panels = [];
  for (const panel of dashboard.panels) {
    const answers = [];
    for (const target of panel.targets ?? []) {
      const query = filled(target.expr, window, values);
      const result = target.instant
        ? await get(prometheus, "query", { query, time: window.end })
        : await get(prometheus, "query_range", { query, ...window });
      answers.push({ target, query, series: result.result });
    }
    panels.push({ panel, answers });
  }
  const annotations = [];
  for (const annotation of dashboard.annotations?.list ?? []) {
    annotations.push({ annotation, events: await events(prometheus, annotation, window, values) });
  }
  return { dashboard, window, values, panels, annotations };
}

async function variables(prometheus, dashboard, window) {
  const values = {};
  for (const variable of dashboard.templating?.list ?? []) {
    if (variable.type === "textbox") values[variable.name] = variable.query;
    if (variable.type !== "query") continue;
    if (variable.includeAll) {
      values[variable.name] = variable.allValue ?? ".*";
      continue;
    }
    const [, series, label] = /^label_values\((.*),\s*(\w+)\)$/.exec(filled(variable.query, window, values));
    const found = await get(prometheus, `label/${label}/values`, {
      "match[]": series, start: window.start, end: window.end,
    });
    values[variable.name] = found[0] ?? "";
  }
  return values;
}

// As Grafana reads an answer: every time with a value that is not 0 is an event, and events of one title that follow
// each other step by step are one region; or the value is the time, in milliseconds.
async function events(prometheus, annotation, window, values) {
  const query = filled(annotation.expr ?? annotation.target.expr, window, values);
  const { result } = await get(prometheus, "query_range", { query, ...window });
  const found = [];
  for (const { metric, values: points } of result) {
    const title = named(annotation.titleFormat ?? "", metric);
    let last;
    for (const [time, text] of points) {
      if (!Number(text)) continue;
      if (annotation.useValueForTime) {
        found.push({ from: Number(text) / 1000, to: Number(text) / 1000, title });
        continue;
      }
      if (last && time - last.to <= window.step) last.to = time;
      else found.push((last = { from: time, to: time, title }));
    }
  }
  return found.sort((a, b) => a.from - b.from);
}

/** A text with {{label}} in it. */
export function named(text, labels) {
  return text.replace(/\{\{\s*(\w+)\s*\}\}/g, (_, name) => labels[name] ?? "");
}

async function get(prometheus, what, asked) {
  const url = new URL(`/api/v1/${what}`, prometheus);
  for (const [name, value] of Object.entries(asked)) url.searchParams.set(name, value);
  const answer = await (await fetch(url)).json();
  if (answer.status !== "success") throw new Error(`${asked.query ?? what}: ${answer.error}`);
  return answer.data;
}
