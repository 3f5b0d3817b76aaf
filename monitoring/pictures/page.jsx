// One dashboard on a page: Grafana's grid of 24 columns, its panels' frames, a notice that it is not Grafana.
import { ThemeContext, createTheme, dateTimeFormat } from "@grafana/data";
import { initPluginTranslations } from "@grafana/i18n";
import { PanelChrome } from "@grafana/ui";
import { useEffect } from "react";
import { createRoot } from "react-dom/client";
import "@fontsource/inter/latin-400.css";
import "@fontsource/inter/latin-500.css";
import "uplot/dist/uPlot.min.css";
import "./page.css";
import { framesOf } from "./frames.js";
import { Content } from "./panels.jsx";

const GAP = 8;
const WORDS = 38; // pixels of a description, where it is shown
const ROW = 30; // pixels of a unit of height, without the gap: Grafana's own figures
const WIDTH = document.documentElement.clientWidth - 2 * 16;
const COLUMN = (WIDTH + GAP) / 24 - GAP;

function place({ x, y, w, h }) {
  return {
    left: x * (COLUMN + GAP), top: y * (ROW + GAP), width: w * (COLUMN + GAP) - GAP, height: h * (ROW + GAP) - GAP,
  };
}

// Titles in order, one that recurs once with how often: "attempt 1, attempt 2", "loss (2 times)".
function counted(titles) {
  const times = new Map();
  for (const title of titles) times.set(title, (times.get(title) ?? 0) + 1);
  return [...times].map(([title, count]) => (count === 1 ? title : `${title} (${count} times)`)).join(", ");
}

function Board({ shown, drawn, theme }) {
  const { dashboard, window, values, annotations } = shown;
  useEffect(() => document.querySelector("#root").setAttribute("data-drawn", ""), []);
  const events = annotations.flatMap(({ annotation, events }) =>
    events.map((event) => ({ ...event, color: annotation.iconColor })));
  const bottom = Math.max(...dashboard.panels.map(({ gridPos }) => gridPos.y + gridPos.h));
  const time = (seconds, format) => dateTimeFormat(seconds * 1000, { timeZone: "utc", format });
  const labels = Object.fromEntries((dashboard.templating?.list ?? []).map((one) => [one.name, one.label ?? one.name]));
  return (
    <main style={{ background: theme.colors.background.canvas, color: theme.colors.text.primary }}>
      <header>
        <h1>{dashboard.title}</h1>
        <span className="time">{time(window.start, "YYYY-MM-DD HH:mm:ss")} to {time(window.end, "HH:mm:ss")} UTC</span>
      </header>
      <p className="notice" style={{ color: theme.colors.text.secondary }}>
        Drawn by @grafana/ui {shown.library} from this dashboard's JSON over the data of {shown.about}, asked of
        Prometheus. It is not a screenshot of Grafana.
      </p>
      <div className="variables">
        {Object.entries(values).map(([name, value]) => (
          <span key={name} style={{ background: theme.colors.background.primary, borderColor: theme.colors.border.weak }}>
            {labels[name]} <b>{value === ".*" ? "All" : value}</b>
          </span>
        ))}
        {annotations.map(({ annotation, events }) => (
          <span key={annotation.name} style={{ borderColor: "transparent" }}>
            <i style={{ background: theme.visualization.getColorByName(annotation.iconColor) }} />
            {annotation.name} <b>{counted(events.map((event) => event.title)) || "none"}</b>
          </span>
        ))}
      </div>
      <div className="grid" style={{ height: bottom * (ROW + GAP) }}>
        {drawn.map(({ panel, frames }, index) => {
          const box = place(panel.gridPos);
          if (panel.type === "row") return <h2 key={index} className="row" style={box}>{panel.title}</h2>;
          return (
            <div key={index} className="panel" style={box} title={panel.description}>
              <PanelChrome title={panel.title} width={box.width} height={box.height}>
                {(width, height) => (
                  <>
                    {shown.words && panel.type !== "stat" && <p className="words">{panel.description}</p>}
                    <Content
                      {...{ panel, frames, window, events, width }}
                      height={height - (shown.words && panel.type !== "stat" ? WORDS : 0)}
                    />
                  </>
                )}
              </PanelChrome>
            </div>
          );
        })}
      </div>
    </main>
  );
}

await initPluginTranslations("ratchet");
const shown = await (await fetch("/answers.json")).json();
const theme = createTheme({ colors: { mode: shown.theme } });
const drawn = await Promise.all(
  shown.panels.map(async (one) => ({ panel: one.panel, frames: await framesOf(one, theme) })),
);
await Promise.all([400, 500].map((weight) => document.fonts.load(`${weight} 14px Inter`)));
createRoot(document.querySelector("#root")).render(
  <ThemeContext.Provider value={theme}>
    <Board shown={shown} drawn={drawn} theme={theme} />
  </ThemeContext.Provider>,
);
