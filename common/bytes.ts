const UNITS = ['B', 'KiB', 'MiB', 'GiB', 'TiB', 'PiB'];

/** `1536` → `1.5 KiB`. Three significant digits; whole bytes below 1 KiB. */
export function formatBytes(bytes: number): string {
  let value = Math.abs(bytes);
  let unit = 0;
  // 999.5 would print as 1000: the next unit begins where rounding would reach 1024.
  while (value >= 1023.5 && unit < UNITS.length - 1) {
    value /= 1024;
    unit++;
  }
  const text = unit === 0 || value >= 100 ? value.toFixed(0) : value >= 9.995 ? value.toFixed(1) : value.toFixed(2);
  const trimmed = text.includes('.') ? text.replace(/\.?0+$/, '') : text;
  return `${bytes < 0 ? '-' : ''}${trimmed} ${UNITS[unit]}`;
}

/** `formatRate(1536, 'samples')` → `1.54 ksamples/s`: decimal prefixes, for samples, steps and operations. */
export function formatRate(perSecond: number, unit: string): string {
  const steps = ['', 'k', 'M', 'G', 'T', 'P'];
  let value = Math.abs(perSecond);
  let step = 0;
  while (value >= 999.5 && step < steps.length - 1) {
    value /= 1000;
    step++;
  }
  const digits = value >= 100 ? 0 : value >= 9.995 ? 1 : 2;
  return `${perSecond < 0 ? '-' : ''}${Number(value.toFixed(digits))} ${steps[step]}${unit}/s`;
}
