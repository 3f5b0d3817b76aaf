// Prometheus' answers as Grafana's data frames, with the panel's field options applied.
import {
  FieldType, applyFieldOverrides, cacheFieldDisplayNames, standardTransformers, standardTransformersRegistry,
  transformDataFrame,
} from "@grafana/data";
import { firstValueFrom } from "rxjs";
import { named } from "./ask.mjs";

// What Grafana's own panels assume where the JSON says nothing.
const CURVES = {
  drawStyle: "line", lineInterpolation: "linear", lineWidth: 1, fillOpacity: 0, gradientMode: "none", pointSize: 5,
  showPoints: "auto", axisPlacement: "auto", spanNulls: false, axisGridShow: undefined, axisBorderShow: false,
  stacking: { mode: "none", group: "A" }, thresholdsStyle: { mode: "off" }, scaleDistribution: { type: "linear" },
};
const COLORS = { timeseries: "palette-classic", table: "thresholds", stat: "thresholds", bargauge: "thresholds" };
// The options of a field that an override may set.
const OPTIONS = ["color", "displayName", "unit", "decimals", "min", "max", "noValue", "thresholds", "mappings", "links"];
const registry = {
  get: (id) => option(id), getIfExists: (id) => option(id), list: () => [],
};

function option(id) {
  const custom = id.startsWith("custom.");
  if (!custom && !OPTIONS.includes(id)) return undefined;
  return { id, path: custom ? id.slice("custom.".length) : id, isCustom: custom, process: (value) => value };
}

const TRANSFORMERS = [standardTransformers.mergeTransformer, standardTransformers.organizeFieldsTransformer];
standardTransformersRegistry.setInit(() =>
  TRANSFORMERS.map((transformation) => ({
    id: transformation.id, name: transformation.name, transformation: async () => transformation, editor: () => null,
    imageDark: "", imageLight: "",
  })),
);

/** The frames of one panel, ready to be drawn. */
export async function framesOf({ panel, answers }, theme) {
  let frames = answers.flatMap((answer) => (panel.type === "table" ? [wide(answer)] : series(answer, answers.length)));
  if (panel.transformations) frames = await firstValueFrom(transformDataFrame(panel.transformations, frames));
  const { custom, ...defaults } = panel.fieldConfig?.defaults ?? {};
  for (const frame of frames) {
    for (const field of frame.fields) {
      if (field.type === FieldType.time) continue;
      field.config = {
        color: { mode: COLORS[panel.type] }, ...structuredClone(defaults), ...field.config,
        custom: { ...(panel.type === "timeseries" ? CURVES : {}), ...custom },
      };
    }
  }
  frames = applyFieldOverrides({
    data: frames, theme, fieldConfig: { defaults: {}, overrides: panel.fieldConfig?.overrides ?? [] },
    fieldConfigRegistry: registry, replaceVariables: (text) => text, timeZone: "utc",
  });
  cacheFieldDisplayNames(frames);
  return frames;
}

// One frame a series, as Grafana makes of ranges and of instants alike.
function series({ target, series: found }) {
  return found.map(({ metric, values, value }) => {
    const { __name__, ...labels } = metric;
    const points = values ?? [value];
    const name = target.legendFormat ? named(target.legendFormat, metric) : text(labels) || __name__ || "Value";
    return {
      refId: target.refId, name, length: points.length,
      fields: [
        { name: "Time", type: FieldType.time, config: {}, values: points.map(([time]) => time * 1000) },
        { name: "Value", type: FieldType.number, labels, config: { displayNameFromDS: name },
          values: points.map(([, one]) => number(one)) },
      ],
    };
  });
}

function number(text) {
  const value = Number(text.replace("Inf", "Infinity"));
  return Number.isNaN(value) ? null : value;
}

function text(labels) {
  return Object.entries(labels).map(([name, value]) => `${name}="${value}"`).join(", ");
}

// One frame a target, its labels as columns.
function wide({ target, series: found }) {
  const labels = [...new Set(found.flatMap(({ metric }) => Object.keys(metric)))].sort();
  const column = (name, type, values) => ({ name, type, values, config: {} });
  return {
    refId: target.refId, length: found.length,
    fields: [
      column("Time", FieldType.time, found.map(({ value }) => value[0] * 1000)),
      ...labels.map((label) => column(label, FieldType.string, found.map(({ metric }) => metric[label] ?? ""))),
      column(`Value #${target.refId}`, FieldType.number, found.map(({ value }) => number(value[1]))),
    ],
  };
}

/** Adds to frames of curves nulls where an answer has no value, so that a gap is a gap. */
export function withGaps(frames, window) {
  return frames.map((frame) => {
    const [time, value] = frame.fields;
    const known = new Map(time.values.map((at, index) => [at, value.values[index]]));
    const times = [];
    for (let at = window.start; at <= window.end; at += window.step) times.push(at * 1000);
    return {
      ...frame, length: times.length,
      fields: [{ ...time, values: times }, { ...value, values: times.map((at) => known.get(at) ?? null) }],
    };
  });
}
