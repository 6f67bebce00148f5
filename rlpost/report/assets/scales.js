// Numbers to text and to positions: formats, ticks, linear and logarithmic scales.

const GROUPED = new Intl.NumberFormat("en", { maximumFractionDigits: 0 });

/** A number as a reader wants it; units: share, seconds, count or none. */
function show(value, unit) {
  if (value === null || value === undefined) return "–";
  if (unit === "share") return trimmed(value * 100, value * 100 < 9.95 ? 2 : 3) + " %";
  if (unit === "seconds") return trimmed(value, 3) + " s";
  if (unit === "count" || (Number.isInteger(value) && Math.abs(value) < 1e7)) return GROUPED.format(value).replace("-", "−");
  return trimmed(value, 4);
}

/** Significant digits without trailing noise; exponents only where they help. */
function trimmed(value, digits) {
  if (value === 0) return "0";
  const size = Math.abs(value);
  if (Number.isInteger(value) && size < 1e6) return GROUPED.format(value).replace("-", "−");
  if (size < 1e-3 || size >= 1e6) {
    const [mantissa, exponent] = value.toExponential(Math.min(2, digits - 1)).split("e");
    return (Number(mantissa) + "e" + Number(exponent)).replaceAll("-", "−");
  }
  return value.toLocaleString("en", { maximumSignificantDigits: digits, minimumSignificantDigits: Math.min(digits, 2) })
    .replace("-", "−");
}

/** The text of an axis tick; short. */
function tickText(value, unit) {
  if (value === 0) return unit === "share" ? "0 %" : "0";
  if (unit === "share") return Number((value * 100).toPrecision(3)) + " %";
  const size = Math.abs(value);
  const text = size >= 1e4 ? Number((value / 1e3).toPrecision(3)) + "k"
    : size < 1e-3 ? value.toExponential(0).replace("+", "") : String(Number(value.toPrecision(3)));
  return text.replaceAll("-", "−") + (unit === "seconds" ? " s" : "");
}

/** Round positions in [low, high], about `count` of them. */
function linearTicks(low, high, count) {
  const rough = (high - low) / count;
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 2.5, 5, 10].map((factor) => factor * power).find((size) => size >= rough * 0.999);
  const ticks = [];
  for (let k = Math.ceil(low / step - 1e-9); k * step <= high + step * 1e-9; k++) ticks.push(Number((k * step).toPrecision(12)));
  return ticks;
}

/** Powers of ten in [low, high], at most about `count`; where there are fewer than two, 2 and 5 times
    powers of ten too, and round numbers where even these are too few. */
function logTicks(low, high, count) {
  const first = Math.ceil(Math.log10(low) - 1e-9), last = Math.floor(Math.log10(high) + 1e-9);
  const stride = Math.max(1, Math.ceil((last - first + 1) / count));
  const ticks = [];
  for (let power = first; power <= last; power += stride) ticks.push(10 ** power);
  if (ticks.length >= 2) return ticks;
  for (let power = first - 1; power <= last + 1; power++) for (const factor of [1, 2, 5]) {
    const tick = Number((factor * 10 ** power).toPrecision(6));
    if (tick >= low && tick <= high && !ticks.includes(tick)) ticks.push(tick);
  }
  return ticks.length >= 2 ? ticks.sort((a, b) => a - b) : linearTicks(low, high, count);
}

/** A value axis over [low, high] drawn from pixel `bottom` up to `top`. */
function valueScale(low, high, log, bottom, top) {
  const to = log ? Math.log10 : (value) => value;
  const a = to(low), b = to(high);
  const scale = (value) => bottom + (to(value) - a) / (b - a) * (top - bottom);
  scale.low = low;
  scale.high = high;
  return scale;
}

/** Limits with some room around the data; zero is kept where data comes near it. */
function limits(values, chart, log) {
  let low = Math.min(...values), high = Math.max(...values);
  if (log) {
    if (low === high) return [low / 2, high * 2];
    const room = (high / low) ** 0.06;
    return [low / room, high * room];
  }
  if (chart.unit === "share") return [0, Math.min(1, Math.max(high * 1.08, 0.05))];
  if (chart.form === "stack" || chart.unit === "count" || (low >= 0 && low < high * 0.5)) low = Math.min(0, low);
  if (low === 0 && high === 0) return [0, 1];
  if (low === high) { const room = Math.abs(low) * 0.1 || 1; return [low - room, high + room]; }
  const room = (high - low) * 0.07;
  return [low === 0 ? 0 : low - room, high + room];
}

/** Centred moving average over 2 * reach + 1 places, nearer ones weighing more; it lags behind nothing and steps over gaps. */
function smoothed(values, reach) {
  return values.map((value, i) => {
    if (value === null) return null;
    let sum = 0, mass = 0;
    for (let k = Math.max(0, i - reach); k <= Math.min(values.length - 1, i + reach); k++) {
      if (values[k] === null) continue;
      const weight = reach + 1 - Math.abs(k - i);
      sum += weight * values[k];
      mass += weight;
    }
    return sum / mass;
  });
}
