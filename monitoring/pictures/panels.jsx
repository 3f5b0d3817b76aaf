// Draws a panel's frames with the parts that Grafana's own panels are made of.
import { VizOrientation, dateTime, getDisplayValueAlignmentFactors, getFieldDisplayValues } from "@grafana/data";
import { BarGauge, BigValue, Table, TimeSeries, VizRepeater, useTheme2 } from "@grafana/ui";
import { useLayoutEffect } from "react";
import { withGaps } from "./frames.js";

const KINDS = { timeseries: Curves, stat: Stat, bargauge: Bars, table: Jobs };

/** What stands inside a panel of `width` and `height` pixels. */
export function Content({ panel, frames, window, events, width, height }) {
  const empty = frames.every((frame) => frame.length === 0);
  if (empty) return <Nothing text={panel.fieldConfig?.defaults?.noValue ?? "No data"} />;
  const Kind = KINDS[panel.type];
  return <Kind {...{ panel, frames, window, events, width, height }} />;
}

function Nothing({ text }) {
  return <div className="nothing">{text}</div>;
}

function Curves({ panel, frames, window, events, width, height }) {
  const from = dateTime(window.start * 1000);
  const to = dateTime(window.end * 1000);
  return (
    <TimeSeries
      frames={withGaps(frames, window)} width={width} height={height} timeZone="utc" legend={panel.options.legend}
      timeRange={{ from, to, raw: { from, to } }}
    >
      {(config) => <Marks config={config} events={events} />}
    </TimeSeries>
  );
}

// A dashed line where something happened, a shade where it lasted, a mark below: as Grafana shows annotations.
function Marks({ config, events }) {
  const theme = useTheme2();
  useLayoutEffect(() => {
    config.addHook("draw", (plot) => {
      const { ctx, bbox } = plot;
      ctx.save();
      for (const { from, to, color } of events) {
        const [left, right] = [from, to].map((at) => plot.valToPos(at * 1000, "x", true));
        if (right < bbox.left || left > bbox.left + bbox.width) continue;
        ctx.strokeStyle = ctx.fillStyle = theme.visualization.getColorByName(color);
        ctx.lineWidth = 1;
        ctx.setLineDash([4, 4]);
        for (const at of new Set([left, right])) {
          ctx.beginPath();
          ctx.moveTo(at, bbox.top);
          ctx.lineTo(at, bbox.top + bbox.height);
          ctx.stroke();
        }
        if (right > left) {
          ctx.globalAlpha = 0.1;
          ctx.fillRect(left, bbox.top, right - left, bbox.height);
          ctx.globalAlpha = 1;
        }
        ctx.beginPath();
        ctx.moveTo(left - 4, bbox.top + bbox.height + 5);
        ctx.lineTo(left + 4, bbox.top + bbox.height + 5);
        ctx.lineTo(left, bbox.top + bbox.height);
        ctx.fill();
      }
      ctx.restore();
    });
  }, [config, events, theme]);
  return null;
}

function valuesOf({ panel, frames, theme, sparkline }) {
  return getFieldDisplayValues({
    data: frames, theme, fieldConfig: { defaults: {}, overrides: [] }, reduceOptions: panel.options.reduceOptions,
    replaceVariables: (text) => text, timeZone: "utc", sparkline,
  });
}

function Stat({ panel, frames, width, height }) {
  const theme = useTheme2();
  const { options } = panel;
  const sparkline = options.graphMode !== "none";
  return (
    <VizRepeater
      getValues={() => valuesOf({ panel, frames, theme, sparkline })} source={frames} renderCounter={0} width={width}
      height={height} orientation={VizOrientation.Auto} autoGrid
      renderValue={({ value, width, height, count }) => (
        <BigValue
          value={value.display} sparkline={value.sparkline} width={width} height={height} theme={theme} count={count}
          colorMode={options.colorMode} graphMode={options.graphMode} justifyMode={options.justifyMode}
          textMode={options.textMode} text={options.text}
        />
      )}
    />
  );
}

function Bars({ panel, frames, width, height }) {
  const theme = useTheme2();
  const { options } = panel;
  return (
    <VizRepeater
      getValues={() => valuesOf({ panel, frames, theme })} source={frames} renderCounter={0} width={width}
      height={height} orientation={options.orientation} itemSpacing={8} minVizWidth={options.minVizWidth}
      minVizHeight={options.minVizHeight} maxVizHeight={options.maxVizHeight} getAlignmentFactors={getDisplayValueAlignmentFactors}
      renderValue={({ value, width, height, orientation, alignmentFactors }) => (
        <BarGauge
          value={value.display} field={value.field} display={value.view?.getFieldDisplayProcessor(value.colIndex ?? 0)}
          width={width} height={height} orientation={orientation} theme={theme} displayMode={options.displayMode}
          showUnfilled={options.showUnfilled ?? true} valueDisplayMode={options.valueMode ?? "color"}
          namePlacement={options.namePlacement ?? "auto"} text={options.text} itemSpacing={8}
          alignmentFactors={alignmentFactors}
        />
      )}
    />
  );
}

function Jobs({ panel, frames, width, height }) {
  return <Table data={frames[0]} width={width} height={height} initialSortBy={panel.options?.sortBy} />;
}
