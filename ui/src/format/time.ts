/** Times and durations as the page shows them. */

/** `3 min ago`, `in 2 h`. `now` and the time in milliseconds. */
export function ago(time: number, now = Date.now()): string {
  const seconds = Math.round((now - time) / 1000);
  if (Math.abs(seconds) < 5) return "just now";
  const text = duration(Math.abs(seconds));
  return seconds < 0 ? `in ${text}` : `${text} ago`;
}

/** The largest unit, or two where the first is small: 42 s, 3 min, 1 h 20 min, 5 d. */
export function duration(seconds: number): string {
  const whole = Math.max(0, Math.round(seconds));
  if (whole < 60) return `${whole} s`;
  if (whole < 3600) return `${Math.floor(whole / 60)} min`;
  if (whole < 36_000) {
    const minutes = Math.floor((whole % 3600) / 60);
    return `${Math.floor(whole / 3600)} h${minutes ? ` ${minutes} min` : ""}`;
  }
  if (whole < 172_800) return `${Math.floor(whole / 3600)} h`;
  return `${Math.floor(whole / 86_400)} d`;
}

/** Date and time of the reader's own zone, to the second: 2026-11-30 14:03:22. */
export function dateTime(time: string | number): string {
  const date = new Date(time);
  if (Number.isNaN(date.getTime())) return String(time);
  const two = (value: number) => String(value).padStart(2, "0");
  const day = `${date.getFullYear()}-${two(date.getMonth() + 1)}-${two(date.getDate())}`;
  return `${day} ${two(date.getHours())}:${two(date.getMinutes())}:${two(date.getSeconds())}`;
}
