// Numbers and times as people read them.

export function count(n: number, one: string, many = `${one}s`): string {
  return `${n.toLocaleString("en-GB")} ${n === 1 ? one : many}`;
}

export function similarity(value: number): string {
  return value.toFixed(2);
}

export function duration(seconds: number): string {
  if (seconds < 10) return `${seconds.toFixed(1)} s`;
  if (seconds < 90) return `${Math.round(seconds)} s`;
  if (seconds < 5400) return `${Math.round(seconds / 60)} min`;
  return `${Math.round(seconds / 3600)} h`;
}

export function milliseconds(value: number): string {
  if (value < 1000) return `${Math.round(value)} ms`;
  return `${Number((value / 1000).toFixed(value < 10_000 ? 2 : 1))} s`;
}

export function day(at_ms: number): string {
  return new Date(at_ms).toLocaleDateString("en-GB", { day: "numeric", month: "short", year: "numeric" });
}

export function moment(at_ms: number): string {
  return new Date(at_ms).toLocaleString("en-GB", { dateStyle: "medium", timeStyle: "medium" });
}

export function clock(at_ms: number): string {
  return new Date(at_ms).toLocaleTimeString("en-GB");
}
