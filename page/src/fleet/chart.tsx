import "uplot/dist/uPlot.min.css";

import { useEffect, useRef } from "preact/hooks";
import uPlot from "uplot";

import { colour } from "../theme";
import type { Line } from "./series";

export interface Curve {
  name: string;
  /** A colour of the style that has a tint. */
  colour: string;
  values: Line;
  /** Whether the area below is filled. */
  filled?: boolean;
  stepped?: boolean;
}

const HEIGHT = 132;

/** A chart of the last `span` seconds before `now`; what it says stands in words beside it. */
export function Chart(props: {
  title: string;
  said: string;
  at: number[];
  now: number;
  span: number;
  curves: Curve[];
  /** The least that the scale reaches up to. */
  least: number;
  /** How a value is written on the scale. */
  written?: (value: number) => string;
}) {
  const place = useRef<HTMLDivElement>(null);
  const plot = useRef<uPlot | undefined>(undefined);
  const latest = useRef(props);
  latest.current = props;
  useEffect(() => {
    const element = place.current;
    if (!element) return;
    const draw = () => {
      plot.current?.destroy();
      plot.current = made(element, latest.current);
      show(plot.current, latest.current);
    };
    draw();
    const sized = new ResizeObserver(() => plot.current?.setSize({ width: element.clientWidth, height: HEIGHT }));
    sized.observe(element);
    document.addEventListener("theme", draw);
    return () => {
      sized.disconnect();
      document.removeEventListener("theme", draw);
      plot.current?.destroy();
      plot.current = undefined;
    };
  }, []);
  useEffect(() => {
    if (plot.current) show(plot.current, props);
  });
  return (
    <figure class="chart">
      <figcaption>
        <h3>{props.title}</h3>
        <p>{props.said}</p>
      </figcaption>
      <div ref={place} class="plot" aria-hidden="true" />
      {props.curves.length > 1 && (
        <ul class="legend" aria-hidden="true">
          {props.curves.map((curve) => (
            <li>
              <i style={{ background: `var(--${curve.colour})` }} />
              {curve.name}
            </li>
          ))}
        </ul>
      )}
    </figure>
  );
}

type Props = Parameters<typeof Chart>[0];

function show(plot: uPlot, { at, now, span, curves }: Props): void {
  plot.batch(() => {
    plot.setData([at, ...curves.map((curve) => curve.values)], false);
    plot.setScale("x", { min: now - span, max: now });
  });
}

function made(element: HTMLElement, props: Props): uPlot {
  const stepped = uPlot.paths.stepped?.({ align: 1 });
  const axis = {
    stroke: colour("muted"),
    font: `12px ${getComputedStyle(element).fontFamily}`,
    ticks: { show: false },
  };
  const options: uPlot.Options = {
    width: element.clientWidth,
    height: HEIGHT,
    padding: [8, 18, 0, 0],
    legend: { show: false },
    cursor: { show: false },
    scales: {
      x: { time: true, auto: false },
      // Nothing jumps between two samples: the scale goes on to the next round figure.
      y: { range: (_, __, most) => [0, roundUp(Math.max(most ?? 0, props.least))] },
    },
    axes: [
      {
        ...axis,
        grid: { show: false },
        size: 24,
        space: 80,
        values: (plot, at) => at.map((one) => ago(one - (plot.scales["x"]?.max ?? one))),
        splits: (_, __, from, to) => [0, 0.25, 0.5, 0.75].map((share) => to - (to - from) * (1 - share)).concat(to),
      },
      {
        ...axis,
        size: props.written ? 58 : 40,
        grid: { stroke: colour("line"), width: 1 },
        splits: (_, __, least, most) => [least, most / 2, most],
        values: (_, values) => values.map(props.written ?? ((value) => value.toLocaleString("en-GB"))),
      },
    ],
    series: [
      {},
      ...props.curves.map((curve) => ({
        stroke: colour(curve.colour),
        width: 1.5,
        points: { show: false },
        ...(curve.filled ? { fill: colour(`${curve.colour}-tint`) } : {}),
        ...(curve.stepped && stepped ? { paths: stepped } : {}),
      })),
    ],
  };
  return new uPlot(options, [[], ...props.curves.map(() => [])] as uPlot.AlignedData, element);
}

/** 1, 2, 4, 6, 10, 20 and so on: what halves evenly. */
function roundUp(value: number): number {
  const ten = 10 ** Math.floor(Math.log10(value));
  const step = [1, 2, 4, 6, 10].find((one) => one * ten >= value) ?? 10;
  return step * ten;
}

function ago(seconds: number): string {
  const past = Math.round(-seconds);
  if (past === 0) return "now";
  return past % 60 === 0 ? `−${past / 60} min` : `−${past} s`;
}
