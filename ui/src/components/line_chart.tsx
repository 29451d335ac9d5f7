/** Lines over a common axis, drawn by uPlot. */
import { useEffect, useRef } from "preact/hooks";
import uPlot from "uplot";
import "uplot/dist/uPlot.min.css";
import { categorical } from "../colour/scale";
import { theme } from "../colour/theme";
import { significant } from "../format/numbers";

export interface Line {
  label: string;
  /** One value for each x; null where there is none. */
  values: readonly (number | null)[];
}

export interface LineChartProps {
  /** What the chart shows, for those who do not see it. */
  label: string;
  x: readonly number[];
  xLabel: string;
  yLabel: string;
  lines: readonly Line[];
  height?: number;
  /** A logarithmic y axis, such as for ranks; values must be positive. */
  isLog?: boolean;
}

export function LineChart(props: LineChartProps) {
  const { label, x, xLabel, yLabel, lines, height = 260, isLog = false } = props;
  const box = useRef<HTMLDivElement>(null);
  const colours = theme.value;
  const shape = lines.map((line) => line.label).join("\n");
  const chart = useRef<uPlot | null>(null);
  const data = [x as number[], ...lines.map((line) => line.values as (number | null)[])] as uPlot.AlignedData;

  useEffect(() => {
    const element = box.current;
    if (!element) return undefined;
    const style = getComputedStyle(element);
    const ink = style.getPropertyValue("--ink-soft").trim();
    const grid = { stroke: style.getPropertyValue("--line").trim(), width: 1 };
    const axis = { stroke: ink, grid, ticks: grid, font: "11px system-ui", labelFont: "12px system-ui" };
    const format = (_: uPlot, values: (number | null)[]) => values.map((value) => (value === null ? "" : significant(value)));
    const plot = new uPlot(
      {
        width: element.clientWidth,
        height,
        scales: {
          x: { time: false },
          y: isLog ? { distr: 3 } : {},
        },
        axes: [
          {
            ...axis,
            label: xLabel,
            labelSize: 18,
            values: (_, values) => values.map((value) => (Number.isInteger(value) ? String(value) : "")),
          },
          { ...axis, label: yLabel, labelSize: 18, size: 62, values: format },
        ],
        series: [
          { label: xLabel },
          ...lines.map((line, i) => ({
            label: line.label,
            stroke: categorical(i, colours),
            width: 1.8,
            points: { show: x.length <= 80, size: 4 },
            value: (_: uPlot, value: number | null) => (value === null ? "–" : significant(value, 5)),
          })),
        ],
        cursor: { drag: { x: false, y: false } },
      },
      data,
      element,
    );
    chart.current = plot;
    const observer = new ResizeObserver(() => plot.setSize({ width: element.clientWidth, height }));
    observer.observe(element);
    return () => {
      observer.disconnect();
      plot.destroy();
      chart.current = null;
    };
  }, [shape, xLabel, yLabel, height, isLog, colours]);
  useEffect(() => {
    chart.current?.setData(data);
  }, [x, lines]);

  return <div ref={box} class="line-chart" role="img" aria-label={label} />;
}
